"""Tests of waiting: a wait is extended if the machine is slower now than at its calibration."""

from __future__ import annotations

import itertools

import pytest

from executor_conformance.harness import waiting
from executor_conformance.harness.calibration import Budgets, fork_here_s, processor_share
from executor_conformance.harness.context import EVENTS, Facts
from executor_conformance.harness.waiting import Patience, Waiting
from executor_conformance.verdicts import Broken

#: The budget, in seconds, and a scale for which the current processor share is never the reason to extend it.
BUDGET_S, SCALE = 0.05, 1000.0
#: The most checks of a condition within the budget.  Checks are counted, because a stall of the test is none.
#: Four times the budget has at least 26.
MAX_CHECKS = 20


def wait(fork_s: float) -> Waiting:
    """Return a ``Waiting`` with a small budget, for a host whose fork took this long at calibration."""
    return Waiting(Budgets(BUDGET_S, BUDGET_S, BUDGET_S, BUDGET_S, BUDGET_S, SCALE), Facts(fork_s=fork_s))


@pytest.mark.parametrize(
    ("calibrated_s", "now_s", "extended"),
    [
        pytest.param(0.001, 0.004, True, id="slower than at calibration"),
        pytest.param(0.004, 0.004, False, id="unchanged"),
        pytest.param(0.1, 0.004, False, id="faster than at calibration"),
        pytest.param(0.0, 0.004, False, id="no calibration"),
        pytest.param(0.004, None, False, id="fork fails"),
    ],
)
def test_wait_is_extended_if_the_machine_has_become_slower(
    monkeypatch: pytest.MonkeyPatch,
    calibrated_s: float,
    now_s: float | None,
    extended: bool,
) -> None:
    monkeypatch.setattr(waiting, "fork_here_s", lambda times=3: now_s)
    checks = itertools.count()
    held = wait(calibrated_s).wait_for(lambda: next(checks) > MAX_CHECKS)
    assert held is extended


@pytest.mark.parametrize(("now_s", "cost_s"), [(0.03, 0.04), (0.05, 0.04), (0.001, 0.001), (None, 0.04)])
def test_fork_cost_is_the_calibration_unless_forks_are_much_faster_now(
    monkeypatch: pytest.MonkeyPatch, now_s: float | None, cost_s: float
) -> None:
    monkeypatch.setattr(waiting, "fork_here_s", lambda times=3: now_s)
    assert wait(0.04).fork_s == cost_s


def patient(monkeypatch: pytest.MonkeyPatch, second_wait_s: float = 60.0) -> Waiting:
    """Return a ``Waiting`` with a second wait, on a machine that stays as fast as it was."""
    monkeypatch.setattr(waiting, "fork_here_s", lambda times=3: 0.001)
    budgets = Budgets(BUDGET_S, BUDGET_S, BUDGET_S, BUDGET_S, BUDGET_S, SCALE)
    return Waiting(budgets, Facts(fork_s=0.004), Patience(second_wait_s))


def test_an_event_in_the_second_wait_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = patient(monkeypatch)
    checks = itertools.count()
    trial.require(lambda: next(checks) > MAX_CHECKS, expected="an event", actual=lambda: "none")
    assert BUDGET_S < trial.patience.late_s < 60.0
    assert not trial.patience.was_in_vain


def test_an_event_is_missing_after_the_second_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = patient(monkeypatch, second_wait_s=2 * BUDGET_S)
    with pytest.raises(Broken, match="an event within"):
        trial.require(lambda: False, expected="an event", actual=lambda: "none")
    assert trial.patience.was_in_vain


def test_a_budget_of_the_rule_is_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = patient(monkeypatch)
    checks = itertools.count()
    with pytest.raises(Broken):
        trial.require(lambda: next(checks) > MAX_CHECKS, expected="", actual=lambda: "", budget_s=BUDGET_S)
    assert not trial.patience.late_s


@pytest.mark.parametrize("exceptions", [frozenset(), frozenset({EVENTS})])
def test_the_second_wait_is_for_missing_events_only(
    monkeypatch: pytest.MonkeyPatch, exceptions: frozenset[str]
) -> None:
    trial = patient(monkeypatch)
    trial.patience.exceptions = exceptions
    checks = itertools.count()
    assert not trial.wait_for(lambda: next(checks) > MAX_CHECKS, patient=bool(exceptions))


def test_quiet_is_not_extended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "fork_here_s", lambda times=3: 1.0)
    checks: list[None] = []
    wait(0.001).quiet(lambda: checks.append(None))
    assert len(checks) <= MAX_CHECKS


def test_measurements_are_positive() -> None:
    fork_s = fork_here_s()
    assert fork_s is not None
    assert fork_s > 0
    assert processor_share() > 0.5
