"""Starts tasks from a snapshot of the host: the ``snapshot`` start method.

A small process is forked once, early, and its heap is frozen; it forks every task from there.  So the cost of
a fork does not grow with the host's heap, and what the host does later (threads, locks, garbage) is not in
the tasks.

Host and snapshot share one channel, on which the host sends orders: a command with a pipe of its own, or the
pill.  Everything that there is to say of a task (its pid, why it failed, how it ended) comes back on that
task's own pipe, so nobody ever waits for a reader and no answer can be taken for another's.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import select
import signal
import socket
import traceback
from multiprocessing.connection import Connection
from typing import NoReturn

from executor_reference.commands import Command
from executor_reference.launch import Ending, Launcher, RunningTask, kill_session, message_pipe, reap
from executor_reference.linux import close_private_descriptors, die_with_parent
from executor_reference.task import become_task

_LENGTH = 8
#: An order of length zero: no command can look like it.
_PILL = (0).to_bytes(_LENGTH, "little")


class SnapshotLauncher(Launcher):
    """Has a snapshot process fork the tasks."""

    def __init__(self) -> None:
        self._channel: socket.socket | None = None
        self._pid = 0
        self._pidfd = -1

    def start(self) -> None:
        ours, theirs = socket.socketpair()
        gc.collect()  # freezing garbage would keep it for ever
        host = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            _become_snapshot(theirs, host)
        theirs.close()
        self._channel = ours
        self._pidfd = os.pidfd_open(self._pid)

    def check(self, command: Command) -> None:
        pickle.dumps(command)

    def launch(self, command: Command) -> RunningTask:
        if self._channel is None or _has_ended(self._pidfd):
            self.stop()
            self.start()
        assert self._channel is not None
        order = pickle.dumps(command)
        reader, writer = message_pipe()
        with writer:
            # Whatever it takes to watch the task is made first: once ordered, it cannot be called back.
            task = _Grandchild(reader, self._pidfd)
            try:
                socket.send_fds(self._channel, [len(order).to_bytes(_LENGTH, "little")], [writer.fileno()])
                self._channel.sendall(order)
            except OSError:
                pass  # it died just now: the task is seen to have lost its snapshot
        return task

    def stop(self) -> None:
        if self._channel is None:
            return
        try:
            self._channel.sendall(_PILL)
        except OSError:
            pass  # it has died already
        self._channel.close()
        self._channel = None
        os.waitpid(self._pid, 0)
        os.close(self._pidfd)


class _Grandchild(RunningTask):
    """A task that is a child of the snapshot, or soon will be.

    :param pipe: on which its news come; closed with the task, also if this fails.
    :param snapshot: a pidfd, which stays the caller's.
    """

    def __init__(self, pipe: Connection, snapshot: int) -> None:
        self._pipe = pipe
        self._pid: int | None = None
        self._reason: str | None = None
        self._ending: Ending | None = None
        with contextlib.ExitStack() as stack:
            stack.callback(pipe.close)
            self._snapshot = os.dup(snapshot)
            stack.callback(os.close, self._snapshot)
            # readable when the task has news, or when the snapshot is gone and there will be none
            self._either = select.epoll()
            stack.callback(self._either.close)
            self._either.register(pipe.fileno(), select.EPOLLIN)
            self._either.register(self._snapshot, select.EPOLLIN)
            self._close = stack.pop_all().close

    def fileno(self) -> int:
        return self._either.fileno()

    def ending(self) -> Ending | None:
        if self._ending is None:
            self._ending = self._take_news()
        return self._ending

    def _take_news(self) -> Ending | None:
        lost = _has_ended(self._snapshot)  # looked at first: what it sent before it died counts
        while self._pipe.poll(0):
            try:
                message = self._pipe.recv()
            except EOFError:
                lost = True
                break
            if isinstance(message, str):
                self._reason = message
            elif message[0] == "pid":
                self._pid = message[1]
            else:
                return Ending.of_status(message[1], self._reason)
        if lost:
            return Ending(self._reason or "the snapshot process that had forked it died")
        return None

    def kill(self) -> None:
        while self.ending() is None and self._pid is None:  # it may not have been forked yet
            select.select([self._either], [], [])
        if self._ending is None and self._pid is not None:
            kill_session(self._pid)

    def close(self) -> None:
        self._close()


def _has_ended(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], 0)[0])


# -- in the snapshot process ---------------------------------------------------------------------------------


def _become_snapshot(channel: socket.socket, host: int) -> NoReturn:
    try:
        os.setsid()
        die_with_parent(host)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        close_private_descriptors(keep={channel.fileno()})
        gc.freeze()
        _Snapshot(channel).serve()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


class _Snapshot:
    """Forks tasks on order and tells how each ended."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)
        self._tasks: dict[int, tuple[int, Connection]] = {}

    def serve(self) -> None:
        """Until the pill, or until the host is gone; the tasks that still run die with this process."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor != self._channel.fileno():
                    self._report_end(descriptor)
                elif not self._take_order():
                    return

    def _take_order(self) -> bool:
        head, descriptors, _, _ = socket.recv_fds(self._channel, _LENGTH, 1)
        if not head or head == _PILL:
            return False
        command = pickle.loads(_read_exactly(self._channel, int.from_bytes(head, "little")))
        if descriptors:  # else there was none left for it here: the host sees its pipe closed
            os.set_inheritable(descriptors[0], False)  # recv_fds() ignores its flags (MSG_CMSG_CLOEXEC)
            self._start(command, Connection(descriptors[0], readable=False))
        return True

    def _start(self, command: Command, pipe: Connection) -> None:
        snapshot = os.getpid()
        try:
            pid = os.fork()
            if pid == 0:
                become_task(command, fresh=False, reasons=pipe, parent=snapshot)
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:  # a task that cannot be watched must not run
                kill_session(pid)
                os.waitpid(pid, 0)
                raise
        except OSError as error:  # out of processes, memory or descriptors; the other tasks go on
            _tell(pipe, f"it could not be started: {error}")
            pipe.close()
            return
        _tell(pipe, ("pid", pid))
        self._tasks[pidfd] = (pid, pipe)
        self._poll.register(pidfd, select.POLLIN)

    def _report_end(self, pidfd: int) -> None:
        pid, pipe = self._tasks[pidfd]
        status = reap(pid)
        if status is None:
            return
        del self._tasks[pidfd]
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _tell(pipe, ("status", status))
        pipe.close()


def _tell(pipe: Connection, news: object) -> None:
    try:
        pipe.send(news)
    except OSError:
        pass  # the host no longer cares


def _read_exactly(channel: socket.socket, length: int) -> bytes:
    pieces = []
    while length > 0:
        piece = channel.recv(min(length, 1 << 20))
        if not piece:
            raise EOFError("the host went away in the middle of an order")
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)
