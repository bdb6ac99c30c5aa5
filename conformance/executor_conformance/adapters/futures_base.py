"""A base for families whose submissions return futures: it keeps them, and makes events of their outcomes."""

from __future__ import annotations

import abc
import concurrent.futures
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from executor_conformance.adapters.api import Driver, Submission, Work
from executor_conformance.contract import FAILED, SUCCESS, TaskKey

if TYPE_CHECKING:
    import asyncio

AnyFuture: TypeAlias = "asyncio.Future[object] | concurrent.futures.Future[object]"


class FutureDriver(Driver):
    """Keeps the futures that have not been reported yet; the executor needs no pump."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor
        self._pending: list[tuple[TaskKey, AnyFuture]] = []

    def start(self) -> None:
        """Its constructor has started it."""

    @abc.abstractmethod
    def send(self, work: Work) -> AnyFuture:
        """Submit one task; the future that the executor returns."""

    def submit(self, submission: Submission) -> None:
        self._pending.append((submission.key, self.send(submission.work)))

    def pump(self) -> None:
        """It makes progress on its own."""

    def sync(self) -> None:
        """It makes progress on its own."""

    def events(self, dag_ids: Sequence[str] | None = None) -> Any:
        events: dict[TaskKey, tuple[str, object]] = {}
        pending = []
        for key, future in self._pending:
            if key in events or not future.done():
                pending.append((key, future))  # a second future of a key is a second event
            else:
                events[key] = outcome_of(future)
        self._pending = pending
        return events


def outcome_of(future: AnyFuture) -> tuple[str, object]:
    """State and info of a future that is done."""
    if future.cancelled():
        return FAILED, "cancelled"
    # One that claims to be done must not block either; futures of asyncio never do.
    at_once = {"timeout": 0} if isinstance(future, concurrent.futures.Future) else {}
    error = future.exception(**at_once)
    if error is not None:
        return FAILED, error
    return SUCCESS, future.result(**at_once)
