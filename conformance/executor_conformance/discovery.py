"""Looks at the target before the first rule, in a process that may be lost.

A child shows that the import ends, which adapter fits, how long the executor takes to start, and how one task
behaves.  Only then does the pytest process import the target itself, once, so that the processes of the rules
are forked with it in memory.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from executor_conformance.adapters.api import DEFAULT, Adapter, CannotDrive
from executor_conformance.adapters.registry import AdapterError, adapters, choose, recognize
from executor_conformance.contract import LIFECYCLE_CALLS
from executor_conformance.harness import processes
from executor_conformance.harness.blackboard import Blackboard, CallInProgress
from executor_conformance.harness.calibration import LARGEST_EXTENSION, Budgets, Calibration, fork_here_s
from executor_conformance.harness.calls import Raised, own_traceback
from executor_conformance.harness.containment import ContainmentResult, End, Limits, contain
from executor_conformance.harness.context import MOST_SLOTS, Facts, RunContext
from executor_conformance.harness.journal import Journal, Run
from executor_conformance.harness.linux import monotonic
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.target import (
    Target,
    TargetError,
    distribution_of,
    import_target,
    load,
    prepare_import,
)
from executor_conformance.harness.trial import Trial
from executor_conformance.harness.trial_base import TrialBase
from executor_conformance.probes.task import HOST_MARKER
from executor_conformance.requirements import Capability, TaskLocation
from executor_conformance.rules.parallelism.counting import most_at_once
from executor_conformance.verdicts import Judgement

#: Seconds that an import may take.
_IMPORT_S = 60.0
_ANOTHER_PARALLELISM = 8


@dataclass(frozen=True)
class Discovery:
    """What is known of the target before the first rule.

    :param family: of the adapter that drives it.
    :param distribution: ``"name version"`` of the installed distribution it comes from, or ``None``.
    :param source: the file and the line where the target is defined; ``("", 0)`` if they are not known.
    """

    family: str
    distribution: str | None
    facts: Facts = field(default_factory=Facts)
    source: tuple[str, int] = ("", 0)

    def as_dict(self) -> dict[str, Any]:
        """Plain data that can cross process borders."""
        return {**asdict(self), "facts": _facts_as_dict(self.facts)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Discovery:
        """The reverse of :meth:`as_dict`."""
        facts = data.get("facts", {})
        location = TaskLocation(facts.get("location", TaskLocation.UNKNOWN.value))
        file, line = data.get("source", ("", 0))
        return cls(
            data["family"], data["distribution"], Facts(**{**facts, "location": location}), (file, line)
        )


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
            running = _running()
            thing = load(spec)
            started = _describe_started(running)
            adapter = choose(thing, named_adapter, spec)
        except (TargetError, AdapterError) as error:
            blackboard.write_result({"error": str(error)})
            return
        blackboard.leave()
        facts = Facts(import_s=round(monotonic() - began, 3), starts_on_import=started)
        # Should the executor take this process down, this much is known already.
        known: dict[str, Any] = {
            "family": adapter.family if adapter else "native",
            "distribution": distribution_of(thing),
            "source": _source_of(thing),
            "facts": _facts_as_dict(facts),
        }
        blackboard.write_result(known)
        setattr(sys, HOST_MARKER, os.getpid())

        def context(family: type[Adapter]) -> RunContext:
            driven = Target(spec, thing, family(), dict(options))
            driven.adapter.install_stubs(scratch)
            return RunContext(driven, budgets, build=build, dispose=dispose)

        chosen = context(adapter or adapters()["native"])
        if build is None and (missing := chosen.target.missing_arguments()):
            blackboard.write_result({"error": _describe_missing(spec, missing)})
            return
        trial = Trial(
            chosen,
            blackboard=blackboard,
            scratch=scratch,
            warden=os.getppid(),
        )
        try:
            there_before = frozenset(process.pid for process in trial.host.processes())
            began = monotonic()
            try:
                subject = trial.build(slots=1)
            except Raised as raised:
                if _can_be_built(trial, recognized=adapter is not None):
                    raise
                blackboard.write_result({"error": _describe_unbuilt(trial, raised)})
                return
            construct_s = monotonic() - began
            if adapter is None:
                adapter = recognize(subject.driver.executor, spec)
                known["family"] = adapter.family
                blackboard.write_result(known)
                trial.context = context(adapter)
                # The same executor: some can be made only once, and that is for a rule to find.
                subject = Subject(trial, trial.target.adapter.drive(subject.driver.executor))
            facts = replace(facts, construct_s=round(construct_s, 4))
            facts = _look_at_one_task(subject, facts, there_before)
            lacks = {**{lack.name: why for lack, why in trial.target.lacks.items()}, **facts.lacks}
            if trial.context.fixed:
                lacks[Capability.CHOSEN_PARALLELISM.name] = trial.context.fixed
            facts = replace(facts, parallelism_argument=trial.target.parallelism_argument, lacks=lacks)
            blackboard.write_result({**known, "facts": _facts_as_dict(facts)})
        except (TargetError, AdapterError) as error:
            blackboard.write_result({"error": str(error)})
        except CannotDrive as error:
            blackboard.write_result({"error": f"--executor={spec!r}: {error}"})
        except Judgement:
            pass  # the rules will report it better
        trial.dispose()

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
    found = Discovery.from_dict(ended.result)
    if Capability.CHOSEN_PARALLELISM.name not in found.facts.lacks or not found.facts.first_task_s:
        return found
    progress("counting how many tasks run at once, because the parallelism is fixed")
    slots = count_slots(
        lambda: RunContext(
            import_target(spec, found.family, options, scratch),
            found.facts.budgets(calibration),
            facts=found.facts,
            dispose=dispose,
        ),
        import_s=import_budget_s,
        scratch=os.path.join(scratch, "slots"),
    )
    return replace(found, facts=replace(found.facts, slots=slots))


def count_slots(context: Callable[[], RunContext], *, import_s: float, scratch: str) -> int:
    """How many tasks an executor runs at once whose parallelism the suite cannot choose; 0: not known.

    Submits tasks that wait at a gate until no more of them start.  An executor that runs a task within a call
    never returns from that call, so this happens in a process that can be killed.

    :param context: makes the context of the run, in that process.
    :param import_s: seconds that this may take.
    """

    def body(blackboard: Blackboard) -> None:
        blackboard.enter("import", allowance_s=import_s, pid=os.getpid())
        setattr(sys, HOST_MARKER, os.getpid())
        trial = Trial(context(), blackboard=blackboard, scratch=scratch, warden=os.getppid())
        blackboard.leave()
        with contextlib.suppress(Judgement):
            subject = trial.started(slots=1)
            gate = trial.gate()
            probes = trial.probes(MOST_SLOTS, gate.step)
            submitted = []
            with contextlib.suppress(Raised):  # it takes no more than it has slots
                for probe in probes:
                    subject.submit(probe)
                    submitted.append(probe)
            settled_s = max(5 * trial.budgets.quiet_s, 3 * trial.facts.first_task_s)

            count = 0
            while count < len(submitted) and trial.wait_for(
                lambda: sum(probe.started for probe in submitted) > count,  # noqa: B023
                pump=subject.pump,
                budget_s=settled_s if count else None,
            ):
                count += 1
            blackboard.write_result({"slots": count})  # in case that a later call hangs
            gate.open()
            trial.wait_for(lambda: all(map(subject.outcome, submitted)), pump=subject.pump)
            # Some may have started only after the count.
            blackboard.write_result({"slots": max(count, most_at_once(submitted))})
        trial.dispose()

    os.makedirs(scratch, exist_ok=True)
    ended = contain(body, limits=Limits(rule_s=4 * import_s), scratch=scratch)
    if ended.result is not None:
        return int(ended.result["slots"])
    # A call that did not return while tasks were running: it waits for one of them.
    return len(Journal(os.path.join(scratch, "journal")).all_runs()) if ended.end is End.HANG else 0


def _source_of(thing: Any) -> tuple[str, int]:
    try:
        return inspect.getsourcefile(thing) or "", inspect.getsourcelines(thing)[1]
    except (OSError, TypeError):
        return "", 0


def _describe_missing(spec: str, missing: list[str]) -> str:
    names = ", ".join(missing)
    return (
        f"--executor={spec!r} requires {'an argument' if len(missing) == 1 else 'arguments'} ({names}): pass "
        f"--executor-option={missing[0]}=VALUE, or name a function without required arguments. The number of "
        "tasks that may run at once is passed if the argument is called parallelism, max_workers or workers"
    )


def _can_be_built(trial: Trial, *, recognized: bool) -> bool:
    """Whether the constructor returns an executor with its own parallelism, or with a larger one.

    :param recognized: the target itself shows which adapter fits.
    :raises AdapterError: it returns something else.
    """
    for parallelism in (DEFAULT, _ANOTHER_PARALLELISM):
        try:
            subject = trial.build(parallelism, slots=1)
        except Raised:
            continue
        if not recognized:
            recognize(subject.driver.executor, trial.target.spec)
        return True
    return False


def _describe_unbuilt(trial: Trial, raised: Raised) -> str:
    target = trial.target
    unknown = [name for name in target.unknown_options() if name in str(raised.error)]
    if unknown and isinstance(raised.error, TypeError) and trial.context.build is None:
        known = [name for name in target.parameters() if name != target.parallelism_argument]
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f" (it takes {', '.join(known) or 'none'})"
        return f"--executor-option: {target.name} takes no argument {unknown[0]!r}{hint}"
    return f"--executor={target.spec!r}: it cannot be constructed\n{own_traceback(raised.error)}"


def _running() -> tuple[set[int], set[int]]:
    """The threads of this process, and its children."""
    return set(map(int, os.listdir("/proc/self/task"))), set(processes.children(os.getpid()))


def _describe_started(before: tuple[set[int], set[int]]) -> str:
    """What there is now besides what there was before; empty if there is nothing."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    threads, children = (now - earlier for now, earlier in zip(_running(), before, strict=True))
    parts = []
    if threads:
        named = ", ".join(sorted({names.get(each, "of native code") for each in threads}))
        parts.append(f"{len(threads)} thread{'s' * (len(threads) > 1)} ({named})")
    if children:
        parts.append(f"{len(children)} process{'es' * (len(children) > 1)}")
    return " and ".join(parts)


def _what_it_waits_for(call: CallInProgress | None, elapsed_s: float) -> str:
    if call is None or call.kind not in (*LIFECYCLE_CALLS, "import"):
        return f"waiting for its first task to finish ({elapsed_s:.0f} s so far)"
    return f"waiting for {call.name} to return ({monotonic() - call.entered:.0f} s)"


def _look_at_one_task(subject: Subject, facts: Facts, there_before: frozenset[int]) -> Facts:
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
        location=_location_of(trial, run, there_before),
        start_s=round(start_s, 4),
        first_task_s=round(elapsed, 4),
        forked=None if run is None else run.host_marker == trial.host.pid,
        fork_s=round(fork_here_s() or 0.0, 5),
        lacks={capability.name: reason for capability, reason in subject.driver.lacks.items()},
    )


def _location_of(trial: TrialBase, run: Run | None, there_before: frozenset[int]) -> TaskLocation:
    """Where a task ran, by its own account of the processes above it.

    :param there_before: processes that were there before the executor was constructed, such as those that an
        import has started: they are not the executor's own.  The hosts of rules do not have them below them.

    The task itself looks, while it runs: afterwards its process may be gone, and holding it would hang an
    executor that runs its tasks within a call.
    """
    if run is None or not run.notes:
        return TaskLocation.UNKNOWN
    if run.pid == trial.host.pid:
        return TaskLocation.HOST
    ancestors = list(map(int, run.notes[0].split()))
    if there_before & {run.pid, *ancestors}:
        return TaskLocation.ELSEWHERE
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
