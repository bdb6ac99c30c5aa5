"""How often the words of the statistical rules are wrong."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executor_conformance.harness.calibration import times_out_of_processor
from executor_conformance.harness.growth import goes_on
from executor_conformance.harness.memory import private_bytes
from executor_conformance.harness.timing import (
    AtAnyMoment,
    ShareAbove,
    distribution,
    quantile,
    recurring_interval_s,
    spread,
)


def decide(chance: random.Random, share: float, most: int, **options: float) -> tuple[bool | None, int]:
    """The word on a stream of which this share is above the budget, and after how many samples."""
    decision = ShareAbove(1.0, **options)
    for _ in range(most):
        decision.add(2.0 if chance.random() < share else 0.5)
        if decision.is_above is not None:
            break
    return decision.is_above, len(decision.samples)


@pytest.mark.parametrize(("share", "wrong"), [(0.3, True), (0.1, True), (0.7, False), (0.95, False)])
def test_a_median_is_misjudged_once_in_ten_thousand(share: float, wrong: bool) -> None:
    chance = random.Random(1)
    words = [decide(chance, share, 120)[0] for _ in range(10_000)]
    assert words.count(wrong) <= 3


def test_a_plain_median_takes_eleven_samples() -> None:
    chance = random.Random(1)
    assert decide(chance, 0.0, 120) == (False, 11)
    assert decide(chance, 1.0, 120) == (True, 11)


def test_a_tail_is_misjudged_once_in_a_thousand() -> None:
    chance = random.Random(1)
    tail = {"low": 0.02, "high": 0.1, "error": 1e-3}
    assert [decide(chance, 0.02, 250, **tail)[0] for _ in range(4_000)].count(True) <= 12
    assert [decide(chance, 0.1, 250, **tail)[0] for _ in range(4_000)].count(False) <= 12


def test_quantiles_and_the_distribution() -> None:
    samples = [number / 1000 for number in range(1, 101)]
    assert quantile(samples, 0.5) == 0.051
    assert quantile([3.0], 0.99) == 3.0
    assert spread(samples) == pytest.approx(0.08)
    told = distribution(samples)
    assert told["count"] == 100
    assert told["max_s"] == 0.1
    bins = told["histogram_up_to_s"]
    assert isinstance(bins, dict)
    assert sum(bins.values()) == 100


# -- an interval between two looks at new tasks, on an idle machine and on busy ones -------------------------


def forks(chance: random.Random, busy: float) -> float:
    """Seconds; a busy machine adds delays, of which a few are long."""
    return 0.004 + busy * chance.lognormvariate(-6.0, 1.0)


def look(chance: random.Random, busy: float, interval: float, count: int = 24) -> AtAnyMoment:
    return AtAnyMoment(
        [interval * chance.random() + sum(forks(chance, busy) for _ in range(2)) for _ in range(count)],
        [forks(chance, busy) for _ in range(count)],
    )


@pytest.mark.parametrize("busy", [0, 1, 2])
def test_an_interval_is_told_from_a_busy_machine(busy: float) -> None:
    chance = random.Random(1)
    assert sum(look(chance, busy, 0.0).shows for _ in range(1_000)) <= 10
    assert sum(look(chance, busy, 0.1).shows for _ in range(1_000)) >= (990 if busy < 2 else 900)


def run_of_tasks(chance: random.Random, busy: float, interval: float) -> tuple[list[float], list[float]]:
    """When each was asked for and what it waited: for the next look, and for a busy machine."""
    now, moments, waited = chance.random(), [], []
    for _ in range(24):
        now += 0.05 + chance.uniform(0.0, 0.08)
        until_next_look = -now % interval if interval else 0.0
        moments.append(now)
        waited.append(until_next_look + sum(forks(chance, busy) for _ in range(2)))
        now += waited[-1]
    return moments, waited


@pytest.mark.parametrize(
    ("busy", "interval", "count"),
    [(0, 0.03, 1), (0, 0.1, 1), (1, 0.1, 1), (2, 0.05, 6), (4, 0.1, 6), (9, 0.3, 6)],
)
def test_an_interval_that_recurs_is_found_on_a_wild_machine_too(
    busy: float, interval: float, count: int
) -> None:
    chance = random.Random(1)
    for _ in range(8):
        found = recurring_interval_s([run_of_tasks(chance, busy, interval) for _ in range(count)])
        assert found is not None
        parts = interval / found  # a half of it fits as well
        assert parts == pytest.approx(round(parts), abs=0.1)


@pytest.mark.parametrize("busy", [0, 1, 4, 20])
def test_no_interval_is_found_where_there_is_none(busy: float) -> None:
    chance = random.Random(1)
    looks = [run_of_tasks(chance, busy, 0.0) for _ in range(60)]
    assert not any(recurring_interval_s([look]) for look in looks)
    assert not any(recurring_interval_s(looks[number : number + 6]) for number in range(0, 60, 6))


@pytest.mark.parametrize("looks", [[], [([], [])], [([1.0, 2.0], [0.1, 0.1])], [([1.0] * 9, [0.1] * 9)]])
def test_a_few_moments_tell_of_no_interval(looks: list[tuple[list[float], list[float]]]) -> None:
    assert recurring_interval_s(looks) is None


def test_what_recurs_counts_where_it_costs_more_than_the_machine_scatters() -> None:
    chance = random.Random(1)
    machine = [forks(chance, 9) for _ in range(24)]
    assert AtAnyMoment([0.1 * chance.random() for _ in range(24)], machine, 0.0, 0.1).recurs is False
    slow = AtAnyMoment([0.4 * chance.random() for _ in range(24)], machine, 0.0, 0.4)
    assert slow.recurs
    assert slow.shows
    assert slow.says == 1


def test_a_wild_machine_says_little() -> None:
    chance = random.Random(1)
    assert look(chance, 0, 0.1).says == 1
    assert look(chance, 2, 0.1, count=1_000).says == 0.5
    assert look(chance, 9, 0.1, count=1_000).says == 0
    assert AtAnyMoment([0.1] * 24, look(chance, 9, 0.0).controls).says == 1  # nothing scatters


@pytest.mark.parametrize(
    ("groups", "files", "stopped"),
    [
        ("0::/a/b\n", {"a/b/cpu.stat": 3, "a/cpu.stat": 4}, 7),
        ("0::/\n", {"cpu.stat": 5}, 5),
        ("2:cpu,cpuacct:/of/the/host\n1:memory:/a\n", {"cpu/cpu.stat": 6, "a/cpu.stat": 1}, 6),
        ("2:cpu:/a:b\n0::/\n", {"cpu/a:b/cpu.stat": 8}, 8),
        ("", {"cpu.stat": 9}, 0),
    ],
)
def test_a_limit_on_the_processor_is_counted(
    tmp_path: Path, groups: str, files: dict[str, int], stopped: int
) -> None:
    (tmp_path / "cgroup").write_text(groups)
    for name, times in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"nr_periods 10\nnr_throttled {times}\nthrottled_time 1234\n")
    assert times_out_of_processor(tmp_path / "cgroup", tmp_path) == stopped
    assert times_out_of_processor(tmp_path / "none", tmp_path) == 0


# -- growth: a sample a stretch of 40 tasks; 8 KB a task is a leak -------------------------------------------

_STRETCH, _LEAST = 40, 40 * 8_000


def noisy(chance: random.Random, value: Callable[[int], float]) -> Iterator[int]:
    return (int(value(number) + chance.gauss(0, 60_000)) for number in itertools.count())


def grows(value: Callable[[int], float], seed: int = 1) -> bool:
    source = noisy(random.Random(seed), value)
    return bool(goes_on([next(source)], source, least=_LEAST, windows=5))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(lambda number: 0, id="level"),
        pytest.param(lambda number: 20e6 if number >= 2 else 0, id="step"),
        pytest.param(lambda number: 20e6 * (number >= 2) + 20e6 * (number >= 5), id="two steps"),
        pytest.param(lambda number: 2e6 * min(number, 5), id="fills up"),
        pytest.param(lambda number: 640e3 * min(number, 25), id="fills up with the thousandth task"),
        pytest.param(lambda number: 640e3 * min(number, 36), id="fills up in the last window"),
        pytest.param(lambda number: 5e6 * (number % 2), id="up and down"),
        pytest.param(lambda number: -1e6 * number, id="shrinks"),
    ],
)
def test_what_comes_to_an_end_is_no_leak(value: Callable[[int], float]) -> None:
    assert not any(grows(value, seed) for seed in range(300))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(lambda number: 16_384 * _STRETCH * number, id="16 KiB a task"),
        pytest.param(lambda number: 3 * 16_384 * _STRETCH * (number // 3), id="in lumps"),
        pytest.param(lambda number: 20e6 * (number > 0) + 16_384 * _STRETCH * number, id="after a step"),
    ],
)
def test_what_goes_on_is_a_leak(value: Callable[[int], float]) -> None:
    assert all(grows(value, seed) for seed in range(300))


def test_without_time_a_leak_is_told_after_three_windows_and_not_before() -> None:
    samples = [0]
    assert goes_on(samples, itertools.count(10, 10), least=5, windows=9, is_over=lambda: True) is None
    assert len(samples) == 7
    samples = [0]
    growing = itertools.count(10, 10)
    assert goes_on(samples, growing, least=5, windows=9, is_over=lambda: len(samples) > 7) is True
    assert len(samples) == 13


# -- memory --------------------------------------------------------------------------------------------------


_HOLD_A_BALLAST = """\
from executor_conformance.harness.memory import ballast, private_bytes
before = private_bytes()
held = ballast(20_000_000)
print(private_bytes() - before)
"""


def test_a_ballast_has_about_its_size_and_is_private() -> None:
    # In a new interpreter: this one has free memory, which would be filled first.
    done = subprocess.run([sys.executable, "-c", _HOLD_A_BALLAST], stdout=subprocess.PIPE, check=True)
    assert int(done.stdout) == pytest.approx(20_000_000, rel=0.25)


def test_what_cannot_be_read_has_no_size() -> None:
    assert private_bytes(2**22 + 1) is None
