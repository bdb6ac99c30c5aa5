"""Verdicts, and the exceptions that carry them.

A rule that returns has ``passed``; every other verdict is raised.  :class:`Broken` is the executor's fault.
An exception that is not a :class:`Judgement` is a bug in the suite and is reported as one.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class Verdict(str, enum.Enum):
    """The result of one rule on one executor."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not_applicable"
    INCONCLUSIVE = "inconclusive"
    BLOCKED = "blocked"
    KNOWN_FAILURE = "known_failure"
    UNEXPECTED_PASS = "unexpected_pass"

    __str__ = str.__str__


class FailureMode(str, enum.Enum):
    """A way to fail that any rule can run into, whatever it checks.

    A failure of this kind may be the fault of another rule; :mod:`executor_conformance.judging.blame` finds
    out which.
    """

    #: A call of the executor raised.
    RAISED = "raised"
    #: A call of the executor did not return.
    HUNG = "hung"
    #: The host process ended.
    DIED = "died"
    #: There were more processes than the suite allows.
    CROWDED = "crowded"
    #: A file descriptor of the host was closed that the suite was using.
    CLOSED = "closed"
    #: A task or an event that the rule only needs on its way did not come.
    STALLED = "stalled"
    #: A task does not have exactly one terminal event.
    MISCOUNTED = "miscounted"
    #: A task was reported with another outcome than it had.
    MISREPORTED = "misreported"

    __str__ = str.__str__


@dataclass(frozen=True)
class ProgramTrace:
    """The random program that made a rule of chapter ``model`` fail.

    :param rule: id of the rule that the program violates; empty if a call hung or raised.
    :param program: as :class:`~executor_conformance.programs.program.Program` serializes it.
    :param timeline: one line per step, in order of time.
    :param hung_call: the call that did not return, if one did not.
    """

    rule: str
    program: Mapping[str, Any]
    timeline: tuple[str, ...] = ()
    hung_call: str = ""


class Judgement(Exception):
    """A verdict other than ``passed``, raised by a rule or by code that it calls."""


class Broken(Judgement):
    """The executor violates the rule.

    :param expected: what the contract promises here.
    :param actual: what happened instead, with numbers.
    :param evidence: longer text: a traceback, stacks, a process tree.
    :param trace: the random program that found it.
    :param unexplained_by: ids of rules that may explain another failure of this rule, but not this one.
    """

    failure_mode: FailureMode | None = None

    def __init__(
        self,
        *,
        expected: str,
        actual: str,
        evidence: str = "",
        trace: ProgramTrace | None = None,
        unexplained_by: tuple[str, ...] = (),
    ) -> None:
        super().__init__(f"expected {expected}; actual: {actual}")
        self.expected = expected
        self.actual = actual
        self.evidence = evidence
        self.trace = trace
        self.unexplained_by = unexplained_by

    def __reduce__(self) -> tuple[Any, ...]:
        # A subclass may hold objects that cannot be pickled; only plain data crosses the process border.
        plain = (self.expected, self.actual, self.evidence, self.trace, self.unexplained_by)
        return _broken, (*plain, self.failure_mode)


def _broken(
    expected: str,
    actual: str,
    evidence: str,
    trace: ProgramTrace | None,
    unexplained_by: tuple[str, ...],
    mode: FailureMode | None,
) -> Broken:
    broken = Broken(
        expected=expected, actual=actual, evidence=evidence, trace=trace, unexplained_by=unexplained_by
    )
    broken.failure_mode = mode
    return broken


def expect(condition: object, *, expected: str, actual: str, unexplained_by: tuple[str, ...] = ()) -> None:
    """Check a promise.

    :param unexplained_by: see :class:`Broken`.
    :raises Broken: ``condition`` is false.
    """
    __tracebackhide__ = True
    if not condition:
        raise Broken(expected=expected, actual=actual, unexplained_by=unexplained_by)


class Stalled(Broken):
    """Something that the rule needs before it can check anything did not come."""

    failure_mode = FailureMode.STALLED


class Misreported(Broken):
    """A task was reported with another outcome than it had."""

    failure_mode = FailureMode.MISREPORTED


class Miscounted(Broken):
    """A task does not have exactly one terminal event."""

    failure_mode = FailureMode.MISCOUNTED


class NotApplicable(Judgement):
    """The rule does not apply to this executor; the text is the reason."""


class AboveTheLimit(NotApplicable):
    """The executor rejects a parallelism as large as the rule needs."""


class Inconclusive(Judgement):
    """The rule could not be decided in this run; neither a pass nor a failure."""


class Blocked(Judgement):
    """A more basic rule failed, so this one cannot be judged.

    :param by: the id of that rule.
    """

    def __init__(self, by: str, reason: str) -> None:
        super().__init__(reason)
        self.by = by
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return Blocked, (self.by, self.reason)


@dataclass(frozen=True)
class HungCall:
    """A call that has hung repeatedly in this run.

    :param rule: id of the rule that is to blame.
    :param backlog: tasks in flight per slot with which it hung; with fewer it may return.
    """

    rule: str
    backlog: float = 0.0


@dataclass(frozen=True)
class Finding:
    """The verdict on one rule, with everything that a reader of the report needs.

    :param expected: for a failure, what the contract promises.
    :param actual: for a failure, what happened instead; else the reason of the verdict.
    :param calls: the last calls before the failure, in the executor's own names.
    :param evidence: traceback, stacks, process tree, output.
    :param duration_s: seconds spent on the rule.
    :param measurements: numbers for the reader; the suite itself never reads them.
    :param failure_mode: how it failed, where any rule could have failed like that.
    :param hung_call: the call that did not return, if one did not.
    :param hung_backlog: tasks in flight per slot when that call was made.
    :param raised: the type of the exception that a call raised; empty: none, or not known.
    :param trace: the random program that made it fail.
    :param unexplained_by: ids of rules whose failure does not explain this one.
    :param late_s: the longest wait, in seconds, that ended during a second wait; 0: none did.
    :param programs_not_run: random programs of a rule for which there was no time.
    :param waited_in_vain: a second wait for an event ended without it.
    :param cut_off: the rule exceeded its time limit.
    :param left_behind: processes that were still there when the rule had ended.
    :param survivors: processes that could not be killed.
    :param known: why this failure was expected, if it was.
    :param provisional: a failure for which another rule may still turn out to be to blame.
    :param error: the exception itself, where the rule ran in this process.
    """

    verdict: Verdict
    expected: str = ""
    actual: str = ""
    calls: str = ""
    evidence: str = ""
    blocked_by: str = ""
    duration_s: float = 0.0
    measurements: Mapping[str, Any] = field(default_factory=dict)
    failure_mode: FailureMode | None = None
    hung_call: str = ""
    hung_backlog: float = 0.0
    raised: str = ""
    trace: ProgramTrace | None = None
    unexplained_by: tuple[str, ...] = ()
    late_s: float = 0.0
    programs_not_run: int = 0
    waited_in_vain: bool = False
    cut_off: bool = False
    left_behind: tuple[str, ...] = ()
    survivors: tuple[str, ...] = ()
    known: str = ""
    provisional: bool = False
    error: BaseException | None = field(default=None, compare=False)

    @property
    def message(self) -> str:
        """One line for the report: empty for a pass."""
        if self.verdict in (Verdict.FAILED, Verdict.KNOWN_FAILURE):
            calls = f" (calls: {self.calls})" if self.calls else ""
            known = f"; known: {self.known}" if self.known else ""
            return f"expected {self.expected}; actual: {self.actual}{calls}{known}"
        return self.actual

    def as_dict(self) -> dict[str, Any]:
        """Plain data that can cross process borders."""
        data = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        del data["error"]
        return {
            **data,
            "verdict": self.verdict.value,
            "measurements": dict(self.measurements),
            "failure_mode": self.failure_mode.value if self.failure_mode else None,
            "trace": dataclasses.asdict(self.trace) if self.trace else None,
            "unexplained_by": list(self.unexplained_by),
            "left_behind": list(self.left_behind),
            "survivors": list(self.survivors),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Finding:
        """The reverse of :meth:`as_dict`."""
        mode, trace = data["failure_mode"], data["trace"]
        return cls(
            **{
                **data,
                "verdict": Verdict(data["verdict"]),
                "failure_mode": FailureMode(mode) if mode else None,
                "trace": ProgramTrace(**{**trace, "timeline": tuple(trace["timeline"])}) if trace else None,
                "unexplained_by": tuple(data["unexplained_by"]),
                "left_behind": tuple(data["left_behind"]),
                "survivors": tuple(data["survivors"]),
            }
        )
