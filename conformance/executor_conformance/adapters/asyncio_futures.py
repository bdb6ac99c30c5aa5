"""asyncio executors in the manner of ``concurrent.futures``: ``submit`` takes a coroutine function, and
returns a future of asyncio or of ``concurrent.futures``.

Such an executor expects to be called on a running event loop, or has one in a thread of its own.  Where no
loop runs, the driver has one for it that goes on with each pump, as the loop of an application would.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from executor_conformance.adapters.futures import FuturesAdapter
from executor_conformance.contract import FAILED, SUCCESS, TaskKey
from executor_conformance.driving import ABSENT, Adapter, Capability, Driver, Submission

_ENDS = ("shutdown", "aclose", "close")
#: How long the driver's loop goes on with each pump, in seconds.
_ROUND_S = 0.0005

_Future = asyncio.Future[object] | concurrent.futures.Future[object]


class AsyncioDriver(Driver):
    """Keeps the futures that have not been reported yet, and a loop for those that need one."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor
        self._pending: list[tuple[TaskKey, _Future]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Its constructor was its start."""

    def submit(self, submission: Submission) -> None:
        work = submission.work
        future = self._on_a_loop(lambda: self.executor.submit(work.coroutine or work.function))
        self._pending.append((submission.key, future))

    def pump(self) -> None:
        if self._loop is not None and not _is_loop_running():
            self._loop.run_until_complete(asyncio.sleep(_ROUND_S))

    def sync(self) -> None:
        """It moves by itself."""

    def events(self, dag_ids: Sequence[str] | None = None) -> Any:
        events: dict[TaskKey, tuple[str, object]] = {}
        pending = []
        for key, future in self._pending:
            if key in events or not future.done():
                pending.append((key, future))  # a key's second future is a second event
            else:
                events[key] = _outcome(future)
        self._pending = pending
        return events

    def future(self, key: TaskKey) -> asyncio.Future[object] | None:
        future = next(future for pending, future in self._pending if pending == key)
        return future if isinstance(future, asyncio.Future) else None

    def end(self) -> None:
        end = next(getattr(self.executor, name) for name in _ENDS if hasattr(self.executor, name))
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

    def terminate(self) -> None:
        raise AssertionError("such an executor has no terminate(); the adapter says so")

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


def _outcome(future: _Future) -> tuple[str, object]:
    if future.cancelled():
        return FAILED, "cancelled"
    error = future.exception()
    if error is not None:
        return FAILED, error
    return SUCCESS, future.result()


class AsyncioAdapter(Adapter):
    """Recognised by a plain ``submit``, by ``shutdown``, ``aclose`` or ``close``, and by ``is_async = True``.

    A ``submit`` that is a coroutine function itself is another thing: it tells what it refuses to those who
    await it, as it tells them of a failure.
    """

    family = "asyncio"
    takes_coroutines = True
    required_methods: ClassVar = ("submit",)
    parallelism_argument: ClassVar = "max_workers"
    words: ClassVar = {**FuturesAdapter.words, "end()": "its shutdown"}
    lacks: ClassVar = {
        **{
            lack: reason
            for lack, reason in FuturesAdapter.lacks.items()
            if lack not in (Capability.COROUTINE, Capability.ASYNC)
        },
        Capability.CALLABLE: "an asyncio executor is asked to run coroutine functions only",
    }

    @classmethod
    def recognises(cls, candidate: object) -> bool:
        return (
            hasattr(candidate, "submit")
            and not inspect.iscoroutinefunction(candidate.submit)
            and any(hasattr(candidate, name) for name in _ENDS)
            and getattr(candidate, "is_async", False) is True
            and not hasattr(candidate, "execute_async")
        )

    def drive(self, executor: Any) -> Driver:
        return AsyncioDriver(executor)
