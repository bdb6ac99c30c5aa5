"""Drives asyncio executors.

Such an executor expects to be called on a running event loop, or has one in a thread of its own.  Where no
loop runs, the driver makes one that advances with each pump, as the loop of an application would.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from executor_conformance.adapters.api import ABSENT, Work
from executor_conformance.adapters.futures_base import AnyFuture, FutureDriver
from executor_conformance.contract import TaskKey

#: Seconds that the driver's loop runs in each pump.
_ROUND_S = 0.0005


class AsyncioDriver(FutureDriver):
    """Has a loop for executors that need one.

    :param ends: the names of methods that may end it.
    """

    def __init__(self, executor: Any, ends: Sequence[str]) -> None:
        super().__init__(executor)
        self._ends = ends
        self._loop: asyncio.AbstractEventLoop | None = None

    def send(self, work: Work) -> AnyFuture:
        future: AnyFuture = self._on_a_loop(lambda: self.executor.submit(work.coroutine or work.function))
        return future

    def pump(self) -> None:
        if self._loop is not None and not _is_loop_running():
            self._loop.run_until_complete(asyncio.sleep(_ROUND_S))

    def future(self, key: TaskKey) -> asyncio.Future[object] | None:
        future = next(future for pending, future in self._pending if pending == key)
        return future if isinstance(future, asyncio.Future) else None

    def end(self) -> None:
        end = next(getattr(self.executor, name) for name in self._ends if hasattr(self.executor, name))
        if _is_loop_running():
            ending = end()
            if inspect.isawaitable(ending):
                self._ending = asyncio.ensure_future(ending)
            return
        self._on_a_loop(lambda: _awaited(end))
        if self._loop is not None:
            loop, self._loop = self._loop, None
            # A plain shutdown() on a loop cannot wait for what needs the loop.
            futures = [future for _, future in self._pending if isinstance(future, asyncio.Future)]
            if left := [future for future in futures if not future.done()]:
                loop.run_until_complete(asyncio.wait(left))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def optional(self, name: str) -> Any:
        return getattr(self.executor, name, ABSENT) if name == "is_async" else ABSENT

    def _on_a_loop(self, call: Callable[[], Any]) -> Any:
        if _is_loop_running():
            return call()
        if self._loop is None:
            self._loop = asyncio.new_event_loop()

        async def inside() -> Any:
            value = call()
            return await value if inspect.iscoroutine(value) else value

        return self._loop.run_until_complete(inside())


async def _awaited(call: Callable[[], Any]) -> None:
    value = call()
    if inspect.isawaitable(value):
        await value


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
