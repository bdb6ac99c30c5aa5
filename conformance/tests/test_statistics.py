"""Error rates of the statistical tests."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executor_conformance.harness.calibration import times_out_of_processor
from executor_conformance.harness.growth import keeps_growing
from executor_conformance.harness.memory import private_bytes
from executor_conformance.harness.timing import (
    PollingTest,
    SequentialTest,
    distribution,
    quantile,
    recurring_interval_s,
    spread,
)


def decide(rng: random.Random, share: float, most: int, **options: float) -> tuple[bool | None, int]:
    """The decision on samples of which this share is above the budget, and how many samples it took."""
    decision = SequentialTest(1.0, **options)
    for _ in range(most):
        decision.add(2.0 if rng.random() < share else 0.5)
        if decision.is_above is not None:
            break
    return decision.is_above, len(decision.samples)


@pytest.mark.parametrize(("share", "wrong"), [(0.3, True), (0.1, True), (0.7, False), (0.95, False)])
def test_a_median_is_misjudged_once_in_ten_thousand(share: float, wrong: bool) -> None:
    rng = random.Random(1)
    decisions = [decide(rng, share, 120)[0] for _ in range(10_000)]
    assert decisions.count(wrong) <= 3


def test_a_clear_median_takes_eleven_samples() -> None:
    rng = random.Random(1)
    assert decide(rng, 0.0, 120) == (False, 11)
    assert decide(rng, 1.0, 120) == (True, 11)


def test_a_tail_is_misjudged_once_in_a_thousand() -> None:
    rng = random.Random(1)
    tail = {"low": 0.02, "high": 0.1, "error": 1e-3}
    assert [decide(rng, 0.02, 250, **tail)[0] for _ in range(4_000)].count(True) <= 12
    assert [decide(rng, 0.1, 250, **tail)[0] for _ in range(4_000)].count(False) <= 12


def test_quantiles_and_the_distribution() -> None:
    samples = [number / 1000 for number in range(1, 101)]
    assert quantile(samples, 0.5) == 0.051
    assert quantile([3.0], 0.99) == 3.0
    assert spread(samples) == pytest.approx(0.08)
    found = distribution(samples)
    assert found["count"] == 100
    assert found["max_s"] == 0.1
    bins = found["histogram_up_to_s"]
    assert isinstance(bins, dict)
    assert sum(bins.values()) == 100


# -- polling intervals, on an idle machine and on busy ones --------------------------------------------------


def fork_s(rng: random.Random, busy: float) -> float:
    """How long a fork takes, in seconds; a busy machine adds delays, a few of them long."""
    return 0.004 + busy * rng.lognormvariate(-6.0, 1.0)


def polling_test(rng: random.Random, busy: float, interval: float, count: int = 24) -> PollingTest:
    return PollingTest(
        [interval * rng.random() + sum(fork_s(rng, busy) for _ in range(2)) for _ in range(count)],
        [fork_s(rng, busy) for _ in range(count)],
    )


@pytest.mark.parametrize("busy", [0, 1, 2])
def test_a_polling_interval_is_distinguished_from_a_busy_machine(busy: float) -> None:
    rng = random.Random(1)
    assert sum(polling_test(rng, busy, 0.0).shows_polling for _ in range(1_000)) <= 10
    detected = sum(polling_test(rng, busy, 0.1).shows_polling for _ in range(1_000))
    assert detected >= (990 if busy < 2 else 900)


def series_of_tasks(rng: random.Random, busy: float, interval: float) -> tuple[list[float], list[float]]:
    """When each task was submitted, and how long it waited: for the next poll, and for a busy machine."""
    now, submitted, waited = rng.random(), [], []
    for _ in range(24):
        now += 0.05 + rng.uniform(0.0, 0.08)
        until_next_poll = -now % interval if interval else 0.0
        submitted.append(now)
        waited.append(until_next_poll + sum(fork_s(rng, busy) for _ in range(2)))
        now += waited[-1]
    return submitted, waited


@pytest.mark.parametrize(
    ("busy", "interval", "count"),
    [(0, 0.03, 1), (0, 0.1, 1), (1, 0.1, 1), (2, 0.05, 6), (4, 0.1, 6), (9, 0.3, 6)],
)
def test_a_recurring_interval_is_found_even_on_a_noisy_machine(
    busy: float, interval: float, count: int
) -> None:
    rng = random.Random(1)
    for _ in range(8):
        found = recurring_interval_s([series_of_tasks(rng, busy, interval) for _ in range(count)])
        assert found is not None
        parts = interval / found  # an integer fraction of the interval fits as well
        assert parts == pytest.approx(round(parts), abs=0.1)


@pytest.mark.parametrize("busy", [0, 1, 4, 20])
def test_no_interval_is_found_where_there_is_none(busy: float) -> None:
    rng = random.Random(1)
    series = [series_of_tasks(rng, busy, 0.0) for _ in range(60)]
    assert not any(recurring_interval_s([one]) for one in series)
    assert not any(recurring_interval_s(series[number : number + 6]) for number in range(0, 60, 6))


@pytest.mark.parametrize("series", [[], [([], [])], [([1.0, 2.0], [0.1, 0.1])], [([1.0] * 9, [0.1] * 9)]])
def test_too_few_samples_show_no_interval(series: list[tuple[list[float], list[float]]]) -> None:
    assert recurring_interval_s(series) is None


def test_a_recurring_interval_counts_if_it_exceeds_the_noise_of_the_machine() -> None:
    rng = random.Random(1)
    noisy = [fork_s(rng, 9) for _ in range(24)]
    short = PollingTest([0.1 * rng.random() for _ in range(24)], noisy, 0.0, 0.1)
    assert short.recurrence_exceeds_noise is False
    long = PollingTest([0.4 * rng.random() for _ in range(24)], noisy, 0.0, 0.4)
    assert long.recurrence_exceeds_noise
    assert long.shows_polling
    assert long.weight == 1


def test_a_noisy_machine_has_little_weight() -> None:
    rng = random.Random(1)
    assert polling_test(rng, 0, 0.1).weight == 1
    assert polling_test(rng, 2, 0.1, count=1_000).weight == 0.5
    assert polling_test(rng, 9, 0.1, count=1_000).weight == 0
    assert PollingTest([0.1] * 24, polling_test(rng, 9, 0.0).controls).weight == 1  # no spread at all


@pytest.mark.parametrize(
    ("groups", "files", "throttled"),
    [
        ("0::/a/b\n", {"a/b/cpu.stat": 3, "a/cpu.stat": 4}, 7),
        ("0::/\n", {"cpu.stat": 5}, 5),
        ("2:cpu,cpuacct:/of/the/host\n1:memory:/a\n", {"cpu/cpu.stat": 6, "a/cpu.stat": 1}, 6),
        ("2:cpu:/a:b\n0::/\n", {"cpu/a:b/cpu.stat": 8}, 8),
        ("", {"cpu.stat": 9}, 0),
    ],
)
def test_cpu_throttling_is_counted(
    tmp_path: Path, groups: str, files: dict[str, int], throttled: int
) -> None:
    (tmp_path / "cgroup").write_text(groups)
    for name, times in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"nr_periods 10\nnr_throttled {times}\nthrottled_time 1234\n")
    assert times_out_of_processor(tmp_path / "cgroup", tmp_path) == throttled
    assert times_out_of_processor(tmp_path / "none", tmp_path) == 0


# -- growth: one sample per 40 tasks; 8 KB per task is a leak ------------------------------------------------

_STRETCH, _LEAST = 40, 40 * 8_000


def noisy(rng: random.Random, value: Callable[[int], float]) -> Iterator[int]:
    return (int(value(number) + rng.gauss(0, 60_000)) for number in itertools.count())


def grows(value: Callable[[int], float], seed: int = 1) -> bool:
    source = noisy(random.Random(seed), value)
    return bool(keeps_growing([next(source)], source, least=_LEAST, windows=5))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(lambda number: 0, id="level"),
        pytest.param(lambda number: 20e6 if number >= 2 else 0, id="step"),
        pytest.param(lambda number: 20e6 * (number >= 2) + 20e6 * (number >= 5), id="two steps"),
        pytest.param(lambda number: 2e6 * min(number, 5), id="fills up"),
        pytest.param(lambda number: 640e3 * min(number, 25), id="fills up by the thousandth task"),
        pytest.param(lambda number: 640e3 * min(number, 36), id="fills up in the last window"),
        pytest.param(lambda number: 5e6 * (number % 2), id="up and down"),
        pytest.param(lambda number: -1e6 * number, id="shrinks"),
    ],
)
def test_growth_that_ends_is_no_leak(value: Callable[[int], float]) -> None:
    assert not any(grows(value, seed) for seed in range(300))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(lambda number: 16_384 * _STRETCH * number, id="16 KiB per task"),
        pytest.param(lambda number: 3 * 16_384 * _STRETCH * (number // 3), id="in lumps"),
        pytest.param(lambda number: 20e6 * (number > 0) + 16_384 * _STRETCH * number, id="after a step"),
    ],
)
def test_growth_that_continues_is_a_leak(value: Callable[[int], float]) -> None:
    assert all(grows(value, seed) for seed in range(300))


def test_without_more_time_a_leak_is_reported_after_three_windows() -> None:
    samples = [0]
    assert keeps_growing(samples, itertools.count(10, 10), least=5, windows=9, is_over=lambda: True) is None
    assert len(samples) == 7
    samples = [0]
    growing = itertools.count(10, 10)
    assert keeps_growing(samples, growing, least=5, windows=9, is_over=lambda: len(samples) > 7) is True
    assert len(samples) == 13


# -- memory --------------------------------------------------------------------------------------------------


_HOLD_A_BALLAST = """\
from executor_conformance.harness.memory import ballast, private_bytes
before = private_bytes()
held = ballast(20_000_000)
print(private_bytes() - before)
"""


def test_a_ballast_has_about_its_size_and_is_private() -> None:
    # In a new interpreter, because this one has free memory that would be filled first.
    done = subprocess.run([sys.executable, "-c", _HOLD_A_BALLAST], stdout=subprocess.PIPE, check=True)
    assert int(done.stdout) == pytest.approx(20_000_000, rel=0.25)


def test_a_process_that_cannot_be_read_has_no_size() -> None:
    assert private_bytes(2**22 + 1) is None
