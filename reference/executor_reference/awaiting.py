"""Awaiting what would block an event loop: the end of a program, and the return of a blocking call."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
import queue
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from executor_reference.endings import (
    Note,
    failure_reason,
    kill_session,
    reap,
    reap_if_ours,
    statuses_are_discarded,
)
from executor_reference.keeper import fork_under_keeper
from executor_reference.linux import die_with_parent, open_standard_descriptors, status_of_reaped
from executor_reference.task import reset_signals


class Programs:
    """Runs programs, which all die with the thread that starts them.

    A dedicated thread starts them, because two steps would block the loop: the fork of a large host, and the
    wait until the program has been read and executed.
    """

    def __init__(self) -> None:
        self._running: dict[_Program, asyncio.AbstractEventLoop] = {}
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, words: tuple[str, ...]) -> str | None:
        """Run a program until it ends.  If this is cancelled, the program and its children are killed.

        The program has its own session, an empty standard input and default signals.

        :returns: why it failed, or ``None`` for success.
        """
        started: asyncio.Future[_Program | str] = asyncio.get_running_loop().create_future()
        try:
            self._put(_Order(words, started))
        except RuntimeError as error:  # the system is out of threads
            return f"could not be started: {error}"
        try:
            program = await asyncio.shield(started)
        except asyncio.CancelledError:
            started.add_done_callback(self._kill_started)
            raise
        if isinstance(program, str):
            return program
        try:
            # Not asyncio's own subprocesses: up to Python 3.11 each of them costs a thread, and some loops
            # watch them through SIGCHLD, whose handler belongs to the host.
            await _wait_for(program)
        finally:  # if it still runs, because this was cancelled, _reap() kills it
            status = self._reap(program)
        return failure_reason(status)

    def kill_all(self) -> None:
        """Kill all running programs.  May be called from any thread; :meth:`run` reaps them."""
        for program in list(self._running):
            kill_session(program.pid)

    def close(self, patience_s: float = 0.0) -> None:
        """Start no more programs, and kill those that still run.

        :param patience_s: how long to wait until they have been killed, in seconds.
        """
        thread, self._thread = self._thread, None
        if thread:
            self._orders.put(None)
            thread.join(patience_s)

    def _put(self, order: _Order) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name="program-starter", daemon=True)
            thread.start()
            self._thread = thread
        self._orders.put(order)

    def _serve(self) -> None:
        """Start programs until :meth:`close`.  Runs in the dedicated thread."""
        for order in iter(self._orders.get, None):
            loop = order.started.get_loop()
            answer = self._start(order.words, loop)
            with contextlib.suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(_resolve, order.started, answer)
        self.kill_all()
        for program, loop in list(self._running.items()):
            if loop.is_closed():  # run() cannot reap it any more
                self._reap(program)

    def _start(self, words: tuple[str, ...], loop: asyncio.AbstractEventLoop) -> _Program | str:
        """Start a program, or return why it could not be started."""
        note = Note() if statuses_are_discarded() else None
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=functools.partial(_prepare_child, os.getpid(), note),
            )
        except (OSError, subprocess.SubprocessError) as error:
            return f"could not be started: {error}"
        process.returncode = 0  # keeps Popen from waiting for the process, which happens here
        try:
            pidfd = os.pidfd_open(process.pid)
        except ProcessLookupError:  # it has ended, and other code has reaped it
            pidfd = -1
        except OSError as error:  # no descriptor is left, so its end could not be noticed
            kill_session(process.pid)
            reap_if_ours(process.pid)
            return f"could not be started: {error}"
        program = _Program(process.pid, pidfd, note)
        self._running[program] = loop
        return program

    def _kill_started(self, started: asyncio.Future[_Program | str]) -> None:
        program = started.result()
        if isinstance(program, _Program):
            self._reap(program)

    def _reap(self, program: _Program) -> int | None:
        """Reap a program, after killing it if it still runs; return its wait status or ``None`` if lost."""
        try:
            ended = os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if ended is None:
                kill_session(program.pid)
                ended = os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            ended = None
        del self._running[program]  # before the pid is reaped and can be reused
        status = None if ended is None else reap(ended)
        if program.note is not None and (noted := program.note.read_status()) is not None:
            status = noted  # of the program; the other one is its keeper's
        if program.pidfd >= 0:
            if status is None:
                status = status_of_reaped(program.pidfd)
            os.close(program.pidfd)
        return status


@dataclass(frozen=True)
class _Order:
    words: tuple[str, ...]
    started: asyncio.Future[_Program | str]


@dataclass(frozen=True, eq=False)
class _Program:
    """A running program.

    :param pid: of the program, or of its keeper.
    :param pidfd: becomes readable when that process ends; -1 if other code has already reaped it.
    :param note: of the keeper, if there is one.
    """

    pid: int
    pidfd: int
    note: Note | None


async def _wait_for(program: _Program) -> None:
    if program.pidfd < 0:
        return
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    loop.add_reader(program.pidfd, _resolve, ended, None)
    try:
        await ended
    finally:
        loop.remove_reader(program.pidfd)


def _prepare_child(host: int, note: Note | None) -> None:
    """Run in the child, between fork and exec."""
    die_with_parent(host)
    reset_signals()
    open_standard_descriptors()
    if note is not None:
        fork_under_keeper(note)


async def call(function: Callable[[], object], places: asyncio.Semaphore) -> object:
    """Call a function in a new thread, in a copy of this task's context, and return its result.

    Exceptions of the function are raised here.  If this is cancelled, the thread is left running, because
    nothing can stop a thread; it does not delay the exit of the interpreter.  Each call has its own thread,
    and there is no pool, so no call sees thread-local state of another.

    :param places: limits the number of threads.  A place stays taken until the thread has ended.
    """
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    context = contextvars.copy_context()

    def work() -> None:
        value: object = None
        failure: BaseException | None = None
        try:
            value = context.run(function)
        except BaseException as error:
            failure = error
        try:
            loop.call_soon_threadsafe(leave, value, failure)
        except RuntimeError:
            pass  # the loop was closed, so the result is not needed

    def leave(value: object, failure: BaseException | None) -> None:
        places.release()
        _resolve(ended, (value, failure))

    await places.acquire()
    try:
        threading.Thread(target=work, name="blocking-call", daemon=True).start()
    except RuntimeError:  # the system is out of threads
        places.release()
        raise
    value, failure = await ended
    if failure is not None:
        raise failure
    return value


def _resolve(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)
