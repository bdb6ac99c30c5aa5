"""Verdicts, and the exceptions by which a rule pronounces them.

A rule that returns has ``passed``; every other verdict is raised.  :class:`Broken` is the executor's fault;
an exception that is not a :class:`Judgement` is the suite's own fault and is shown as such.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class Verdict(str, enum.Enum):
    """What can be said about one rule on one executor."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not_applicable"
    INCONCLUSIVE = "inconclusive"
    BLOCKED = "blocked"
    KNOWN_FAILURE = "known_failure"
    UNEXPECTED_PASS = "unexpected_pass"

    __str__ = str.__str__


class Judgement(Exception):
    """A verdict other than ``passed``, raised by a rule or by what it calls."""


class Aside(str, enum.Enum):
    """Ways to go wrong that can befall any rule, whatever it is about: then another may be to blame."""

    RAISED = "raised"
    HUNG = "hung"
    DIED = "died"
    STALLED = "stalled"
    MISCOUNTED = "miscounted"
    MISREPORTED = "misreported"


class Broken(Judgement):
    """The executor broke the promise.

    :param awaited: what the contract promises here.
    :param seen: what happened instead, with numbers.
    :param evidence: longer text: a traceback, stacks, a process tree.
    """

    #: What went wrong, where it need not be what the rule is about; see :class:`Aside`.
    aside = ""

    def __init__(self, *, awaited: str, seen: str, evidence: str = "") -> None:
        super().__init__(f"awaited {awaited}; seen: {seen}")
        self.awaited = awaited
        self.seen = seen
        self.evidence = evidence

    def __reduce__(self) -> tuple[Any, ...]:
        # A subclass may hold what cannot be pickled; what it says is what travels.
        return _broken, (self.awaited, self.seen, self.evidence, self.aside)


def _broken(awaited: str, seen: str, evidence: str, aside: str) -> Broken:
    broken = Broken(awaited=awaited, seen=seen, evidence=evidence)
    broken.aside = aside
    return broken


class Stalled(Broken):
    """What the rule waits for before it looks at anything did not come."""

    aside = Aside.STALLED


class Misreported(Broken):
    """A task has another outcome than the one it came to."""

    aside = Aside.MISREPORTED


class Miscounted(Broken):
    """A task has more or fewer terminal events than one."""

    aside = Aside.MISCOUNTED


class NotApplicable(Judgement):
    """The rule does not speak about this executor; the reason says why."""


class Inconclusive(Judgement):
    """The rule could not be decided here and now; neither a pass nor a failure."""


class Blocked(Judgement):
    """A more basic rule is broken, so this one cannot be judged.

    :param by: the id of that rule.
    """

    def __init__(self, by: str, reason: str) -> None:
        super().__init__(reason)
        self.by = by
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return Blocked, (self.by, self.reason)


@dataclass(frozen=True)
class Finding:
    """The verdict on one rule with everything that a reader of the report needs."""

    verdict: Verdict
    awaited: str = ""
    seen: str = ""
    after: str = ""
    evidence: str = ""
    blocked_by: str = ""
    duration_s: float = 0.0
    measurements: Mapping[str, Any] = field(default_factory=dict)
    #: What went wrong, where it need not be what the rule is about; see :class:`Aside`.
    aside: str = ""
    #: Why this failure was expected, where it was.
    known: str = ""
    #: A failure for which another rule may still turn out to be to blame.
    provisional: bool = False
    #: The exception itself, where the rule ran in this process.
    error: BaseException | None = field(default=None, compare=False)

    @property
    def message(self) -> str:
        """One line for the report: empty for a pass."""
        if self.verdict in (Verdict.FAILED, Verdict.KNOWN_FAILURE):
            step = f" (after {self.after})" if self.after else ""
            known = f"; known: {self.known}" if self.known else ""
            return f"awaited {self.awaited}; seen: {self.seen}{step}{known}"
        return self.seen

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as it crosses process borders."""
        return {
            "verdict": self.verdict.value,
            "awaited": self.awaited,
            "seen": self.seen,
            "after": self.after,
            "evidence": self.evidence,
            "blocked_by": self.blocked_by,
            "duration_s": self.duration_s,
            "measurements": dict(self.measurements),
            "aside": Aside(self.aside).value if self.aside else "",
            "known": self.known,
            "provisional": self.provisional,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Finding:
        """The reverse of :meth:`as_dict`."""
        return cls(**{**data, "verdict": Verdict(data["verdict"])})
