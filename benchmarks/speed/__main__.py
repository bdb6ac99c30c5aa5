"""Compares the reference with other executors and with the limits of the machine.

    python -m benchmarks.speed [--rounds 7] [--heaps 0,150,500] [--only NAME ...] [--write docs/speed]
        [--airflow3 PYTHON]

In each round every contender runs once, in its own process and in random order, so other load on the machine
affects all of them.  It prints medians over the rounds, their spread, and ratios to the reference in the same
round.  With --write it writes .md, .json and (with matplotlib) .svg.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.speed.contenders import CONTENDERS, Contender

_ROOT = Path(__file__).resolve().parents[2]
_BASE = "reference, snapshot"


@dataclass(frozen=True)
class Figures:
    """The results of one contender with one heap size.  Each list has one value per round.

    :param p50: the median queued time, in microseconds.
    :param p95: the 95th percentile of the queued time, in microseconds.
    :param nothing: no-op tasks per second.
    :param ten: tasks per second that compute for 10 ms each.
    """

    p50: list[float]
    p95: list[float]
    nothing: list[float]
    ten: list[float]


def main() -> None:
    """Run, print, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--heaps", default="0,150,500", help="comma-separated sizes of the heap of the host, in MB"
    )
    parser.add_argument(
        "--only", nargs="*", default=[], help="only contenders whose name contains one of these"
    )
    for name in sorted({one.interpreter for one in CONTENDERS if one.interpreter}):
        parser.add_argument(
            f"--{name}", metavar="PYTHON", help=f"interpreter of an environment with {name} and the suite"
        )
    parser.add_argument("--write", type=Path, help="path of the results, without suffix")
    options = parser.parse_args()
    contenders = [
        one
        for one in CONTENDERS
        if (getattr(options, one.interpreter) if one.interpreter else one.is_installed)
        and (not options.only or any(part in one.name for part in options.only))
    ]
    heaps = [int(heap) for heap in options.heaps.split(",")]
    pythons = {
        one.name: getattr(options, one.interpreter or "", None) or sys.executable for one in contenders
    }
    figures = measure(contenders, heaps, options.rounds, pythons)
    text = document(contenders, heaps, figures, options.rounds)
    print(text)
    if options.write:
        options.write.with_suffix(".md").write_text(text, encoding="utf-8")
        named = {f"{name}; {heap} MB": vars(found) for (name, heap), found in figures.items()}
        options.write.with_suffix(".json").write_text(
            json.dumps({"machine": machine(), "figures": named}, indent=1) + "\n", encoding="utf-8"
        )
        plot(figures, heaps[0], options.write.with_suffix(".svg"))


def measure(
    contenders: list[Contender], heaps: list[int], rounds: int, pythons: Mapping[str, str]
) -> dict[tuple[str, int], Figures]:
    """Run all rounds."""
    found: dict[tuple[str, int], Figures] = defaultdict(lambda: Figures([], [], [], []))
    for number in range(rounds):
        jobs = [(one, heap) for one in contenders for heap in heaps]
        random.shuffle(jobs)
        for one, heap in jobs:
            print(f"round {number + 1}: {one.name}, {heap} MB", file=sys.stderr, flush=True)
            measured = _run(one, heap, pythons[one.name])
            if measured is None:
                continue
            times = sorted(measured["queued_s"])
            rates = measured["tasks_per_s"]
            figures = found[one.name, heap]
            figures.p50.append(statistics.median(times) * 1e6)
            figures.p95.append(times[int(0.95 * len(times))] * 1e6)
            figures.nothing.append(rates["nothing"])
            figures.ten.append(rates.get("ten_milliseconds", 0.0))
    return dict(found)


def _run(contender: Contender, heap: int, python: str) -> dict[str, Any] | None:
    done = subprocess.run(
        [
            *(python, "-m", "benchmarks.speed.one", contender.name),
            *(f"--heap={heap}", f"--tasks={contender.tasks}"),
        ],
        env={**os.environ, **contender.environment},
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)
        return None
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def machine() -> str:
    """Describe the machine."""
    return f"{os.cpu_count()} processors, Python {platform.python_version()}, {platform.platform()}"


def document(
    contenders: Iterable[Contender],
    heaps: list[int],
    figures: dict[tuple[str, int], Figures],
    rounds: int,
) -> str:
    """Return the tables, as Markdown."""
    lines = [
        "# Speed",
        "",
        "<!-- written by `python -m benchmarks.speed --write docs/speed`; do not edit -->",
        "",
        f"{machine()}.",
        "",
        f"Every executor has two slots. Medians of {rounds} interleaved rounds, with minimum and maximum.",
        f"Ratios are relative to `{_BASE}` in the same round. Queued time runs from the",
        "submission of a task to its first instruction. A 10 ms task computes for 10 ms.",
    ]
    for heap in heaps:
        lines += [
            "",
            f"## {heap} MB of objects in the host process",
            "",
            "| executor | process per task | queued time p50, µs | ratio | p95, µs "
            "| no-op tasks/s | ratio | 10 ms tasks/s |",
            "|---|---|---:|---:|---:|---:|---:|---:|",
        ]
        base = figures.get((_BASE, heap))
        for one in contenders:
            found = figures.get((one.name, heap))
            if found is None:
                continue
            own = "new interpreter" if one.interprets else "yes" if one.isolates else "no"
            cells = [
                one.name,
                own,
                _spread(found.p50),
                _ratio(found.p50, base.p50 if base else []),
                _spread(found.p95),
                _spread(found.nothing),
                _ratio(found.nothing, base.nothing if base else []),
                _spread(found.ten),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _spread(values: list[float]) -> str:
    if not any(values):
        return ""
    return f"{statistics.median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})"


def _ratio(values: list[float], base: list[float]) -> str:
    if len(values) != len(base) or not base:
        return ""
    return f"{statistics.median(value / of for value, of in zip(values, base, strict=True)):.2f}"


def plot(figures: dict[tuple[str, int], Figures], heap: int, path: Path) -> None:
    """Plot the queued times as bars, on a logarithmic scale."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no plot: matplotlib is not installed (pip install '.[bench]')", file=sys.stderr)
        return
    bars = sorted((statistics.median(found.p50), name) for (name, of), found in figures.items() if of == heap)
    figure, axes = pyplot.subplots(figsize=(8, 0.35 * len(bars) + 1), layout="constrained")
    axes.barh([name for _, name in bars], [value for value, _ in bars])
    axes.set_xscale("log")
    axes.set_xlabel(f"queued time p50, µs ({heap} MB in the host process)")
    figure.savefig(path)


if __name__ == "__main__":
    main()
