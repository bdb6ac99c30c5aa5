"""Executors with several unrelated faults: each fault is reported under its own rule."""

from __future__ import annotations

from fixtures import combined_faults


def test_each_of_several_faults_is_named() -> None:
    results = list(combined_faults.run_all(list(combined_faults.sample(combined_faults.FEW))))
    shown = sum(len(result.shown) for result in results)
    hidden = {
        result.combination.name: sorted(result.shown - result.named)
        for result in results
        if result.shown != result.named
    }
    assert shown > combined_faults.FEW, "most combinations show all their faults"
    assert sum(map(len, hidden.values())) <= 0.05 * shown, hidden
