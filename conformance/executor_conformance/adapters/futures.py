"""``concurrent.futures``: executors that hand out a Future for each task.

``max_workers`` is the parallelism, ``submit`` the submission and ``shutdown`` the end.  A future's outcome is
the terminal event; pumping is nothing, because such an executor moves by itself.
"""

from __future__ import annotations

import concurrent.futures
import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

from executor_conformance.contract import FAILED, SUCCESS, TaskKey
from executor_conformance.driving import ABSENT, Adapter, Capability, Driver, Submission


class FuturesDriver(Driver):
    """Keeps the futures that have not been reported yet."""

    def __init__(self, executor: concurrent.futures.Executor) -> None:
        self.executor = executor
        self._pending: list[tuple[TaskKey, concurrent.futures.Future[object]]] = []

    def start(self) -> None:
        """Its constructor was its start."""

    def submit(self, submission: Submission) -> None:
        assert submission.work.function is not None
        self._pending.append((submission.key, self.executor.submit(submission.work.function)))

    def pump(self) -> None:
        """It moves by itself."""

    def sync(self) -> None:
        """It moves by itself."""

    def events(self, dag_ids: Sequence[str] | None = None) -> Any:
        events = {}
        pending = []
        for key, future in self._pending:
            if key in events or not future.done():
                pending.append((key, future))  # a key's second future is a second event
            else:
                events[key] = _outcome(future)
        self._pending = pending
        return events

    def end(self) -> None:
        self.executor.shutdown(wait=True)

    def terminate(self) -> None:
        raise AssertionError("concurrent.futures has no terminate(); the adapter says so")

    def optional(self, name: str) -> Any:
        return ABSENT


def _outcome(future: concurrent.futures.Future[object]) -> tuple[str, object]:
    if future.cancelled():
        return FAILED, "cancelled"
    error = future.exception(timeout=0)
    if error is not None:
        return FAILED, error
    return SUCCESS, future.result(timeout=0)


class FuturesAdapter(Adapter):
    """Recognised as subclasses of ``concurrent.futures.Executor``."""

    family = "futures"
    takes_calls = True
    required_methods: ClassVar = ("submit", "map", "shutdown")
    parallelism_argument: ClassVar = "max_workers"
    words: ClassVar = {
        "start()": "the constructor",
        "execute_async()": "submit()",
        "end()": "shutdown()",
        "get_event_buffer()": "Future.result()",
        "sync()": "nothing",
    }
    lacks: ClassVar = {
        Capability.COROUTINE: "submit() hands back what the call returns, a coroutine too",
        Capability.START: "a concurrent.futures executor is started by its constructor",
        Capability.INERT_CONSTRUCTOR: "a concurrent.futures executor is started by its constructor",
        Capability.TERMINATE: "concurrent.futures has no terminate()",
        Capability.EXIT_STATUS: "a concurrent.futures task is a call, which returns or raises",
        Capability.ARGV: "a concurrent.futures executor runs callables only",
        Capability.KEYS: "a Future is its own key",
        Capability.EVENT_FILTER: "a Future is asked by itself, there is no buffer",
        Capability.QUEUE_AND_CONFIG: "submit() hands every argument to the callable",
        Capability.PARALLELISM_ATTRIBUTE: "concurrent.futures does not publish max_workers",
    }

    @classmethod
    def recognises(cls, candidate: object) -> bool:
        kind = candidate if inspect.isclass(candidate) else type(candidate)
        return issubclass(kind, concurrent.futures.Executor)

    def drive(self, executor: Any) -> Driver:
        return FuturesDriver(executor)
