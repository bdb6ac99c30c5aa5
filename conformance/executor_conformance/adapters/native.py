"""The native family: executors that offer the contract of :mod:`executor_conformance.contract` itself."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any, ClassVar

from executor_conformance.adapters.api import Adapter, Driver, Submission, Work
from executor_conformance.contract import Call
from executor_conformance.requirements import Capability


class NativeDriver(Driver):
    """Calls the executor as a scheduler does."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor
        kinds = getattr(executor, "command_kinds", None)
        # On the class: reading an attribute of the executor may run code of its own.
        self.pump_call = Call.HEARTBEAT if callable(getattr(type(executor), "heartbeat", None)) else Call.SYNC
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
        if submission.extra:  # then all arguments by keyword, as Airflow does
            self.executor.execute_async(key=submission.key, command=command, **submission.extra)
        else:
            self.executor.execute_async(submission.key, command)

    def _command_of(self, work: Work) -> object:
        """The work in the first form that the executor takes."""
        forms = (
            (Capability.ARGV, work.argv),
            (Capability.CALLABLE, work.function),
            (Capability.COROUTINE, work.coroutine),
        )
        given = [(capability, form) for capability, form in forms if form is not None]
        taken = [form for capability, form in given if capability not in self.lacks]
        # What is no command in any form is for the executor to reject.
        return next(iter(taken or [form for _, form in given]), None)

    def pump(self) -> None:
        # A heartbeat that is None counts as none.
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
        lacks[Capability.ARGV] = "command_kinds does not include 'argv'"
        lacks[Capability.EXIT_STATUS] = "command_kinds does not include 'argv', and a call has no exit status"
    if "callable" not in kinds:
        lacks[Capability.CALLABLE] = "command_kinds does not include 'callable'"
    if "coroutine" not in kinds:
        lacks[Capability.COROUTINE] = "command_kinds does not include 'coroutine'"
    if not is_async:
        lacks[Capability.ASYNC] = "its is_async is not True"
    return lacks


class NativeAdapter(Adapter):
    """Recognized by ``execute_async``, ``sync`` and ``end``."""

    family = "native"
    takes_coroutines = True
    required_methods: ClassVar = ("start", "execute_async", "sync", "get_event_buffer", "end", "terminate")
    lacks: ClassVar = {
        Capability.RESULTS: "the contract leaves the info of an event to the executor",
    }

    @classmethod
    def recognizes(cls, candidate: object) -> bool:
        # One method may be missing: the rule about methods then fails, with a better message than "not
        # recognized".
        return sum(hasattr(candidate, name) for name in ("execute_async", "sync", "end")) >= 2

    def drive(self, executor: Any) -> Driver:
        return NativeDriver(executor)
