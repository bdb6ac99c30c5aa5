"""Where an event loop comes from, and what becomes of it: the caller's, or one of the executor's own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Collection, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

#: At what a loop is busy with, within the time that it may give no sign of life.
_LOOKS = 8


class Unreachable(Exception):
    """The loop did nothing of what it was asked; the text says why."""


class CallersLoop:
    """The running loop, which goes on as it was when the executor has ended."""

    is_ours = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    @property
    def is_here(self) -> bool:
        """Whether the caller is a task or a callback of this loop, who cannot wait for it."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def carry_out(self, coroutine: Coroutine[Any, Any, Result], patience_s: float | None = None) -> Result:
        """Run a coroutine on the loop from outside of it, and wait for its result.

        :param patience_s: how long the loop may give no sign of life, in seconds; ``None``: for ever.
        :raises Unreachable: the loop is closed, or blocked, or its owner ends it.
        """
        if self.loop.is_closed():
            coroutine.close()
            raise Unreachable("its event loop was closed")
        if not self.loop.is_running():
            return self._between_runs(coroutine)
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        waited = threading.Event()
        future.add_done_callback(lambda _: waited.set())
        while not waited.wait(patience_s):
            self._expect_sign_of_life(patience_s)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise Unreachable("its event loop was ended") from None

    def _between_runs(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """The owner of the loop is between two of its ``run_until_complete()``."""
        return self.loop.run_until_complete(coroutine)

    def _expect_sign_of_life(self, patience_s: float | None) -> None:
        alive = threading.Event()
        try:
            self.loop.call_soon_threadsafe(alive.set)
        except RuntimeError:
            raise Unreachable("its event loop was closed") from None
        # A loop with thousands of tasks takes long to come round; one that is at it all along blocks it.
        looks = 0
        suspect = asyncio.current_task(self.loop)
        while not alive.wait(None if patience_s is None else patience_s / _LOOKS):
            at_it = asyncio.current_task(self.loop)
            looks = looks + 1 if at_it is suspect else 0
            suspect = at_it
            if looks == _LOOKS:
                raise Unreachable(f"its event loop has been blocked for {patience_s:.1f} s")

    def close(self, patience_s: float, stubborn: Collection[asyncio.Task[Any]] = ()) -> None:
        """The executor has ended."""
        return

    def abandon(self) -> None:
        """The executor has ended, and the loop is blocked."""
        return


class OwnLoop(CallersLoop):
    """A loop in a thread of its own, uvloop's where that is installed."""

    is_ours = True

    def __init__(self) -> None:
        super().__init__(_new_loop())
        self._patience_s = 0.0
        self._stubborn: set[asyncio.Task[Any]] = set()
        # A daemon: a task that never ends must not hold up the end of the interpreter.
        self._thread = threading.Thread(target=self._run, name="executor-loop", daemon=True)
        running = threading.Event()
        self.loop.call_soon(running.set)
        self._thread.start()
        running.wait()

    def _between_runs(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        coroutine.close()
        raise Unreachable("its event loop has ended")

    def close(self, patience_s: float, stubborn: Collection[asyncio.Task[Any]] = ()) -> None:
        """Stop what tasks have left behind, close their generators, and the loop.

        :param patience_s: for each of these, in seconds; what takes longer stays.
        :param stubborn: tasks that have had their time already.
        """
        if self.loop.is_closed():
            return
        self._patience_s = patience_s
        self._stubborn = set(stubborn)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(4 * patience_s)

    def abandon(self) -> None:
        """Have it closed as soon as whatever blocks it lets go."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(self._clear())
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()

    async def _clear(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()} - self._stubborn
        for task in left:
            task.cancel()
        await self._patiently(*left)
        await self._patiently(self.loop.create_task(self.loop.shutdown_asyncgens()))
        await self._patiently(self.loop.create_task(self.loop.shutdown_default_executor()))

    async def _patiently(self, *tasks: asyncio.Task[Any]) -> None:
        if tasks:
            await asyncio.wait(tasks, timeout=self._patience_s)


def running_or_own() -> CallersLoop:
    """The loop that is running in this thread, or a new one in a thread of its own."""
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
