"""What every trial offers besides executors: calls under a deadline, tasks, the host, waiting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from executor_conformance.adapters.api import Work
from executor_conformance.contract import TaskKey
from executor_conformance.harness.blackboard import Blackboard
from executor_conformance.harness.calls import Calls
from executor_conformance.harness.context import RunContext
from executor_conformance.harness.host import Host
from executor_conformance.harness.linux import monotonic_ns
from executor_conformance.harness.probes import Gate, Probe, ProbeFactory
from executor_conformance.harness.target import Target
from executor_conformance.harness.waiting import Patience, Waiting
from executor_conformance.requirements import Capability

Result = TypeVar("Result")


class TrialBase(Waiting):
    """What a rule and the executors that it starts have in common.

    :param scratch: a directory for probes, gates and the journal.
    :param warden: pid of the process below which everything that the executor makes can be found.
    """

    def __init__(self, context: RunContext, *, blackboard: Blackboard, scratch: str, warden: int) -> None:
        patience = Patience(context.second_wait_s, context.no_second_wait)
        super().__init__(context.budgets, context.facts, patience)
        self.context = context
        self.scratch = scratch
        self.host = Host(warden, blackboard)
        #: Numbers for the reader of the report.
        self.measurements: dict[str, Any] = {}
        self.began_ns = monotonic_ns()
        self._calls = Calls(blackboard, context.hung_calls, self.patience)
        self._factory = ProbeFactory(scratch)
        self.journal = self._factory.journal
        #: How many events were returned by ``get_event_buffer()``.
        self.events_seen = 0

    def signs_of_life(self) -> int:
        return self.journal.size + self.events_seen

    @property
    def target(self) -> Target:
        """What is under test."""
        return self.context.target

    def can(self, capability: Capability) -> bool:
        """:meth:`RunContext.can`."""
        return self.context.can(capability)

    def call(
        self,
        kind: str,
        function: Callable[[], Result],
        *,
        allowance_s: float | None = None,
        name: str = "",
        silent: bool = False,
        backlog: float = 0.0,
    ) -> Result:
        """Make one call of the executor under a deadline; see :meth:`Calls.make`.

        :param allowance_s: seconds; by default the budget of a call.
        :param name: by default what the executor's family calls it.
        """
        return self._calls.make(
            kind,
            function,
            allowance_s=allowance_s or self.budgets.call_s,
            name=name or self.target.adapter.name_of(kind),
            silent=silent,
            backlog=backlog,
        )

    @property
    def calls(self) -> str:
        """The last calls that were made, for messages."""
        return self._calls.history

    # -- tasks -----------------------------------------------------------------------------------------------

    def probe(self, *steps: str, key: TaskKey | None = None) -> Probe:
        """A task of the suite; see :mod:`executor_conformance.probes.steps`."""
        return self._factory.probe(*steps, key=key)

    def probes(self, count: int, *steps: str) -> list[Probe]:
        """``count`` tasks that do the same."""
        return [self.probe(*steps) for _ in range(count)]

    def probe_as_program(self, *steps: str) -> Probe:
        """A task of the suite started through ``env``, so that no executor can run it without a new
        interpreter.
        """
        probe = self.probe(*steps)
        return replace(probe, work=Work(argv=["/usr/bin/env", *(probe.work.argv or ())]))

    def program(self, *argv: str) -> Probe:
        """A task that is any program."""
        return self._factory.program(*argv)

    def shell_probe(self, exit_status: int, key: TaskKey | None = None) -> Probe:
        """A task that records its run by means of a shell, in a millisecond even where each Python task
        costs a new interpreter.
        """
        return self._factory.shell_probe(exit_status, key)

    def gate(self) -> Gate:
        """A closed gate."""
        return self._factory.gate()
