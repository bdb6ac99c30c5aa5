"""What takes time, awaited on an event loop without holding it up: a program, and a call that blocks."""

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

from executor_reference.endings import kill_session, reap, why_it_failed
from executor_reference.linux import die_with_parent
from executor_reference.task import reset_signals

_LOST = "how it ended is lost: this process ignores SIGCHLD, or something in it waits for every child"


class Programs:
    """Runs programs, which all die with the thread that starts them.

    It has a thread for that, because the fork of a large host takes long, and so does waiting for the program
    to be read: neither is for an event loop, on which all others wait meanwhile.
    """

    def __init__(self) -> None:
        self._running: dict[int, asyncio.AbstractEventLoop] = {}
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, words: tuple[str, ...]) -> str | None:
        """Run a program to its end; cancelled, it is killed with all that it has started.

        It has a session of its own, an empty standard input and default signals.

        :returns: why it failed, or ``None``.
        """
        started: asyncio.Future[int | str] = asyncio.get_running_loop().create_future()
        try:
            self._have_it_started(_Order(words, started))
        except RuntimeError as error:  # the machine is out of threads
            return f"it could not be started: {error}"
        try:
            pid = await asyncio.shield(started)
        except asyncio.CancelledError:
            started.add_done_callback(self._stop_what_came_late)
            raise
        if isinstance(pid, str):
            return pid
        try:
            # Not asyncio's own subprocesses: up to Python 3.11 each of them costs a thread, and some loops
            # watch theirs by way of SIGCHLD, which belongs to the host.
            await _end_of(pid)
        finally:  # not over yet: cancelled, or there is no descriptor left to watch it by
            status = self._reap(pid)
        return _LOST if status is None else why_it_failed(status)

    def kill_all(self) -> None:
        """Kill what runs, from any thread; it is reaped by whoever waits for it."""
        for pid in list(self._running):
            kill_session(pid)

    def close(self, patience_s: float = 0.0) -> None:
        """Nothing will be started any more, and what still runs is killed.

        :param patience_s: how long to wait for that, in seconds.
        """
        thread, self._thread = self._thread, None
        if thread:
            self._orders.put(None)
            thread.join(patience_s)

    def _have_it_started(self, order: _Order) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._start_all, name="program-starter", daemon=True)
            thread.start()
            self._thread = thread
        self._orders.put(order)

    def _start_all(self) -> None:
        for order in iter(self._orders.get, None):
            loop = order.started.get_loop()
            answer = self._start(order.words, loop)
            with contextlib.suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(_settle, order.started, answer)
        self.kill_all()
        for pid, loop in list(self._running.items()):
            if loop.is_closed():  # so that nobody there will
                self._reap(pid)

    def _start(self, words: tuple[str, ...], loop: asyncio.AbstractEventLoop) -> int | str:
        """The pid, or why there is none."""
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=functools.partial(_leave_the_host, os.getpid()),
            )
        except (OSError, subprocess.SubprocessError) as error:
            return f"it could not be started: {error}"
        process.returncode = 0  # Popen is to keep its hands off: it is waited for here
        self._running[process.pid] = loop
        return process.pid

    def _stop_what_came_late(self, started: asyncio.Future[int | str]) -> None:
        pid = started.result()
        if isinstance(pid, int):
            self._reap(pid)

    def _reap(self, pid: int) -> int | None:
        """The wait status of what has ended, or ends now; ``None`` if that is lost."""
        try:
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if ended is None:
                kill_session(pid)
                ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            ended = None
        del self._running[pid]  # first: its number may soon be another's
        return None if ended is None else reap(ended)


@dataclass(frozen=True)
class _Order:
    words: tuple[str, ...]
    started: asyncio.Future[int | str]


async def _end_of(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:  # over, and somebody else has waited for it
        return
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    loop.add_reader(pidfd, _settle, ended, None)
    try:
        await ended
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def _leave_the_host(host: int) -> None:
    """Between fork and exec."""
    die_with_parent(host)
    reset_signals()


async def call(function: Callable[[], object], places: asyncio.Semaphore) -> object:
    """Call it in a thread of its own, in a copy of this task's context: what it returns or raises.

    Cancelled, the thread is left behind, because nothing can stop it; it does not hold up the end of the
    interpreter.  A thread for each call, and no pool, so that nothing of one is there for the next.

    :param places: bounds the threads; one is taken until its thread has ended.
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
            pass  # the loop was closed: nobody waits any longer

    def leave(value: object, failure: BaseException | None) -> None:
        places.release()
        _settle(ended, (value, failure))

    await places.acquire()
    try:
        threading.Thread(target=work, name="blocking-call", daemon=True).start()
    except RuntimeError:  # the machine is out of threads
        places.release()
        raise
    value, failure = await ended
    if failure is not None:
        raise failure
    return value


def _settle(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)
