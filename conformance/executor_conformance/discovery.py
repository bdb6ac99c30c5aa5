"""Looks at the target before the first rule, in a process that may be lost.

A child shows that the import ends, which adapter fits, how long the executor takes to start, and how one task
behaves.  Only then does the pytest process import the target itself, once, so that the processes of the rules
are forked with it in memory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from executor_conformance.adapters.api import Adapter, CannotDrive
from executor_conformance.adapters.registry import AdapterError, adapters, choose, recognize
from executor_conformance.contract import LIFECYCLE_CALLS
from executor_conformance.harness.blackboard import Blackboard, CallInProgress
from executor_conformance.harness.calibration import LARGEST_EXTENSION, Budgets, Calibration, fork_here_s
from executor_conformance.harness.containment import ContainmentResult, End, Limits, contain
from executor_conformance.harness.context import Facts, RunContext
from executor_conformance.harness.journal import Run
from executor_conformance.harness.linux import monotonic
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.target import Target, TargetError, distribution_of, load, prepare_import
from executor_conformance.harness.trial import Trial
from executor_conformance.harness.trial_base import TrialBase
from executor_conformance.probes.task import HOST_MARKER
from executor_conformance.requirements import TaskLocation
from executor_conformance.verdicts import Judgement

#: Seconds that an import may take.
_IMPORT_S = 60.0


@dataclass(frozen=True)
class Discovery:
    """What is known of the target before the first rule.

    :param family: of the adapter that drives it.
    :param distribution: ``"name version"`` of the installed distribution it comes from, or ``None``.
    """

    family: str
    distribution: str | None
    facts: Facts = field(default_factory=Facts)

    def as_dict(self) -> dict[str, Any]:
        """Plain data that can cross process borders."""
        return {**asdict(self), "facts": _facts_as_dict(self.facts)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Discovery:
        """The reverse of :meth:`as_dict`."""
        facts = data.get("facts", {})
        location = TaskLocation(facts.get("location", TaskLocation.UNKNOWN.value))
        return cls(data["family"], data["distribution"], Facts(**{**facts, "location": location}))


def _facts_as_dict(facts: Facts) -> dict[str, Any]:
    return {**asdict(facts), "location": facts.location.value}


def discover(
    spec: str,
    *,
    named_adapter: str | None,
    options: Mapping[str, Any],
    calibration: Calibration,
    scratch: str,
    build: Callable[[Target, dict[str, Any]], Any] | None = None,
    dispose: Callable[[Any], None] | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> Discovery:
    """Import the target in a child, find its adapter and let it run one task.

    An executor may take a minute for each step of this; the budgets of the rules follow from what it took.

    :param progress: called with what the suite is waiting for, if it takes long.
    :raises TargetError: the target cannot be used; nothing was left behind.
    """
    budgets = Budgets.of_the_first(calibration)
    import_budget_s = _IMPORT_S * min(calibration.scale, LARGEST_EXTENSION)

    def body(blackboard: Blackboard) -> None:
        blackboard.enter("import", allowance_s=import_budget_s, pid=os.getpid())
        began = monotonic()
        try:
            prepare_import(scratch)
            thing = load(spec)
            adapter = choose(thing, named_adapter, spec)
        except (TargetError, AdapterError) as error:
            blackboard.write_result({"error": str(error)})
            return
        blackboard.leave()
        facts = Facts(import_s=round(monotonic() - began, 3))
        # Should the executor take this process down, this much is known already.
        known: dict[str, Any] = {
            "family": adapter.family if adapter else "native",
            "distribution": distribution_of(thing),
            "facts": _facts_as_dict(facts),
        }
        blackboard.write_result(known)
        setattr(sys, HOST_MARKER, os.getpid())

        def context(family: type[Adapter]) -> RunContext:
            driven = Target(spec, thing, family(), dict(options))
            driven.adapter.install_stubs(scratch)
            return RunContext(driven, budgets, build=build, dispose=dispose)

        trial = Trial(
            context(adapter or adapters()["native"]),
            blackboard=blackboard,
            scratch=scratch,
            warden=os.getppid(),
        )
        try:
            began = monotonic()
            subject = trial.build()
            construct_s = monotonic() - began
            if adapter is None:
                adapter = recognize(subject.driver.executor, spec)
                known["family"] = adapter.family
                blackboard.write_result(known)
                trial.context = context(adapter)
                # The same executor: some can be made only once, and that is for a rule to find.
                subject = Subject(trial, trial.target.adapter.drive(subject.driver.executor))
            facts = replace(facts, construct_s=round(construct_s, 4))
            facts = _look_at_one_task(subject, facts)
            blackboard.write_result({**known, "facts": _facts_as_dict(facts)})
        except (TargetError, AdapterError) as error:
            blackboard.write_result({"error": str(error)})
        except CannotDrive as error:
            blackboard.write_result({"error": f"--executor={spec!r}: {error}"})
        except Judgement:
            pass  # the rules will report it better
        if dispose is not None:
            for executor in trial.built:
                dispose(executor)

    ended = contain(
        body,
        limits=Limits(rule_s=2 * import_budget_s + budgets.arrival_s),
        scratch=scratch,
        progress=lambda call, elapsed_s: progress(_what_it_waits_for(call, elapsed_s)),
    )
    if ended.result is None:
        raise TargetError(f"--executor={spec!r}: {_describe_import(ended)}")
    if "error" in ended.result:
        raise TargetError(ended.result["error"])
    return Discovery.from_dict(ended.result)


def _what_it_waits_for(call: CallInProgress | None, elapsed_s: float) -> str:
    if call is None or call.kind not in (*LIFECYCLE_CALLS, "import"):
        return f"waiting for its first task to finish ({elapsed_s:.0f} s so far)"
    return f"waiting for {call.name} to return ({monotonic() - call.entered:.0f} s)"


def _look_at_one_task(subject: Subject, facts: Facts) -> Facts:
    trial = subject.trial
    began = monotonic()
    subject.start()
    start_s = monotonic() - began
    probe = trial.probe("ancestors")
    began = monotonic()
    subject.run(probe)
    elapsed = monotonic() - began
    run = probe.runs[0] if probe.runs else None
    return replace(
        facts,
        location=_location_of(trial, run),
        start_s=round(start_s, 4),
        first_task_s=round(elapsed, 4),
        forked=None if run is None else run.host_marker == trial.host.pid,
        fork_s=round(fork_here_s() or 0.0, 5),
        lacks={capability.name: reason for capability, reason in subject.driver.lacks.items()},
    )


def _location_of(trial: TrialBase, run: Run | None) -> TaskLocation:
    """Where a task ran, by its own account of the processes above it.

    The task itself looks, while it runs: afterwards its process may be gone, and holding it would hang an
    executor that runs its tasks within a call.
    """
    if run is None or not run.notes:
        return TaskLocation.UNKNOWN
    if run.pid == trial.host.pid:
        return TaskLocation.HOST
    ancestors = list(map(int, run.notes[0].split()))
    if trial.host.warden in ancestors:
        return TaskLocation.LOCAL_PROCESSES
    # If the chain does not reach the first process, the rest of it could not be read.
    return TaskLocation.ELSEWHERE if ancestors[-1:] == [0] else TaskLocation.UNKNOWN


def _describe_import(ended: ContainmentResult) -> str:
    if ended.end is End.HANG:
        return f"importing it did not finish within {ended.call_s:.0f} s\n{ended.stacks}"
    if ended.end is End.EXIT:
        return f"importing it ended the process with status {ended.detail}\n{ended.output}"
    if ended.end is End.SIGNAL:
        return f"importing it killed the process with {ended.detail}\n{ended.stacks}"
    return f"importing it failed: {ended.end} {ended.detail}\n{ended.output}"
