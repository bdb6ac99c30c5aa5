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
#: Verdicts whose numbers are shown for each level.
_BY_LEVEL = (Verdict.FAILED, Verdict.INCONCLUSIVE)


def counts(level_of_rule: str, level: str) -> bool:
    """Whether rules of a level count for the verdict of a run at this level."""
    return level_of_rule == Level.MUST or (level_of_rule == Level.SHOULD and level == Level.SHOULD)


@dataclass(frozen=True)
class Report:
    """One run of the suite on one executor.

    :param level: what counts for ``conformant``: ``must`` or ``should``.
    :param all_rules: how many rules a complete run has.
    :param seed: of everything random in the run.
    :param started: when the run started, in UTC, in the format of ISO 8601.
    :param duration_s: how long it took, in seconds.
    :param command: judges the executor again, with the same seed.
    :param interrupted: the run was stopped by the user or by an error of pytest.
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
    all_rules: int
    seed: int
    started: str
    duration_s: float
    command: str
    interrupted: bool = False
    stubs: tuple[str, ...] = ()
    tasks: TaskLocation = TaskLocation.UNKNOWN
    saw_a_task: bool = True

    @property
    def suite_version(self) -> str:
        """The version of the executor-conformance distribution."""
        return metadata.version("executor-conformance")

    @property
    def complete(self) -> bool:
        """Whether every rule ran: no selection, no interruption, no ``-x``."""
        return not self.interrupted and len(self.findings) >= self.all_rules

    @property
    def conformant(self) -> bool | None:
        """Whether the executor is conformant at the level, or ``None``: no verdict."""
        if self.interrupted:
            return None
        against = self._against()
        if against - {Verdict.INCONCLUSIVE}:
            return False
        if self._why_no_verdict():
            return None
        return not against

    @property
    def verdict(self) -> str:
        """``conformant``, ``not conformant``, or ``no verdict`` with the reason."""
        if self.conformant is None:
            return f"no verdict: {self._why_no_verdict()}"
        return "conformant" if self.conformant else "not conformant"

    @property
    def green(self) -> bool:
        """Whether the exit status is 0: everything that ran is green, or is a known failure that still fails.

        An unexpected pass is never green, at any level.
        """
        against = self._against() - {Verdict.KNOWN_FAILURE}
        unexpected = any(finding.verdict is Verdict.UNEXPECTED_PASS for _, finding in self.findings)
        return not (self.interrupted or unexpected or against or self._why_nothing_was_judged())

    def objection_to_certificate(self) -> str:
        """Why the executor cannot be certified at the level; empty if it can."""
        if self.conformant is not True:
            return self.verdict
        undecided = self.count()[Verdict.INCONCLUSIVE]
        return f"{undecided} inconclusive" if undecided else ""

    def _against(self) -> frozenset[Verdict]:
        """Which verdicts of rules of the level count against the executor."""
        return AGAINST & {
            finding.verdict for rule, finding in self.findings if counts(rule.level, self.level)
        }

    def _why_no_verdict(self) -> str:
        if self.interrupted:
            return "interrupted"
        nothing = self._why_nothing_was_judged()
        if not self.complete:
            ran = f"{len(self.findings)} of {self.all_rules} rules"
            return f"{ran}, and {nothing}" if nothing else ran
        return nothing

    def _why_nothing_was_judged(self) -> str:
        if not any(finding.verdict in JUDGED for _, finding in self.findings):
            return "no rule could be judged"
        return "" if self.saw_a_task else "no task was seen to run"

    def count(self, level: Level | None = None, chapter: Chapter | None = None) -> dict[Verdict, int]:
        """The number of rules with each verdict."""
        found = dict.fromkeys(Verdict, 0)
        for rule, finding in self.findings:
            if (level is None or rule.level is level) and (chapter is None or rule.chapter == chapter):
                found[finding.verdict] += 1
        return found

    def summary(self) -> dict[str, dict[str, int]]:
        """Level -> verdict -> the number of rules."""
        return {
            level.value: {verdict.value: count for verdict, count in self.count(level).items()}
            for level in Level
        }

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, as its JSON Schema describes it."""
        return {
            "schema_version": 1,
            "suite": {"version": self.suite_version},
            "executor": {
                "target": self.target,
                "adapter": self.adapter,
                "distribution": self.distribution,
                "options": dict(self.options),
                "tasks": self.tasks.value,
                **({"stubs": list(self.stubs)} if self.stubs else {}),
            },
            "machine": dict(self.machine),
            "level": self.level,
            "seed": self.seed,
            "started": self.started,
            "duration_s": round(self.duration_s, 3),
            "command": self.command,
            "conformant": self.conformant,
            "verdict": self.verdict,
            "complete": self.complete,
            "summary": self.summary(),
            "rules": [_rule_as_dict(rule, finding) for rule, finding in self.findings],
        }


def order(level_of_rule: str, blocks: int) -> tuple[int, int]:
    """A key that puts the failure first that blocks most other rules, then ``must`` rules."""
    return -blocks, [level.value for level in Level].index(level_of_rule)


def totals(summary: Mapping[str, Mapping[str, int]]) -> str:
    """How many rules have each verdict: ``"150 passed, 3 must and 2 should failed"``.

    :param summary: of a report.
    """
    parts = []
    for verdict in Verdict:
        numbers = {level: counts[verdict.value] for level, counts in summary.items() if counts[verdict.value]}
        if numbers:
            by_level = " and ".join(f"{number} {level}" for level, number in numbers.items())
            number = by_level if verdict in _BY_LEVEL else sum(numbers.values())
            parts.append(f"{number} {verdict.value.replace('_', ' ')}")
    return ", ".join(parts)


def chapters(data: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Chapter -> verdict -> the number of rules, for the chapters of a report.

    :param data: as the JSON report has it.
    """
    found: dict[str, dict[str, int]] = {}
    for rule in data["rules"]:
        counts = found.setdefault(rule["chapter"], {verdict.value: 0 for verdict in Verdict})
        counts[rule["verdict"]] += 1
    return found


def _rule_as_dict(rule: Rule, finding: Finding) -> dict[str, Any]:
    trace = finding.trace
    return {
        "id": rule.id,
        "chapter": rule.chapter.name,
        "level": rule.level.value,
        "statement": _as_markdown(rule.statement),
        "why": _as_markdown(rule.why),
        "causes": [_as_markdown(cause) for cause in rule.causes],
        "origins": [_as_markdown(origin) for origin in rule.origins],
        "needs": [need.value for need in rule.needs],
        "verdict": finding.verdict.value,
        "message": finding.message,
        "expected": finding.expected,
        "actual": finding.actual,
        "calls": finding.calls,
        "evidence": finding.evidence,
        "blocked_by": finding.blocked_by or None,
        "known_failure": finding.known or None,
        "duration_s": finding.duration_s,
        "measurements": dict(finding.measurements),
        **({"timeline": list(trace.timeline), "program": dict(trace.program)} if trace else {}),
        **({"left_behind": list(finding.left_behind)} if finding.left_behind else {}),
        **({"survivors": list(finding.survivors)} if finding.survivors else {}),
    }


def _as_markdown(text: str) -> str:
    """Text of a docstring in Markdown."""
    return text.replace("``", "`")
