"""The native family: executors with the contract of :mod:`executor_conformance.contract` itself."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any, ClassVar

from executor_conformance.driving import Adapter, Capability, Driver, Submission, Work


class NativeDriver(Driver):
    """Calls the executor as a scheduler does."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor
        kinds = getattr(executor, "command_kinds", None)
        self.lacks = _what_is_lacking(
            kinds if isinstance(kinds, (frozenset, set)) else frozenset({"argv"}),
            is_async=getattr(executor, "is_async", False) is True,
        )

    def start(self) -> None:
        self.executor.start()

    def submit(self, submission: Submission) -> None:
        command = self._command_of(submission.work)
        if submission.priority is not None:
            self.executor.queue_command(submission.key, command, priority=submission.priority)
            return
        self.executor.execute_async(submission.key, command, **submission.extra)

    def _command_of(self, work: Work) -> object:
        """The work in the first form that there is and that the executor takes."""
        forms = (
            (Capability.ARGV, work.argv),
            (Capability.CALLABLE, work.function),
            (Capability.COROUTINE, work.coroutine),
        )
        there = [(capability, form) for capability, form in forms if form is not None]
        taken = [form for capability, form in there if capability not in self.lacks]
        # What is no command in any form is for the executor to refuse.
        return next(iter(taken or [form for _, form in there]), None)

    def pump(self) -> None:
        # Looked up on the class too, so that a heartbeat which is None counts as none.
        heartbeat = getattr(self.executor, "heartbeat", None)
        if callable(heartbeat):
            heartbeat()
        else:
            self.executor.sync()

    def sync(self) -> None:
        self.executor.sync()

    def events(self, dag_ids: Sequence[str] | None = None) -> Any:
        if dag_ids is None:
            return self.executor.get_event_buffer()
        return self.executor.get_event_buffer(dag_ids)

    def end(self) -> None:
        self.executor.end()

    def terminate(self) -> None:
        self.executor.terminate()


def _what_is_lacking(kinds: Set[str], *, is_async: bool) -> dict[Capability, str]:
    lacks = {}
    if "argv" not in kinds:
        lacks[Capability.ARGV] = "its command_kinds has no argv"
        lacks[Capability.EXIT_STATUS] = "its command_kinds has no argv, and a call has no exit status"
    if "callable" not in kinds:
        lacks[Capability.CALLABLE] = "it does not say in command_kinds that it takes callables"
    if "coroutine" not in kinds:
        lacks[Capability.COROUTINE] = "it does not say in command_kinds that it takes coroutine functions"
    if not is_async:
        lacks[Capability.ASYNC] = "it does not say in is_async that it is async"
    return lacks


class NativeAdapter(Adapter):
    """Recognised by ``execute_async``, ``sync`` and ``end``."""

    family = "native"
    takes_coroutines = True
    required_methods: ClassVar = ("start", "execute_async", "sync", "get_event_buffer", "end", "terminate")
    lacks: ClassVar = {
        Capability.RESULTS: "the info of a native event is the executor's own affair",
    }

    @classmethod
    def recognises(cls, candidate: object) -> bool:
        # One method may be missing: that is then a broken rule, with a better message than "not recognised".
        return sum(hasattr(candidate, name) for name in ("execute_async", "sync", "end")) >= 2

    def drive(self, executor: Any) -> Driver:
        return NativeDriver(executor)
