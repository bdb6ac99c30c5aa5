"""What all rules of a run share: the target, what is known of it, and what the user chose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from executor_conformance.harness.calibration import Budgets, Calibration
from executor_conformance.harness.target import Target
from executor_conformance.requirements import Capability, TaskLocation
from executor_conformance.verdicts import HungCall

#: The conftest hook that disposes of executors, as a call that can hang.
DISPOSE_HOOK = "pytest_conformance_dispose_executor"
#: What a rule waits for between its calls, in :attr:`RunContext.no_second_wait`.
EVENTS = "events"
#: Random programs per rule of chapter ``model``, unless ``--conformance-programs`` says otherwise.
DEFAULT_PROGRAMS = 60
#: How many tasks may be seen to run at once: more than any rule needs of an executor of fixed size.
MOST_SLOTS = 16


@dataclass(frozen=True)
class Facts:
    """What was seen of the executor before the first rule.

    :param location: where the first task ran.
    :param construct_s: seconds that the constructor took.
    :param start_s: seconds that ``start()`` took, with two workers.
    :param first_task_s: seconds from the first submission to its event; 0: no task has run.
    :param import_s: seconds that importing the target took.
    :param forked: the first task inherited the host's memory; ``None``: not known.
    :param fork_s: seconds for a fork of a host with the executor in it; 0: not known.
    :param starts_on_import: what importing the target starts, such as threads, which a fork does not copy.
    :param parallelism_argument: of the target; empty if it takes none.
    :param slots: how many tasks run at once, where the suite cannot choose that; 0: not known.
    :param lacks: what the executor itself lacks, in addition to its family: name of the capability -> reason.
    """

    location: TaskLocation = TaskLocation.UNKNOWN
    construct_s: float = 0.0
    start_s: float = 0.0
    first_task_s: float = 0.0
    import_s: float = 0.0
    forked: bool | None = None
    fork_s: float = 0.0
    starts_on_import: str = ""
    parallelism_argument: str = ""
    slots: int = 0
    lacks: Mapping[str, str] = field(default_factory=dict)

    @property
    def at_once(self) -> str:
        """How many tasks run at once, where the suite cannot choose that, in words."""
        if not self.slots:
            return "it could not be observed how many tasks run at once"
        if self.slots == 1:
            return "one task runs at a time"
        return f"{self.slots}{' or more' if self.slots == MOST_SLOTS else ''} tasks run at once"

    def budgets(self, calibration: Calibration) -> Budgets:
        """How long to wait for this executor on this machine."""
        return Budgets.of(
            calibration,
            construct_s=self.construct_s,
            start_s=self.start_s,
            first_task_s=self.first_task_s,
        )

    @property
    def tasks_in_host(self) -> bool:
        """Whether tasks run in the process that holds the executor, as threads or coroutines do."""
        return self.location is TaskLocation.HOST


@dataclass(frozen=True)
class RunContext:
    """Everything that a rule of this run may depend on, except its own scratch directory.

    :param hung_calls: calls that have hung repeatedly in this run.
    :param second_wait_s: seconds of the second wait, after which a call hangs, or an event is missing.
    :param no_second_wait: calls, or :data:`EVENTS`, for which second waits were in vain often enough.
    :param excused: ids of rules that have failed: random programs look for violations of others.
    :param seed: of everything random.
    :param programs: how many random programs a rule may perform.
    :param replay: a program to perform instead of random ones.
    :param build: the user's hook that builds executors; ``None``: the target is called.
    :param dispose: the user's hook that releases an executor after its rule.
    """

    target: Target
    budgets: Budgets
    facts: Facts = field(default_factory=Facts)
    hung_calls: Mapping[str, HungCall] = field(default_factory=dict)
    second_wait_s: float = 0.0
    no_second_wait: frozenset[str] = frozenset()
    excused: frozenset[str] = frozenset()
    seed: int = 0
    programs: int = DEFAULT_PROGRAMS
    replay: Mapping[str, Any] | None = None
    build: Callable[[Target, dict[str, Any]], Any] | None = None
    dispose: Callable[[Any], None] | None = None

    @property
    def fixed(self) -> str:
        """Why the suite cannot choose the parallelism; empty if it can."""
        if self.build is not None:  # a hook always gets the parallelism
            return ""
        return self.facts.lacks.get(Capability.CHOSEN_PARALLELISM.name, "") or self.target.fixed

    def can(self, capability: Capability) -> bool:
        """Whether neither its family nor the target, as it was seen, lacks the capability."""
        return capability not in self.target.lacks and capability.name not in self.facts.lacks

    def arguments(self, parallelism: Any) -> dict[str, Any]:
        """The arguments of the constructor; ``parallelism`` may be ``DEFAULT``."""
        return self.target.arguments(parallelism) if not self.fixed else dict(self.target.options)

    def construct(self, arguments: dict[str, Any]) -> Any:
        """A new executor."""
        return self.target.make(**arguments) if self.build is None else self.build(self.target, arguments)
