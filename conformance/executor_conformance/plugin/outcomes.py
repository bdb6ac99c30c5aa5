"""What pytest makes of a finding: its outcome, its letter, and its entry in a JUnit file.

pytest knows passed, failed and skipped.  A finding is a failure for pytest only if it makes the exit status
1, so that the counts of pytest, ``-x``, JUnit files and the exit status agree.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

import pytest
from _pytest.junitxml import xml_key  # the fixture for global properties needs a test

from executor_conformance.report import counts
from executor_conformance.rules import Rule, catalogue, find
from executor_conformance.verdicts import Finding, Verdict

#: The category, the letter and the word of a finding that neither passed nor failed.
_STATUS = {
    Verdict.NOT_APPLICABLE: ("not applicable", "n", "NOT APPLICABLE"),
    Verdict.BLOCKED: ("blocked", "b", "BLOCKED"),
    Verdict.INCONCLUSIVE: ("inconclusive", "?", "INCONCLUSIVE"),
    Verdict.KNOWN_FAILURE: ("known failure", "k", "KNOWN FAILURE"),
}
_UNCOUNTED = {
    Verdict.FAILED: ("{} failed", "f", "FAILED ({})"),
    Verdict.INCONCLUSIVE: ("{} inconclusive", "?", "INCONCLUSIVE ({})"),
}


def settle(
    report: pytest.TestReport, rule: Rule, finding: Finding, level: str, selected: Collection[str]
) -> None:
    """Give a report the outcome of the finding, and the finding itself.

    :param level: which rules count, ``must`` or ``should``.
    :param selected: ids of the rules of this run.  A failure of another one has no report of its own, so the
        rule that it blocks stands for it.
    """
    # As text, because pytest-xdist carries few types, and not even every string.
    data = json.dumps(finding.as_dict(), default=str)
    report.conformance = {"rule": rule.id, "finding": data, "counts": counts(rule.level, level)}  # type: ignore[attr-defined]
    if finding.verdict is Verdict.INCONCLUSIVE and counts(rule.level, level):
        report.outcome = "failed"
        report.longrepr = f"{rule.id} ({rule.level}): inconclusive: {finding.message}"
    elif finding.verdict is Verdict.BLOCKED and _is_elsewhere(finding.blocked_by, level, selected):
        report.outcome = "failed"
        report.longrepr = f"{rule.id} ({rule.level}): {finding.message}"
    elif finding.verdict is Verdict.KNOWN_FAILURE:
        _excuse(report, f"known failure: {finding.known}")
    elif finding.verdict is Verdict.FAILED and not counts(rule.level, level):
        _excuse(report, f"a {rule.level} rule, which does not count at level {level}: {finding.message}")


def _is_elsewhere(rule_id: str, level: str, selected: Collection[str]) -> bool:
    return rule_id not in selected and rule_id in catalogue() and counts(find(rule_id).level, level)


def _excuse(report: pytest.TestReport, reason: str) -> None:
    """Make it an expected failure, which is how JUnit files mark what does not count."""
    report.outcome = "skipped"
    report.wasxfail = reason


def carried(report: pytest.TestReport) -> tuple[str, Finding] | None:
    """The rule id and the finding that a report carries, if it is about a rule."""
    data: Mapping[str, str] | None = getattr(report, "conformance", None)
    return None if data is None else (data["rule"], Finding.from_dict(json.loads(data["finding"])))


def status(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """The category, the letter and the word of a report about a rule; ``None``: those of pytest."""
    found = carried(report)
    if found is None:
        return None
    rule_id, finding = found
    uncounted = _UNCOUNTED.get(finding.verdict)
    if uncounted is not None and not report.conformance["counts"]:
        category, letter, word = (text.format(find(rule_id).level) for text in uncounted)
        return category, letter, word
    return _STATUS.get(finding.verdict)


def add_properties(config: pytest.Config, properties: Mapping[str, object]) -> None:
    """Add properties of the whole run to the JUnit file, if one is written."""
    xml = config.stash.get(xml_key, None)
    if xml is not None:
        for name, value in properties.items():
            xml.add_global_property(name, str(value))
