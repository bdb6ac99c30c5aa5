"""The content of a report, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from executor_conformance.requirements import TaskLocation
from executor_conformance.rules import Chapter, Level, Rule
from executor_conformance.verdicts import Finding, Verdict

#: Verdicts about the executor's behaviour; the others explain why there is none.
JUDGED = frozenset({Verdict.PASSED, Verdict.FAILED, Verdict.KNOWN_FAILURE, Verdict.UNEXPECTED_PASS})
#: Verdicts that a conformant executor has on no rule of the asked level.
AGAINST = frozenset({Verdict.FAILED, Verdict.KNOWN_FAILURE, Verdict.UNEXPECTED_PASS, Verdict.INCONCLUSIVE})


@dataclass(frozen=True)
class Report:
    """One run of the suite on one executor.

    :param level: what counts for ``conformant``: ``must`` or ``should``.
    :param complete: the run was not interrupted.
    :param stubs: what the adapter replaced by a stub.
    :param tasks: where the first task was seen to run.
    :param saw_a_task: a task was seen to run.  An executor that runs none passes many rules.
    """

    target: str
    adapter: str
    distribution: str | None
    options: Mapping[str, Any]
    machine: Mapping[str, Any]
    level: str
    findings: tuple[tuple[Rule, Finding], ...]
    complete: bool = True
    stubs: tuple[str, ...] = ()
    tasks: TaskLocation = TaskLocation.UNKNOWN
    saw_a_task: bool = True

    @property
    def is_judged(self) -> bool:
        """Whether a task was seen to run, and at least one rule was judged."""
        return self.saw_a_task and any(finding.verdict in JUDGED for _, finding in self.findings)

    @property
    def conformant(self) -> bool:
        """The executor was judged, and no rule of the level counts against it."""
        counted = (Level.MUST,) if self.level == "must" else (Level.MUST, Level.SHOULD)
        against = any(finding.verdict in AGAINST for rule, finding in self.findings if rule.level in counted)
        return self.complete and self.is_judged and not against

    @property
    def green(self) -> bool:
        """Whether the exit status is 0: conformant except for known failures, each of which still fails."""
        counted = (Level.MUST,) if self.level == "must" else (Level.MUST, Level.SHOULD)
        against = any(
            finding.verdict is Verdict.UNEXPECTED_PASS
            or (rule.level in counted and finding.verdict in AGAINST - {Verdict.KNOWN_FAILURE})
            for rule, finding in self.findings
        )
        return self.complete and self.is_judged and not against

    def count(self, level: Level | None = None, chapter: Chapter | None = None) -> dict[Verdict, int]:
        """The number of rules with each verdict."""
        counts = dict.fromkeys(Verdict, 0)
        for rule, finding in self.findings:
            if (level is None or rule.level is level) and (chapter is None or rule.chapter == chapter):
                counts[finding.verdict] += 1
        return counts

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, as its JSON Schema describes it."""
        return {
            "schema_version": 1,
            "suite": {"version": metadata.version("executor-conformance")},
            "executor": {
                "target": self.target,
                "adapter": self.adapter,
                "distribution": self.distribution,
                "options": dict(self.options),
                "tasks": self.tasks.value,
                **({"stubs": list(self.stubs)} if self.stubs else {}),
            },
            "machine": dict(self.machine),
            "conformant": self.conformant,
            "complete": self.complete,
            "summary": {
                level.value: {verdict.value: count for verdict, count in self.count(level).items()}
                for level in Level
            },
            "rules": [_rule_as_dict(rule, finding) for rule, finding in self.findings],
        }


def _rule_as_dict(rule: Rule, finding: Finding) -> dict[str, Any]:
    trace = finding.trace
    return {
        "id": rule.id,
        "chapter": rule.chapter.name,
        "level": rule.level.value,
        "needs": [need.value for need in rule.needs],
        "verdict": finding.verdict.value,
        "message": finding.message,
        "duration_s": finding.duration_s,
        "measurements": dict(finding.measurements),
        **({"timeline": list(trace.timeline), "program": dict(trace.program)} if trace else {}),
        **({"left_behind": list(finding.left_behind)} if finding.left_behind else {}),
        **({"survivors": list(finding.survivors)} if finding.survivors else {}),
    }
