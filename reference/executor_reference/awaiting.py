"""What takes time, awaited on an event loop without holding it up: a program, and a call that blocks."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import signal
import subprocess
import threading
from collections.abc import Callable

from executor_reference.endings import kill_session, reap, why_it_failed
from executor_reference.linux import die_with_parent
from executor_reference.task import reset_signal


async def program(words: tuple[str, ...]) -> str | None:
    """Run a program to its end; cancelled, it is killed with all that it has started.

    It has a session of its own, an empty standard input and default signals, and dies with the thread of the
    loop.

    :returns: why it failed, or ``None``.
    """
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
    try:
        # Not asyncio's own subprocesses: up to Python 3.11 each of them costs a thread, and some loops watch
        # theirs by way of SIGCHLD, which belongs to the host.
        await _end_of(process.pid)
    finally:  # not over yet: cancelled, or there is no descriptor left to watch it by
        status = _reap(process.pid)
    return why_it_failed(status)


async def _end_of(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    loop.add_reader(pidfd, _settle, ended, None)
    try:
        await ended
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def _reap(pid: int) -> int:
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    if ended is None:
        kill_session(pid)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    return reap(ended)


def _leave_the_host(host: int) -> None:
    """Between fork and exec."""
    die_with_parent(host)
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            reset_signal(number)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


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


def _settle(future: asyncio.Future[object], value: object) -> None:
    if not future.done():
        future.set_result(value)
