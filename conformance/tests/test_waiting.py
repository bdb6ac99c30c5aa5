"""How long the suite waits: by the machine as it is now, not only as it was at the start."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from executor_conformance.harness.calibration import Budgets, fork_here_s, processor_share
from executor_conformance.harness.trial import Facts, Trial

#: Seconds; so slow a calibration that the processor's share of now cannot be worse.
BUDGET_S, SCALE = 0.05, 1000.0


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


@pytest.mark.parametrize(("fork_s", "comes"), [(1e-7, True), (1000.0, False), (0.0, False)])
def test_a_wait_in_vain_goes_on_where_the_machine_has_become_slower(
    tmp_path: Path, fork_s: float, comes: bool
) -> None:
    began = time.monotonic()
    came = trial(tmp_path, fork_s).comes_true(lambda: time.monotonic() - began > 3 * BUDGET_S)
    assert came is comes


def test_to_see_that_nothing_happens_takes_no_longer(tmp_path: Path) -> None:
    looks = []
    trial(tmp_path, 1e-7).quiet(lambda: looks.append(time.monotonic()))
    assert looks[-1] - looks[0] < 5 * BUDGET_S


def test_what_is_measured_is_more_than_nothing() -> None:
    fork_s = fork_here_s()
    assert fork_s is not None
    assert fork_s > 0
    assert processor_share() > 0.5
