"""What a report says, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from executor_conformance.rules import Level, Rule
from executor_conformance.verdicts import Finding, Verdict

#: Verdicts that say something about the executor's behaviour; the others say why nothing was judged.
JUDGED = frozenset({Verdict.PASSED, Verdict.FAILED, Verdict.KNOWN_FAILURE, Verdict.UNEXPECTED_PASS})
#: Verdicts that an executor which is called conformant may not have at the asked level.
AGAINST = frozenset({Verdict.FAILED, Verdict.KNOWN_FAILURE, Verdict.UNEXPECTED_PASS, Verdict.INCONCLUSIVE})


@dataclass(frozen=True)
class Report:
    """One run of the suite on one executor.

    :param level: what counts for ``conformant``: ``must`` or ``should``.
    :param replaces: what the adapter put something else in the place of.
    :param complete: the run was not broken off.
    """

    target: str
    adapter: str
    distribution: str | None
    options: Mapping[str, Any]
    machine: Mapping[str, Any]
    level: str
    findings: tuple[tuple[Rule, Finding], ...]
    complete: bool = True
    replaces: tuple[str, ...] = ()

    @property
    def conformant(self) -> bool:
        """At least one rule was judged, and none of the level speaks against the executor."""
        counted = (Level.MUST,) if self.level == "must" else (Level.MUST, Level.SHOULD)
        judged = any(finding.verdict in JUDGED for _, finding in self.findings)
        against = any(finding.verdict in AGAINST for rule, finding in self.findings if rule.level in counted)
        return self.complete and judged and not against

    @property
    def green(self) -> bool:
        """What the exit status says: conformant but for known failures, and each of those still fails."""
        counted = (Level.MUST,) if self.level == "must" else (Level.MUST, Level.SHOULD)
        judged = any(finding.verdict in JUDGED for _, finding in self.findings)
        against = any(
            finding.verdict is Verdict.UNEXPECTED_PASS
            or (rule.level in counted and finding.verdict in AGAINST - {Verdict.KNOWN_FAILURE})
            for rule, finding in self.findings
        )
        return self.complete and judged and not against

    def count(self, level: Level | None = None, chapter: str | None = None) -> dict[Verdict, int]:
        """How often each verdict was given."""
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
                **({"replaces": list(self.replaces)} if self.replaces else {}),
            },
            "machine": dict(self.machine),
            "conformant": self.conformant,
            "summary": {
                level.value: {verdict.value: count for verdict, count in self.count(level).items()}
                for level in Level
            },
            "rules": [
                {
                    "id": rule.id,
                    "chapter": rule.chapter,
                    "level": rule.level.value,
                    "verdict": finding.verdict.value,
                    "message": finding.message,
                    "duration_s": finding.duration_s,
                    "measurements": dict(finding.measurements),
                }
                for rule, finding in self.findings
            ],
        }
