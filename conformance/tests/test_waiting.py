"""How long the suite waits: by the machine as it is now, not only as it was at the start."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from executor_conformance.harness import trial as trial_module
from executor_conformance.harness.calibration import Budgets, fork_here_s, processor_share
from executor_conformance.harness.trial import Facts, Trial

#: Seconds; so slow a calibration that the processor's share of now cannot be worse.
BUDGET_S, SCALE = 0.05, 1000.0
#: Within the budget; counted, because a stall is no look.  Four times the budget has 26 at least.
MOST_LOOKS = 20


def trial(tmp_path: Path, fork_s: float) -> Trial:
    nothing: Any = None
    return Trial(
        target=nothing,
        budgets=Budgets(BUDGET_S, BUDGET_S, BUDGET_S, BUDGET_S, BUDGET_S, SCALE),
        blackboard=nothing,
        scratch=str(tmp_path),
        warden=0,
        facts=Facts(fork_s=fork_s),
    )


@pytest.mark.parametrize(
    ("calibrated_s", "now_s", "comes"),
    [
        pytest.param(0.001, 0.004, True, id="slower than its calibration"),
        pytest.param(0.004, 0.004, False, id="as it was"),
        pytest.param(0.1, 0.004, False, id="calibrated in a slow moment"),
        pytest.param(0.0, 0.004, False, id="nothing is known of its forks"),
        pytest.param(0.004, None, False, id="nobody can fork now"),
    ],
)
def test_a_wait_in_vain_goes_on_where_the_machine_has_become_slower(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calibrated_s: float,
    now_s: float | None,
    comes: bool,
) -> None:
    monkeypatch.setattr(trial_module, "fork_here_s", lambda times=3: now_s)
    looks = itertools.count()
    came = trial(tmp_path, calibrated_s).comes_true(lambda: next(looks) > MOST_LOOKS)
    assert came is comes


@pytest.mark.parametrize(("now_s", "cost_s"), [(0.03, 0.04), (0.05, 0.04), (0.001, 0.001), (None, 0.04)])
def test_what_a_fork_costs_is_its_calibration_unless_that_was_a_slow_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now_s: float | None, cost_s: float
) -> None:
    monkeypatch.setattr(trial_module, "fork_here_s", lambda times=3: now_s)
    assert trial(tmp_path, 0.04).fork_s == cost_s


def test_to_see_that_nothing_happens_takes_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_module, "fork_here_s", lambda times=3: 1.0)
    looks: list[None] = []
    trial(tmp_path, 0.001).quiet(lambda: looks.append(None))
    assert len(looks) <= MOST_LOOKS


def test_what_is_measured_is_more_than_nothing() -> None:
    fork_s = fork_here_s()
    assert fork_s is not None
    assert fork_s > 0
    assert processor_share() > 0.5
