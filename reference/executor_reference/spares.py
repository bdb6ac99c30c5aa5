"""Tasks without the wait for a process: each is handed to a *spare*, a process that was made ahead of demand.

Between a scheduler's decision and a task's first instruction stands the making of a process: a third of a
millisecond for a fork of a small process, many for a fork of a large one or for a new interpreter.  So a
small process, the zygote, makes them beforehand (``zygote.py``): each spare waits on a socket, of which the
host has the other end, for one order, runs it and ends.  No process runs two tasks.

When no spare is ready one is asked for, and gets its order while it is still being made: to the host both are
one thing, a socket to write an order to.
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

_GONE = (BrokenPipeError, ConnectionResetError)


class Order(NamedTuple):
    """A command, as it travels.

    :param spare: what kind of spare can run it.
    """

    spare: int
    text: bytes


class SpareLauncher(Launcher):
    """Has a zygote make processes, and keeps some ready.

    :param spares: how many to keep ready, at least.
    """

    #: The kind of spare that is made ahead of demand.
    kind = zygote.RAISE
    #: So many are raised in one go, which costs less than one by one.
    at_once = 4

    def __init__(self, spares: int) -> None:
        self._spares = spares
        self._numbers = itertools.count()
        self._ready: dict[int, socket.socket] = {}  # the host's ends, the oldest first
        self._running: set[int] = set()
        self._news: list[Ended] = []
        self._channel: socket.socket | None = None
        self._pid = 0
        self._pidfd = -1

    # -- the zygote's life -----------------------------------------------------------------------------------

    def start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._pid = self._start_zygote(theirs)
                self._pidfd = _watch(self._pid)
            except BaseException:
                ours.close()
                raise
        self._channel = ours
        self._poll = select.poll()
        self._poll.register(self._channel, select.POLLIN)
        # Not the channel's end alone: for a moment a spare may hold the zygote's end, too.
        self._poll.register(self._pidfd, select.POLLIN)
        self._raise_spares()

    @abc.abstractmethod
    def _start_zygote(self, channel: socket.socket) -> int:
        """Start it with its end of the channel; its pid."""

    def stop(self) -> None:
        if self._channel is not None:
            self._tell(zygote.PILL)
            self._bury()

    def _bury(self) -> None:
        """Reap the zygote, which has ended or is about to."""
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
        return Order(zygote.RAISE, orders.pack(command.instruction))

    def launch(self, prepared: Order) -> int:
        self._read_news()  # what has died, a spare or the zygote, is not given an order
        if self._channel is None:
            self.start()
        number = self._hand_out(prepared)
        self._running.add(number)
        return number

    def _hand_out(self, order: Order) -> int:
        while self._ready and order.spare == self.kind:
            number = next(iter(self._ready))
            spare = self._ready.pop(number)
            try:
                orders.send(spare, order.text)
                return number
            except _GONE:  # it has died; that is news to come
                pass
            finally:
                spare.close()
        ((number, spare),) = self._raise(order.spare, 1)
        # if that one cannot be made, it is news, as if it had been made and had died
        with contextlib.suppress(*_GONE), spare:
            orders.send(spare, order.text)
        return number

    def ended(self, timeout_s: float | None) -> list[Ended]:
        if self._channel is not None:
            # Not in launch(): the zygote's work would compete with the task's start for a processor.
            self._raise_spares()
        if timeout_s != 0 and not self._news and self._channel is not None:
            self._poll.poll(milliseconds(timeout_s))
        self._read_news()
        news, self._news = self._news, []
        return news

    def _read_news(self) -> None:
        while self._channel is not None and (ready := dict(self._poll.poll(0))):
            message = b""
            if self._channel.fileno() in ready:
                with contextlib.suppress(ConnectionResetError):
                    message = self._channel.recv(zygote.LONGEST_NEWS)
            if message:
                self._take_news(*zygote.read_news(message))
            else:  # the zygote has ended, and all that it had said was read
                self._bury()
                self._news += [(number, "the process that had forked it died") for number in self._running]
                self._running.clear()

    def _take_news(self, number: int, reason: str | None) -> None:
        if number in self._running:
            self._running.remove(number)
            self._news.append((number, reason))
        elif number in self._ready:  # killed before it had anything to do
            self._ready.pop(number).close()

    def kill(self, number: int) -> None:
        self._tell(zygote.KILL, number)

    # -- what is said to the zygote --------------------------------------------------------------------------

    def _raise_spares(self) -> None:
        missing = self._spares + self.at_once - 1 - len(self._ready)
        if missing < self.at_once:
            return
        # out of descriptors, or the zygote died: what is needed now is there, the rest is news
        with contextlib.suppress(OSError):
            while missing > 0:
                raised = self._raise(self.kind, min(missing, zygote.MOST_AT_ONCE))
                self._ready.update(raised)
                missing -= len(raised)

    def _raise(self, kind: int, count: int) -> list[tuple[int, socket.socket]]:
        """Ask for spares: their numbers, which follow each other, and the host's ends of their sockets."""
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            raised, ends = [], []
            for _ in range(count):
                our_end, their_end = orders.new_socket()
                raised.append((next(self._numbers), ours.enter_context(our_end)))
                ends.append(theirs.enter_context(their_end).fileno())
            self._tell(kind, raised[0][0], ends)
            ours.pop_all()
            return raised

    def _tell(self, word: int, number: int = 0, descriptors: Sequence[int] = ()) -> None:
        assert self._channel is not None
        message = zygote.MESSAGE.pack(word, number, len(descriptors))
        with contextlib.suppress(*_GONE):  # if it has died, its end of the channel is closed: that is news
            socket.send_fds(self._channel, [message], descriptors)


class SnapshotLauncher(SpareLauncher):
    """The zygote is a snapshot of the host: forked from it by :meth:`start`, its heap frozen.

    Tasks find what the host had imported and set up by then, and nothing of what it does later (threads,
    locks, garbage).
    """

    def _start_zygote(self, channel: socket.socket) -> int:
        gc.collect()  # freezing garbage would keep it for ever
        host = os.getpid()
        pid = os.fork()
        if pid == 0:
            zygote.become_snapshot(channel.fileno(), host)
        return pid


class FreshLauncher(SpareLauncher):
    """The zygote is a new interpreter, so it is small, however large the host is.

    :param preload: modules that it imports, so that tasks need not.
    """

    def __init__(self, spares: int, preload: tuple[str, ...] = ()) -> None:
        super().__init__(spares)
        self._preload = preload

    def prepare(self, command: Command) -> Order:
        return Order(zygote.RAISE, orders.pack(command.instruction, other_main=True))

    #: What the zygote is started with, and where it finds modules.
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
        return list(sys.path)


class InterpreterLauncher(FreshLauncher):
    """The zygote makes interpreters, which have imported nothing of the user's when their order comes."""

    kind = zygote.RAISE_INTERPRETER
    at_once = 1
    _flags = ("-I", "-S")  # it runs nothing of the user's, and makes no copy of anything for them

    def _path(self) -> list[str]:
        return [*sys.path, str(Path(__file__).parents[1])]

    def start(self) -> None:
        self._surroundings = _surroundings()
        super().start()

    def prepare(self, command: Command) -> Order:
        if isinstance(command, Argv):
            if command.module is None:
                return super().prepare(command)
            told: Any = (command.module, list(command.words[2:]), None)
        else:
            told = (None, list(sys.path), orders.portable(command.function, other_main=True))
        return Order(self.kind, marshal.dumps(told))

    def launch(self, prepared: Order) -> int:
        now = _surroundings()
        if now != self._surroundings and self._channel is not None:
            self._surroundings = now
            self._drop_spares()
            with orders.file_in_memory(marshal.dumps(now)) as file:
                self._tell(zygote.SURROUNDINGS, 0, [file.fileno()])
        return super().launch(prepared)


def _watch(pid: int) -> int:
    """A descriptor that becomes readable when this child ends; one that cannot be watched is ended."""
    try:
        return os.pidfd_open(pid)
    except OSError:  # there is no descriptor left
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _surroundings() -> tuple[dict[bytes, bytes], bytes | None]:
    """What a new process takes over from the one that starts it: the environment, the working directory."""
    try:
        here = os.getcwdb()
    except FileNotFoundError:
        here = None
    return dict(os.environb), here
