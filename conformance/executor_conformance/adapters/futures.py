"""``concurrent.futures``: executors that return a Future for each task.

``max_workers`` is the parallelism, ``submit`` the submission and ``shutdown`` the end.  A future's outcome is
the terminal event; there is nothing to pump.
"""

from __future__ import annotations

import concurrent.futures
import inspect
from typing import Any, ClassVar

from executor_conformance.adapters.api import ABSENT, Adapter, Driver, Work
from executor_conformance.adapters.futures_base import AnyFuture, FutureDriver
from executor_conformance.contract import Call
from executor_conformance.requirements import Capability


class FuturesDriver(FutureDriver):
    """Submits callables, and ends by ``shutdown(wait=True)``."""

    def send(self, work: Work) -> AnyFuture:
        assert work.function is not None
        future: AnyFuture = self.executor.submit(work.function)
        return future

    def end(self) -> None:
        self.executor.shutdown(wait=True)

    def optional(self, name: str) -> Any:
        return ABSENT


class FuturesAdapter(Adapter):
    """Recognized as subclasses of ``concurrent.futures.Executor``."""

    family = "futures"
    takes_calls = True
    required_methods: ClassVar = ("submit", "map", "shutdown")
    parallelism_argument: ClassVar = "max_workers"
    names: ClassVar = {
        Call.EXECUTE_ASYNC: "submit()",
        Call.END: "shutdown()",
        Call.GET_EVENT_BUFFER: "Future.result()",
    }
    lacks: ClassVar = {
        Capability.COROUTINE: "submit() does not await a coroutine that the call returns",
        Capability.START: "a concurrent.futures executor is started by its constructor",
        Capability.INERT_CONSTRUCTOR: "a concurrent.futures executor is started by its constructor",
        Capability.TERMINATE: "concurrent.futures has no terminate()",
        Capability.EXIT_STATUS: "a concurrent.futures task is a call, which returns or raises",
        Capability.ARGV: "a concurrent.futures executor runs callables only",
        Capability.KEYS: "a Future is its own key",
        Capability.EVENT_FILTER: "each Future is asked on its own; there is no event buffer",
        Capability.QUEUE_AND_CONFIG: "submit() passes every argument to the callable",
        Capability.PARALLELISM_ATTRIBUTE: "concurrent.futures does not publish max_workers",
    }

    @classmethod
    def recognizes(cls, candidate: object) -> bool:
        kind = candidate if inspect.isclass(candidate) else type(candidate)
        return issubclass(kind, concurrent.futures.Executor)

    def drive(self, executor: Any) -> Driver:
        return FuturesDriver(executor)
