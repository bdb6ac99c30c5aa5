"""Rules about queued time, on executors for which they take too long."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from executor_conformance.harness.calibration import Budgets
from executor_conformance.rules.queued_time import median
from executor_conformance.rules.queued_time.median import expect_median_within
from executor_conformance.rules.queued_time.sampling import Conditions
from executor_conformance.verdicts import Broken, NotApplicable


def check(monkeypatch: pytest.MonkeyPatch, *, seconds: float, earlier: int) -> None:
    """Check 12 samples of this many seconds against a budget of a second, after some of 600 tasks."""
    result = (seconds > 1.0, [seconds] * 12, None, earlier)
    monkeypatch.setattr(median, "_measure_median", lambda *_: result)
    trial = SimpleNamespace(budgets=Budgets(4.0, 0.06, 5.0, 6.0, 0.25), measurements={})
    expect_median_within(
        trial,  # type: ignore[arg-type]
        lambda _, __: 1.0,
        "a task",
        Conditions(earlier_tasks=600),
        follows_machine=True,
    )


def test_a_median_after_fewer_tasks_than_the_rule_is_about_is_no_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(NotApplicable, match="340 tasks cause no delay, but the rule is about 600"):
        check(monkeypatch, seconds=0.5, earlier=340)
    check(monkeypatch, seconds=0.5, earlier=600)


def test_a_delay_after_fewer_tasks_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Broken, match="median 2"):
        check(monkeypatch, seconds=2.0, earlier=340)
