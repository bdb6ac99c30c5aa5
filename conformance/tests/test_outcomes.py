"""Tests of what pytest makes of a finding."""

from __future__ import annotations

import pytest

from executor_conformance.plugin import outcomes
from executor_conformance.rules import Level, Rule, catalogue
from executor_conformance.verdicts import Finding, Verdict

MUST, SHOULD, MAY = (
    next(rule for rule in catalogue().values() if rule.level is level)
    for level in (Level.MUST, Level.SHOULD, Level.MAY)
)
FAILED = Finding(Verdict.FAILED, expected="an event", actual="none")
INCONCLUSIVE = Finding(Verdict.INCONCLUSIVE, actual="too noisy")
KNOWN = Finding(Verdict.KNOWN_FAILURE, expected="an event", actual="none", known="issue 1")
UNEXPECTED = Finding(Verdict.UNEXPECTED_PASS, actual="it was known to fail")
NOT_APPLICABLE = Finding(Verdict.NOT_APPLICABLE, actual="it has no terminate()")


@pytest.mark.parametrize(
    ("rule", "finding", "level", "outcome", "category"),
    [
        (MUST, FAILED, "must", "failed", None),
        (SHOULD, FAILED, "must", "skipped", "should failed"),
        (SHOULD, FAILED, "should", "failed", None),
        (MAY, FAILED, "should", "skipped", "may failed"),
        (MUST, INCONCLUSIVE, "must", "failed", "inconclusive"),
        (SHOULD, INCONCLUSIVE, "must", "skipped", "should inconclusive"),
        (SHOULD, INCONCLUSIVE, "should", "failed", "inconclusive"),
        (MUST, KNOWN, "must", "skipped", "known failure"),
        (SHOULD, UNEXPECTED, "must", "failed", None),
        (MUST, NOT_APPLICABLE, "must", "skipped", "not applicable"),
    ],
    ids=lambda value: getattr(value, "verdict", None) or getattr(value, "level", None) or value,
)
def test_outcome(rule: Rule, finding: Finding, level: str, outcome: str, category: str | None) -> None:
    as_pytest_has_it = "failed" if finding in (FAILED, UNEXPECTED) else "skipped"
    report = pytest.TestReport("x::y", ("", 0, ""), {}, as_pytest_has_it, None, "call")  # type: ignore[arg-type]
    outcomes.settle(report, rule, finding, level, {rule.id})
    report = pytest.TestReport._from_json(report._to_json())  # as pytest-xdist sends it
    assert report.outcome == outcome
    assert outcomes.carried(report) == (rule.id, finding)
    found = outcomes.status(report)
    assert (found and found[0]) == category
    if finding is INCONCLUSIVE and outcome == "failed":
        assert "too noisy" in report.longreprtext
