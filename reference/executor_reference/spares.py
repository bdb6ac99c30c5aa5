"""Launchers that hand each task to a *spare*: a process that was made ahead of demand.

A task cannot start before it has a process.  Forking a small process takes 0.3 ms; forking a large one, or
starting an interpreter, takes many.  So a small process, the zygote (``zygote.py``), makes processes in
advance.  Each spare waits on a socket for one order, runs that task and exits.  No process runs two tasks.

If no spare is ready, the host asks for one and sends the order at once, while the spare is still being made.
To the host a spare is the same in both cases: a socket to which it can write an order.
"""

from __future__ import annotations

import abc
import contextlib
import gc
import itertools
import marshal
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from executor_reference import orders, zygote
from executor_reference.commands import Argv, Command
from executor_reference.launch import Ended, Launcher, milliseconds

_PEER_DIED = (BrokenPipeError, ConnectionResetError)


class Order(NamedTuple):
    """A command in the form in which it is sent to a spare.

    :param kind: the kind of spare that can run it: ``zygote.SPAWN`` or ``zygote.SPAWN_INTERPRETER``.
    :param data: the order, as the spare reads it.
    """

    kind: int
    data: bytes


class SpareLauncher(Launcher):
    """Has a zygote make processes, and keeps some of them ready.

    :param spares: the least number of spares to keep ready.
    """

    #: The kind of spare that is made ahead of demand.
    kind = zygote.SPAWN
    #: Spares are made in batches of at least this size, which costs less than making them one by one.
    batch = 4

    def __init__(self, spares: int) -> None:
        self._spares = spares
        self._numbers = itertools.count()
        self._ready: dict[int, socket.socket] = {}  # number -> the host's end; the oldest spare is first
        self._running: set[int] = set()
        self._results: list[Ended] = []
        self._channel: socket.socket | None = None
        self._pid = 0
        self._pidfd = -1

    # -- the zygote ------------------------------------------------------------------------------------------

    def start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._pid = self._start_zygote(theirs)
                self._pidfd = _open_pidfd(self._pid)
            except BaseException:
                ours.close()
                raise
        self._channel = ours
        self._poll = select.poll()
        self._poll.register(self._channel, select.POLLIN)
        # The end of the channel is not enough: for a moment, a spare may also hold the zygote's end.
        self._poll.register(self._pidfd, select.POLLIN)
        self._spawn_spares()

    @abc.abstractmethod
    def _start_zygote(self, channel: socket.socket) -> int:
        """Start the zygote with its end of the channel, and return its pid."""

    def stop(self) -> None:
        if self._channel is not None:
            self._send(zygote.PILL)
            self._reap_zygote()

    def _reap_zygote(self) -> None:
        """Release everything that belongs to the zygote, which has ended or is about to."""
        assert self._channel is not None
        self._channel.close()
        self._channel = None
        self._drop_spares()
        os.waitpid(self._pid, 0)
        os.close(self._pidfd)

    def _drop_spares(self) -> None:
        for spare in self._ready.values():
            spare.close()
        self._ready.clear()

    # -- tasks -----------------------------------------------------------------------------------------------

    def prepare(self, command: Command) -> Order:
        return Order(zygote.SPAWN, orders.pack(command.instruction))

    def launch(self, prepared: Order) -> int:
        self._read_results()  # notices a dead spare or zygote before an order is sent to it
        if self._channel is None:
            self.start()
        number = self._send_order(prepared)
        self._running.add(number)
        return number

    def _send_order(self, order: Order) -> int:
        """Send the order to a ready spare, or else to a new one, and return the spare's number."""
        while self._ready and order.kind == self.kind:
            number = next(iter(self._ready))
            spare = self._ready.pop(number)
            try:
                orders.send(spare, order.data)
                return number
            except _PEER_DIED:  # its result will arrive and be ignored
                pass
            finally:
                spare.close()
        ((number, spare),) = self._spawn(order.kind, 1)
        # If this one dies, or cannot be made, the zygote reports it.
        with contextlib.suppress(*_PEER_DIED), spare:
            orders.send(spare, order.data)
        return number

    def ended(self, timeout_s: float | None) -> list[Ended]:
        if self._channel is not None:
            # Not in launch(): the zygote would compete for a processor with the task that starts.
            self._spawn_spares()
        if timeout_s != 0 and not self._results and self._channel is not None:
            self._poll.poll(milliseconds(timeout_s))
        self._read_results()
        results, self._results = self._results, []
        return results

    def _read_results(self) -> None:
        while self._channel is not None and (ready := dict(self._poll.poll(0))):
            message = b""
            if self._channel.fileno() in ready:
                with contextlib.suppress(ConnectionResetError):
                    message = self._channel.recv(zygote.MAX_RESULT)
            if message:
                self._take_result(*zygote.unpack_result(message))
            else:  # the zygote has died, and all its messages have been read
                self._reap_zygote()
                self._results += [(number, "the process that forked it died") for number in self._running]
                self._running.clear()

    def _take_result(self, number: int, reason: str | None) -> None:
        if number in self._running:
            self._running.remove(number)
            self._results.append((number, reason))
        elif number in self._ready:  # a spare was killed before it got an order
            self._ready.pop(number).close()

    def kill(self, number: int) -> None:
        self._send(zygote.KILL, number)

    # -- requests to the zygote ------------------------------------------------------------------------------

    def _spawn_spares(self) -> None:
        missing = self._spares + self.batch - 1 - len(self._ready)
        if missing < self.batch:
            return
        # OSError: no descriptor is left.  Spares can wait until a later call.
        with contextlib.suppress(OSError):
            while missing > 0:
                spawned = self._spawn(self.kind, min(missing, zygote.MAX_BATCH))
                self._ready.update(spawned)
                missing -= len(spawned)

    def _spawn(self, kind: int, count: int) -> list[tuple[int, socket.socket]]:
        """Ask for spares; return their numbers and the host's ends of their sockets."""
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            spawned, ends = [], []
            for _ in range(count):
                our_end, their_end = orders.socket_pair()
                spawned.append((next(self._numbers), ours.enter_context(our_end)))
                ends.append(theirs.enter_context(their_end).fileno())
            self._send(kind, spawned[0][0], ends)
            ours.pop_all()
            return spawned

    def _send(self, opcode: int, number: int = 0, descriptors: Sequence[int] = ()) -> None:
        assert self._channel is not None
        message = zygote.MESSAGE.pack(opcode, number, len(descriptors))
        with contextlib.suppress(*_PEER_DIED):  # _read_results() notices that the zygote has died
            socket.send_fds(self._channel, [message], descriptors)


class SnapshotLauncher(SpareLauncher):
    """Uses a snapshot of the host as the zygote: :meth:`start` forks it from the host and freezes its heap.

    Tasks see what the host had imported and set up by then.  They see nothing that the host does later
    (threads, locks, garbage).
    """

    def _start_zygote(self, channel: socket.socket) -> int:
        gc.collect()  # garbage that is frozen would never be freed
        host = os.getpid()
        pid = os.fork()
        if pid == 0:
            zygote.become_snapshot(channel.fileno(), host)
        return pid


class FreshLauncher(SpareLauncher):
    """Uses a new interpreter as the zygote, which is therefore small even if the host is large.

    :param preload: modules that the zygote imports, so that tasks find them imported.
    """

    def __init__(self, spares: int, preload: tuple[str, ...] = ()) -> None:
        super().__init__(spares)
        self._preload = preload

    def prepare(self, command: Command) -> Order:
        return Order(zygote.SPAWN, orders.pack(command.instruction, other_main=True))

    #: Options of the interpreter that becomes the zygote.
    _flags: tuple[str, ...] = ()

    def _start_zygote(self, channel: socket.socket) -> int:
        text = zygote.STARTER.format(
            path=self._path(), channel=channel.fileno(), host=os.getpid(), preload=self._preload
        )
        return os.posix_spawn(
            sys.executable,
            [sys.executable, *self._flags, "-c", text],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, channel.fileno(), channel.fileno())],  # makes it inheritable
        )

    def _path(self) -> list[str]:
        """Return the ``sys.path`` of the zygote."""
        return list(sys.path)


class InterpreterLauncher(FreshLauncher):
    """Has the zygote make new interpreters, which import nothing of the user's before their order arrives."""

    kind = zygote.SPAWN_INTERPRETER
    batch = 1
    _flags = ("-I", "-S")  # this zygote runs no user code, so it needs neither site nor PYTHON* variables

    def _path(self) -> list[str]:
        return [*sys.path, str(Path(__file__).parents[1])]

    def start(self) -> None:
        self._environment = _environment()
        super().start()

    def prepare(self, command: Command) -> Order:
        if isinstance(command, Argv):
            if command.module is None:
                return super().prepare(command)
            order: Any = (command.module, list(command.words[2:]), None)
        else:
            order = (None, list(sys.path), orders.portable(command.function, other_main=True))
        return Order(self.kind, marshal.dumps(order))

    def launch(self, prepared: Order) -> int:
        now = _environment()
        if now != self._environment and self._channel is not None:
            self._environment = now
            self._drop_spares()
            with orders.memory_file(marshal.dumps(now)) as file:
                self._send(zygote.ENVIRONMENT, 0, [file.fileno()])
        return super().launch(prepared)


def _open_pidfd(pid: int) -> int:
    """Return a descriptor that becomes readable when this child ends.

    :raises OSError: no descriptor is left; the child has been killed and reaped.
    """
    try:
        return os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _environment() -> tuple[dict[bytes, bytes], bytes | None]:
    """Return what a new process inherits from its parent: the environment and the working directory."""
    try:
        here = os.getcwdb()
    except FileNotFoundError:
        here = None
    return dict(os.environb), here
