"""Searches for a program that violates a rule, and shrinks it.

Each program runs in a contained host of its own.  A program that hangs or kills its host is therefore a
failure like any other, and is shrunk like any other.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any

from executor_conformance.harness.blackboard import Blackboard
from executor_conformance.harness.containment import ContainmentResult, End, Limits
from executor_conformance.harness.linux import monotonic
from executor_conformance.harness.scratch import new_folder
from executor_conformance.harness.trial import Trial
from executor_conformance.programs.checking import RuleViolated
from executor_conformance.programs.performance import Performance
from executor_conformance.programs.program import Program
from executor_conformance.verdicts import Blocked, Broken, FailureMode, NotApplicable

#: The search may take this many seconds per program, and shrinking this many in all, at scale 1.
_SEARCH_S, _SHRINKING_S = 0.07, 12.0
#: The search may take this many times longer while less than two thirds of the programs have run.
_EXTENSION_FOR_FEW = 5
#: While a program is shrunk, it waits for only this part of the usual budget.
_PATIENCE_IN_SHRINKING = 0.1
#: A program is stopped after the time of this many full waits, and of this many second waits.
_WAITS, _SECOND_WAITS = 8, 3


@dataclass(frozen=True)
class Counterexample:
    """A program that violates a rule.

    :param rule: the id of the rule, or empty if a call hung or raised, or the host died.
    :param is_safety: something happened that must never happen, so one occurrence is proof.  Otherwise
        something did not happen in time.
    """

    program: Program
    rule: str
    expected: str
    actual: str
    failure_mode: FailureMode | None = None
    is_safety: bool = True
    hung_call: str = ""
    evidence: str = ""
    timeline: tuple[str, ...] = ()

    @property
    def kind(self) -> tuple[str, FailureMode | None, str]:
        """Two counterexamples with the same kind show the same failure."""
        return self.rule, self.failure_mode, self.hung_call


def perform(trial: Trial, program: Program, patience: float = 1.0) -> Counterexample | None:
    """Run a program in a contained host of its own; ``None`` if it violates no rule.

    :param patience: the part of the usual budget for which the program waits; below 1, it waits only once.
    :raises NotApplicable: the executor cannot run such programs.
    """
    directory = new_folder(trial.scratch)
    lines = os.path.join(directory, "timeline")

    def log(line: str) -> None:
        with open(lines, "a") as file:
            file.write(line + "\n")

    def body(within: Trial, blackboard: Blackboard) -> None:
        try:
            Performance(within, program, log, patience).run()
        except RuleViolated as violated:
            found = {"rule": violated.rule, "is_safety": violated.is_safety}
            blackboard.write_result({**found, **_as_dict(violated)})
        except Broken as broken:
            blackboard.write_result({"rule": "", **_as_dict(broken)})
        except NotApplicable as reason:
            blackboard.write_result({"not_applicable": str(reason)})
        except Blocked as blocked:
            blackboard.write_result({"blocked": [blocked.by, blocked.reason]})
        else:
            blackboard.write_result({})

    second_wait_s = trial.patience.second_wait_s if patience >= 1.0 else 0.0
    ended = trial.contained(
        body,
        scratch=directory,
        limits=Limits(rule_s=_WAITS * trial.budgets.arrival_s + _SECOND_WAITS * second_wait_s),
        second_wait_s=second_wait_s,
    )
    timeline: tuple[str, ...] = ()
    if os.path.exists(lines):
        with open(lines) as file:
            # Steps are written when they are performed, and the events of the tasks afterwards.
            timeline = tuple(sorted(file.read().splitlines(), key=_at_ms))
    return _counterexample(program, ended, timeline)


def _at_ms(line: str) -> float:
    return float(line.split()[0])


def _as_dict(broken: Broken) -> dict[str, Any]:
    return {
        "expected": broken.expected,
        "actual": broken.actual,
        "failure_mode": broken.failure_mode.value if broken.failure_mode else None,
        "evidence": broken.evidence,
    }


def _counterexample(
    program: Program, ended: ContainmentResult, timeline: tuple[str, ...]
) -> Counterexample | None:
    if ended.result is not None and ended.end is End.FINISHED:
        if "not_applicable" in ended.result:
            raise NotApplicable(ended.result["not_applicable"])
        if "blocked" in ended.result:
            raise Blocked(*ended.result["blocked"])
        if not ended.result:
            return None
        mode = ended.result["failure_mode"]
        found = {**ended.result, "failure_mode": FailureMode(mode) if mode else None}
        return Counterexample(program, timeline=timeline, **found)
    if ended.end not in (End.HANG, End.EXIT, End.SIGNAL):
        return None  # a program that takes too long on a slow executor proves nothing
    name = ended.call_name or "the executor"
    hung = ended.end is End.HANG
    return Counterexample(
        program,
        rule="",
        expected=f"{name} to return" if hung else f"{name} not to terminate the scheduler process",
        actual=f"it had not after {ended.call_s:.1f} s" if hung else f"{ended.end} {ended.detail}",
        failure_mode=FailureMode.HUNG if hung else FailureMode.DIED,
        is_safety=not hung,
        hung_call=ended.call_kind if hung else "",
        evidence=f"stacks:\n{ended.stacks}" if ended.stacks else "",
        timeline=timeline,
    )


@dataclass
class Explorer:
    """Runs programs until one violates a rule, and shrinks that one.

    :param programs: how many programs to run at most.
    :param performed: how many programs have been run, repetitions included.
    :param unreproduced: how many times something did not happen in time, but did when the program ran again;
        these are not reported.
    :param not_run: how many programs there was no time to run.
    :param excused: the rule of each program that violates a rule which has failed before; these are not
        reported either.
    """

    trial: Trial
    programs: int
    found: Counterexample | None = None
    performed: int = 0
    unreproduced: int = 0
    not_run: int = 0
    excused: list[str] = field(default_factory=list)
    _known: dict[Program, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._began = monotonic()
        self._search_s = _SEARCH_S * self.programs * self.trial.budgets.scale

    @property
    def blocker(self) -> str:
        """The rule that most programs violate, if that leaves too few to find anything else; or empty."""
        if len(self.excused) <= self.performed / 2:
            return ""
        return max(self.excused, key=self.excused.count)

    @property
    def ran_few(self) -> bool:
        """Whether less than two thirds of the programs have run."""
        return self.performed < 2 * self.programs / 3

    @property
    def _has_time(self) -> bool:
        """Whether the search may go on; it has more time while only a few programs have run."""
        return monotonic() < self._began + self._search_s * (_EXTENSION_FOR_FEW if self.ran_few else 1)

    def try_out(self, program: Program) -> bool:
        """Whether a program violates a rule; a program that there is no time to run does not."""
        if program not in self._known:
            if not self._has_time:
                self.not_run += 1
                return False
            found = self._perform(program)
            self._known[program] = found is not None and self._is_confirmed(found)
            if self._known[program]:
                self.found = found
        return self._known[program]

    def _perform(self, program: Program, patience: float = 1.0) -> Counterexample | None:
        self.performed += 1
        found = perform(self.trial, program, patience)
        if found is None or found.rule not in self.trial.context.excused:
            return found
        self.excused.append(found.rule)
        return None

    def _is_confirmed(self, found: Counterexample) -> bool:
        """Whether the failure is certain.  A safety violation always is; any other has to happen again."""
        if not found.is_safety:
            again = self._perform(found.program)
            if again is None or again.kind != found.kind:
                self.unreproduced += 1
                return False
        return True

    def shrunk(self) -> Counterexample | None:
        """The failure with as few steps as can be found in the time available.

        Any subsequence of a program is a program, so it is enough to leave out steps.  That takes fewer
        attempts than the shrinker of Hypothesis, which shrinks the choices that led to the steps.
        """
        if self.found is None:
            return None
        until = monotonic() + _SHRINKING_S * self.trial.budgets.scale
        shortest = self.found
        size = len(shortest.program.steps) // 2
        while size > 0 and monotonic() < until:
            at = len(shortest.program.steps) - size
            while at >= 0 and monotonic() < until:
                steps = shortest.program.steps
                shorter = replace(shortest.program, steps=steps[:at] + steps[at + size :])
                # Here every wait that fails is a short one.
                found = self._perform(shorter, _PATIENCE_IN_SHRINKING)
                if found is not None and found.kind == self.found.kind:
                    shortest = found
                at -= size
            size //= 2
        if shortest is self.found or shortest.is_safety:
            return shortest
        found = self._perform(shortest.program)  # with the full waits
        return found if found is not None and found.kind == self.found.kind else self.found
