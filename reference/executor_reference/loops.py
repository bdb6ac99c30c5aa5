"""The event loop of an executor: the caller's running loop, or a new one in its own thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import threading
from collections.abc import Collection, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

#: While the loop does not respond, its current task is checked this many times within the time limit.
_CHECKS = 8


class Unreachable(Exception):
    """The loop did not run what it was asked to; the message says why."""


class CallersLoop:
    """The caller's running loop.  It keeps running, unchanged, after the executor has ended."""

    is_ours = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    @property
    def is_here(self) -> bool:
        """Whether the caller itself runs on this loop, as a task or a callback, so it cannot wait for it."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def run(self, coroutine: Coroutine[Any, Any, Result], patience_s: float | None = None) -> Result:
        """Run a coroutine on the loop from another thread, and return its result.

        :param patience_s: how long the loop may be unresponsive, in seconds; ``None``: no limit.
        :raises Unreachable: the loop is closed or blocked, or its owner stops it.
        """
        if self.loop.is_closed():
            coroutine.close()
            raise Unreachable("its event loop was closed")
        if not self.loop.is_running():
            return self._run_while_stopped(coroutine)
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        done: queue.SimpleQueue[concurrent.futures.Future[Result]] = queue.SimpleQueue()
        # If the future is done already, the callback runs here, and what a signal handler raises in it is
        # swallowed.  As put() is in C, it has then done its work.
        future.add_done_callback(done.put)
        while True:
            try:
                done.get(timeout=patience_s)
                break
            except queue.Empty:
                self._require_response(patience_s)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise Unreachable("its event loop was stopped") from None

    def _run_while_stopped(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        # The owner of the loop is between two calls of run_until_complete().
        return self.loop.run_until_complete(coroutine)

    def _require_response(self, patience_s: float | None) -> None:
        responded = threading.Event()
        try:
            self.loop.call_soon_threadsafe(responded.set)
        except RuntimeError:
            raise Unreachable("its event loop was closed") from None
        # A loop with thousands of tasks is slow to respond but not blocked.  It is blocked if the same task
        # runs at each check.
        same = 0
        suspect = asyncio.current_task(self.loop)
        while not responded.wait(None if patience_s is None else patience_s / _CHECKS):
            current = asyncio.current_task(self.loop)
            same = same + 1 if current is suspect else 0
            suspect = current
            if same == _CHECKS:
                raise Unreachable(f"its event loop has been blocked for {patience_s:.1f} s")

    def close(self, patience_s: float, left_behind: Collection[asyncio.Task[Any]] = ()) -> None:
        """Release the loop after the executor has ended."""
        return

    def abandon(self) -> None:
        """Release the loop after the executor has ended, although the loop is blocked."""
        return


class OwnLoop(CallersLoop):
    """A loop in its own thread.  It is uvloop's, if that is installed."""

    is_ours = True

    def __init__(self) -> None:
        super().__init__(_new_loop())
        self._patience_s = 0.0
        self._left_behind: set[asyncio.Task[Any]] = set()
        # A daemon thread: a task that never ends must not delay the exit of the interpreter.
        self._thread = threading.Thread(target=self._run, name="executor-loop", daemon=True)
        running = threading.Event()
        self.loop.call_soon(running.set)
        self._thread.start()
        running.wait()

    def _run_while_stopped(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        coroutine.close()
        raise Unreachable("its event loop has ended")

    def close(self, patience_s: float, left_behind: Collection[asyncio.Task[Any]] = ()) -> None:
        """Cancel the remaining tasks, close the asynchronous generators, and close the loop.

        :param patience_s: the time limit for each of these steps, in seconds.
        :param left_behind: tasks that have ignored their cancellation and are not waited for again.
        """
        if self.loop.is_closed():
            return
        self._patience_s = patience_s
        self._left_behind = set(left_behind)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(4 * patience_s)

    def abandon(self) -> None:
        """Have the loop closed as soon as it is no longer blocked."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            clearing = self.loop.create_task(self._clear())
            clearing.add_done_callback(lambda _: self.loop.stop())
            while not clearing.done():  # after an exception in close(), the loop may be asked to stop twice
                self.loop.run_forever()
            clearing.result()
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()

    async def _clear(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()} - self._left_behind
        for task in left:
            task.cancel()
        await self._wait(*left)
        await self._wait(self.loop.create_task(self.loop.shutdown_asyncgens()))
        await self._wait(self.loop.create_task(self.loop.shutdown_default_executor()))

    async def _wait(self, *tasks: asyncio.Task[Any]) -> None:
        if tasks:
            await asyncio.wait(tasks, timeout=self._patience_s)


def running_or_new() -> CallersLoop:
    """Return the loop that is running in this thread, or else a new one in its own thread."""
    try:
        return CallersLoop(asyncio.get_running_loop())
    except RuntimeError:
        return OwnLoop()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
