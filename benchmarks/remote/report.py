"""The tables, the goals and the plot."""

from __future__ import annotations

import operator
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.remote.contenders import LIMIT, OWN_LOOP, REFERENCE, THREADS, Contender
from benchmarks.remote.rounds import Rounds

Figures = dict[str, float]
Figure = Callable[[Figures], float]

_KB = 1024


def costs(contenders: Sequence[Contender], rounds: Rounds, jobs: int) -> list[str]:
    """Return a table with a row for each contender."""
    return [
        "| client | jobs per poll | jobs/s | CPU per job, µs | jobs per CPU second | relative to TaskGroup "
        "| relative to threads | bytes per waiting job | jobs waiting at once | loop lag p99, ms |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        *(
            _row(
                one.name,
                str(one.jobs_per_call),
                _spread(rounds[one.name], lambda found: jobs / found["seconds"]),
                _spread(rounds[one.name], lambda found: 1e6 * found["cpu_s"] / jobs),
                _spread(rounds[one.name], _jobs_per_core_second(jobs)),
                _shown(_ratio(rounds, one.name, LIMIT, _jobs_per_core_second(jobs))),
                _shown(_ratio(rounds, one.name, THREADS, _jobs_per_core_second(jobs))),
                _spread(rounds[one.name], _memory),
                _spread(rounds[one.name], lambda found: found["peak"]),
                _lag(rounds[one.name], "lag_p99_s"),
            )
            for one in contenders
            if any(rounds.get(one.name, []))
        ),
    ]


def held(rounds: Rounds) -> list[str]:
    """Return a table with a row for each way to hold sleeping tasks."""
    return [
        "| client | bytes per task | loop lag p50, ms | loop lag p99, ms | time to submit, s "
        "| relative to TaskGroup |",
        "|---|---:|---:|---:|---:|---:|",
        *(
            _row(
                name,
                _spread(rounds[name], lambda found: found["memory"]),
                _lag(rounds[name], "lag_p50_s"),
                _lag(rounds[name], "lag_p99_s"),
                _spread(rounds[name], lambda found: found["submit_s"], 2),
                _shown(_ratio(rounds, name, LIMIT, lambda found: found["submit_s"])),
            )
            for name in (LIMIT, REFERENCE, OWN_LOOP)
            if any(rounds.get(name, []))
        ),
    ]


def aims(rounds: Rounds, jobs: int, threads: int) -> list[str]:
    """Return a list with the result for each goal and kind of loop.

    :param threads: the size of the thread pool.  With one thread per job it is as fast as the others, and
        only costs more.
    """
    lines = []
    for name in (REFERENCE, OWN_LOOP):
        core_seconds = _jobs_per_core_second(jobs)
        more = _median_of_rounds(rounds, name, LIMIT, lambda one, base: (_memory(one) - _memory(base)) / _KB)
        results = [
            (
                _ratio(rounds, name, LIMIT, core_seconds),
                "of TaskGroup's jobs per CPU second",
                0.9,
                operator.ge,
            ),
            (more, "KB per waiting job more than TaskGroup", 12, operator.lt),
            (
                _ratio(rounds, name, THREADS, core_seconds),
                "times the threads' jobs per CPU second",
                10,
                operator.ge,
            ),
        ]
        if threads < jobs:
            at_once = _ratio(rounds, name, THREADS, lambda found: jobs / found["seconds"])
            results.append((at_once, "times the threads' jobs/s, each on one core", 10, operator.ge))
        for value, text, aim, is_met in results:
            if value is None:
                lines.append(f"- {name}: {text}: not measured")
                continue
            sign = "less than" if is_met is operator.lt else "at least"
            outcome = "met" if is_met(value, aim) else "missed"
            lines.append(f"- {name}: {value:.2f} {text}; the goal was {sign} {aim:g}: **{outcome}**")
    return lines


def plot(rounds: Rounds, jobs: int, path: Path) -> None:
    """Plot the jobs per core-second as bars, on a logarithmic scale."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no plot: matplotlib is not installed (pip install '.[bench]')", file=sys.stderr)
        return
    rate = _jobs_per_core_second(jobs)
    bars = sorted(
        (statistics.median(map(rate, filter(None, found))), name)
        for name, found in rounds.items()
        if any(found)
    )
    figure, axes = pyplot.subplots(figsize=(8, 0.35 * len(bars) + 1), layout="constrained")
    axes.barh([name for _, name in bars], [value for value, _ in bars])
    axes.set_xscale("log")
    axes.set_xlabel("jobs launched and watched per CPU second")
    figure.savefig(path)


def _jobs_per_core_second(jobs: int) -> Figure:
    return lambda found: jobs / found["cpu_s"]


def _memory(found: Figures) -> float:
    return found["growth"] / found["peak"]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _spread(rounds: Sequence[Figures | None], figure: Figure, digits: int = 0) -> str:
    values = [figure(found) for found in rounds if found]
    low, high = min(values), max(values)
    return f"{statistics.median(values):,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def _lag(rounds: Sequence[Figures | None], field: str) -> str:
    if any(found and found[field] is None for found in rounds):
        return ""
    return _spread(rounds, lambda found: 1000 * found[field], 1)


def _median_of_rounds(
    rounds: Rounds, name: str, base: str, compare: Callable[[Figures, Figures], float]
) -> float | None:
    """Return the median over the rounds of a comparison within each round."""
    pairs = zip(rounds.get(name, []), rounds.get(base, []), strict=False)
    values = [compare(one, other) for one, other in pairs if one and other]
    return statistics.median(values) if values else None


def _ratio(rounds: Rounds, name: str, base: str, figure: Figure) -> float | None:
    return _median_of_rounds(rounds, name, base, lambda one, other: figure(one) / figure(other))


def _shown(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"
