"""The native family: executors with the contract of :mod:`executor_conformance.contract` itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, ClassVar

from executor_conformance.driving import DEFAULT, Adapter, Capability, Driver, Submission


class NativeDriver(Driver):
    """Calls the executor as a scheduler does."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor
        kinds = getattr(executor, "command_kinds", None)
        self.lacks = _what_is_lacking(kinds if isinstance(kinds, (frozenset, set)) else frozenset({"argv"}))

    def start(self) -> None:
        self.executor.start()

    def submit(self, submission: Submission) -> None:
        work = submission.work
        as_argv = work.function is None or (Capability.ARGV not in self.lacks and work.argv is not None)
        command = work.argv if as_argv else work.function
        if submission.priority is not None:
            self.executor.queue_command(submission.key, command, priority=submission.priority)
            return
        self.executor.execute_async(submission.key, command, **submission.extra)

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


def _what_is_lacking(kinds: Set[str]) -> dict[Capability, str]:
    lacks = {}
    if "argv" not in kinds:
        lacks[Capability.ARGV] = "its command_kinds has no argv"
        lacks[Capability.EXIT_STATUS] = "its command_kinds has no argv, and a call has no exit status"
    if "callable" not in kinds:
        lacks[Capability.CALLABLE] = "it does not say in command_kinds that it takes callables"
    return lacks


class NativeAdapter(Adapter):
    """Recognised by ``execute_async``, ``sync`` and ``end``."""

    family = "native"
    required_methods: ClassVar = ("start", "execute_async", "sync", "get_event_buffer", "end", "terminate")
    lacks: ClassVar = {
        Capability.RESULTS: "the info of a native event is the executor's own affair",
    }

    @classmethod
    def recognises(cls, candidate: object) -> bool:
        # One method may be missing: that is then a broken rule, with a better message than "not recognised".
        return sum(hasattr(candidate, name) for name in ("execute_async", "sync", "end")) >= 2

    def arguments(self, parallelism: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        arguments = dict(options)
        if parallelism is not DEFAULT:
            arguments["parallelism"] = parallelism
        return arguments

    def drive(self, executor: Any) -> Driver:
        return NativeDriver(executor)
