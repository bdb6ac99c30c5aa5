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
import fcntl
import functools
import gc
import itertools
import marshal
import os
import select
import socket
import sys
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from executor_reference import orders, zygote
from executor_reference.atomic import append_result, fork, open_pidfd
from executor_reference.commands import Argv, Command
from executor_reference.endings import kill_session, reap_if_ours
from executor_reference.launch import Job, Launcher, is_of_the_system, milliseconds

_PEER_DIED = (BrokenPipeError, ConnectionResetError)
#: The environment variables, and the working directory if it exists.
_Environment = tuple[dict[bytes, bytes], "bytes | None"]


class Order(NamedTuple):
    """A command in the form in which it is sent to a spare.

    :param kind: the kind of spare that can run it: ``zygote.SPAWN`` or ``zygote.SPAWN_INTERPRETER``.
    :param data: the order, as the spare reads it.
    """

    kind: int
    data: bytes


class _Spare(NamedTuple):
    """A process that waits for an order, or will once it has been made.

    :param number: the zygote's name for it.
    :param order_socket: the host's end; closed once the order has been sent.
    """

    number: int
    order_socket: socket.socket


class SpareLauncher(Launcher):
    """Has a zygote make processes, and keeps some of them ready.

    :param spares: the least number of spares to keep ready.
    """

    #: The kind of spare that is made ahead of demand.
    kind = zygote.SPAWN
    #: Spares are made in batches of at least this size, which costs less than making them one by one.
    batch = 4

    def __init__(self, spares: int) -> None:
        super().__init__()
        self._spares = spares
        self._numbers = itertools.count()
        self._ready: dict[int, _Spare] = {}  # by number; the oldest spare is first
        self._running: dict[int, Job] = {}  # by the number of the spare
        self._unread: list[bytes] = []  # messages of the zygote
        self._channel: socket.socket | None = None
        self._pid = 0
        self._pidfd: FileIO | None = None  # FileIO: closing it twice does no harm
        self._environment: _Environment = {}, None

    # -- the zygote ------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._environment = _environment()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pids: list[int] = []
        try:
            with _above_standard_descriptors(theirs) as channel:
                self._start_zygote(channel, pids)
            self._pid = pids[0]
            self._pidfd = open_pidfd(self._pid)
            self._poll = select.poll()
            self._poll.register(ours, select.POLLIN)
            # The end of the channel is not enough: for a moment, a spare may also hold the zygote's end.
            self._poll.register(self._pidfd, select.POLLIN)
            self._channel = ours
        except BaseException:
            self._channel = None
            ours.close()
            if self._pidfd is not None:
                self._pidfd.close()
            for pid in pids:
                kill_session(pid)
                reap_if_ours(pid)
            raise
        self._spawn_spares()

    @abc.abstractmethod
    def _start_zygote(self, channel: socket.socket, pids: list[int]) -> None:
        """Start the zygote with its end of the channel, and append its pid to the list."""

    def stop(self) -> None:
        if self._channel is not None:
            assert self._pidfd is not None
            if not self._pidfd.closed:  # else an exception interrupted the next line
                self._send(zygote.PILL)
            self._reap_zygote()

    def _reap_zygote(self) -> None:
        """Release everything that belongs to the zygote, which has ended or is about to."""
        assert self._channel is not None
        assert self._pidfd is not None
        self._drop_spares()
        if not self._pidfd.closed:
            with contextlib.suppress(ChildProcessError):  # reaped by the kernel, other code, or this line
                os.waitid(os.P_PIDFD, self._pidfd.fileno(), os.WEXITED)
            self._pidfd.close()
        self._channel.close()
        self._channel = None

    def _drop_spares(self) -> None:
        for spare in self._ready.values():
            spare.order_socket.close()
        self._ready.clear()

    # -- tasks -----------------------------------------------------------------------------------------------

    def prepare(self, command: Command) -> Order:
        return Order(zygote.SPAWN, orders.pack(command.instruction))

    def launch(self, job: Job) -> None:
        resumed = job.process is not None
        if not resumed:
            self._read_results()  # notices a dead spare or zygote before an order is sent to it
            if self._channel is None:
                self.start()
            self._update_environment()
        order: Order = job.prepared
        while True:
            if job.process is None:
                ready = order.kind == self.kind and next(iter(self._ready.values()), None)
                job.process = ready or self._spawn(order.kind, 1)[0]
            spare: _Spare = job.process
            was_ready = self._ready.pop(spare.number, None)
            self._running[spare.number] = job
            try:
                if spare.order_socket.fileno() >= 0:
                    # After an exception the order may be sent twice.  The spare reads the first one.
                    orders.send(spare.order_socket, order.data)
                    spare.order_socket.close()
                return
            except _PEER_DIED:
                spare.order_socket.close()
                if resumed or not was_ready:  # the zygote reports how it ended, or why it was not made
                    return
                self._forget(job)  # it died before it got the order, so the next one gets it
            except OSError as error:
                if is_of_the_system(error):
                    spare.order_socket.close()
                    self._forget(job)
                raise

    def _forget(self, job: Job) -> None:
        """Take a job from its spare, whose result will arrive and be ignored."""
        number = job.process.number
        job.process = None
        del self._running[number]

    def collect(self, timeout_s: float | None) -> None:
        if self._channel is not None:
            # Not in launch(): the zygote would compete for a processor with the task that starts.
            self._spawn_spares()
        has_news = self.ended or self._unread
        if timeout_s != 0 and not has_news and self._channel is not None:
            self._poll.poll(milliseconds(timeout_s))
        self._read_results()

    def _read_results(self) -> None:
        while self._channel is not None:
            while self._unread:
                self._take_result(*zygote.unpack_result(self._unread[0]))
                del self._unread[0]
            assert self._pidfd is not None
            if self._pidfd.closed:  # an exception interrupted the last line of this method
                self._reap_zygote()
                return
            ready = dict(self._poll.poll(0))
            if not ready:
                return
            if self._channel.fileno() in ready:
                with contextlib.suppress(ConnectionResetError):
                    append_result(self._unread, self._channel.recv, zygote.MAX_RESULT)
            if not self._unread or not self._unread[0]:
                # The zygote has died, and all its messages have been read.
                for number in list(self._running):
                    self._take_result(number, "the process that forked it died")
                self._unread.clear()
                self._reap_zygote()

    def _take_result(self, number: int, reason: str | None) -> None:
        job = self._running.get(number)
        if job is not None and job.process is not None and job.process.number == number:
            job.end = (reason,)
            self.ended[job] = None
            del self._running[number]
        elif number in self._ready:  # a spare was killed before it got an order
            self._ready[number].order_socket.close()
            del self._ready[number]

    def kill(self, job: Job) -> None:
        self._send(zygote.KILL, job.process.number)

    # -- requests to the zygote ------------------------------------------------------------------------------

    def _spawn_spares(self) -> None:
        missing = self._spares + self.batch - 1 - len(self._ready)
        if missing < self.batch:
            return
        try:
            while missing > 0:
                spawned = self._spawn(self.kind, min(missing, zygote.MAX_BATCH))
                self._ready.update((spare.number, spare) for spare in spawned)
                missing -= len(spawned)
        except OSError as error:
            if not is_of_the_system(error):
                raise
            # No descriptor is left.  Spares can wait until a later call.

    def _spawn(self, kind: int, count: int) -> list[_Spare]:
        """Ask for spares."""
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            spawned, ends = [], []
            for _ in range(count):
                our_end, their_end = orders.socket_pair()
                spawned.append(_Spare(next(self._numbers), ours.enter_context(our_end)))
                ends.append(theirs.enter_context(their_end).fileno())
            self._send(kind, spawned[0].number, ends)
            ours.pop_all()
            return spawned

    def _update_environment(self) -> None:
        """Give later tasks the environment and the working directory that the host has now."""
        now = _environment()
        if now != self._environment:
            self._drop_spares()
            with orders.memory_file(marshal.dumps(now)) as file:
                self._send(zygote.ENVIRONMENT, 0, [file.fileno()])
            self._environment = now

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

    def _start_zygote(self, channel: socket.socket, pids: list[int]) -> None:
        gc.collect()  # garbage that is frozen would never be freed
        fork(pids, functools.partial(zygote.become_snapshot, channel.fileno(), os.getpid()))


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

    def _start_zygote(self, channel: socket.socket, pids: list[int]) -> None:
        text = zygote.STARTER.format(
            path=self._path(), channel=channel.fileno(), host=os.getpid(), preload=self._preload
        )
        inherit = (os.POSIX_SPAWN_DUP2, channel.fileno(), channel.fileno())
        spawn = functools.partial(os.posix_spawn, file_actions=[inherit])
        append_result(pids, spawn, sys.executable, [sys.executable, *self._flags, "-c", text], os.environ)

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

    def prepare(self, command: Command) -> Order:
        if isinstance(command, Argv):
            if command.module is None:
                return super().prepare(command)
            order: Any = (command.module, list(command.words[2:]), None)
        else:
            order = (None, list(sys.path), orders.portable(command.function, other_main=True))
        return Order(self.kind, marshal.dumps(order))


def _above_standard_descriptors(one: socket.socket) -> socket.socket:
    """Return the socket, or a duplicate of it if a standard stream could have its number.

    The host may have no standard streams, but a task opens its own.
    """
    if one.fileno() > 2:
        return one
    with one:
        return socket.socket(fileno=fcntl.fcntl(one.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))


def _environment() -> _Environment:
    """Return what a new process inherits from its parent: the environment and the working directory."""
    try:
        here = os.getcwdb()
    except FileNotFoundError:
        here = None
    # Not dict(os.environb), which decodes and encodes each name: 60 us instead of 0.2 for 37 variables.
    variables: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]
    return variables.copy(), here
