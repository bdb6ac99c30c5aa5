"""Measures how often leaks of several sizes are detected, and the false-positive rate without a leak.

    python -m benchmarks.leaks [--runs 100] [--sizes 0,2048,4096,16384] [--loads none,busy]
        [--at-once 2] [--write docs/leaks.md]

Each run is one full run of memory.worker-memory-stops-growing, on workers that leak a fixed number of
bytes per task.  Loads and sizes alternate.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.stability import LOADS, load_of

_RULE = "memory.worker-memory-stops-growing"


class LeakyWorkers(ProcessPoolExecutor):
    """Its workers leak ``leak`` bytes per task."""

    def __init__(self, max_workers: int = 2, leak: int = 0) -> None:
        super().__init__(max_workers, get_context("fork"))
        self._leak = leak

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit the task to a worker that leaks."""
        return super().submit(_leaking, self._leak, function, args, kwargs)


_kept: list[bytes] = []


def _leaking(leak: int, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    _kept.append(os.urandom(leak))
    return function(*args, **kwargs)


def main() -> None:
    """Run, count, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100, help="runs per size and load")
    parser.add_argument("--sizes", default="0,2048,4096,16384", help="bytes per task")
    parser.add_argument("--loads", default="none,busy", help=f"comma-separated, from: {', '.join(LOADS)}")
    parser.add_argument("--write", type=Path, help="write the table to this Markdown file")
    parser.add_argument("--at-once", type=int, default=2, help="concurrent runs")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    loads = options.loads.split(",")
    counts: dict[tuple[int, str], collections.Counter[str]] = collections.defaultdict(collections.Counter)
    with ThreadPoolExecutor(options.at_once) as pool:
        for number, load in itertools.product(range(options.runs), loads):
            with load_of(load):
                for size, verdict in zip(sizes, pool.map(judge, sizes), strict=True):
                    counts[size, load][verdict] += 1
                    print(f"{number + 1:4} {load:6} {size:7} bytes per task: {verdict}", file=sys.stderr)
    text = document(sizes, loads, counts, options.runs, options.at_once)
    print(text)
    if options.write:
        options.write.write_text(text, encoding="utf-8")


def judge(size: int) -> str:
    """Return the verdict for workers that leak ``size`` bytes per task."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", _RULE),
                *("--executor=benchmarks.leaks:LeakyWorkers", f"--executor-option=leak={size}"),
                f"--conformance-report={report}",
            ],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if not report.exists():
            raise SystemExit(f"no report was written:\n{done.stdout}")
        rules = json.loads(report.read_text(encoding="utf-8"))["rules"]
    return next(str(rule["verdict"]) for rule in rules if rule["id"] == _RULE)


def document(
    sizes: list[int],
    loads: list[str],
    counts: dict[tuple[int, str], collections.Counter[str]],
    runs: int,
    at_once: int,
) -> str:
    """Return the table, as Markdown: how many runs failed, by size and load."""
    lines = [
        "# Leak detection",
        "",
        "<!-- written by `python -m benchmarks.leaks --write docs/leaks.md`; do not edit -->",
        "",
        f"How often `{_RULE}` fails for workers that leak the same number of",
        f"bytes with each task: {runs} runs per size and load, {at_once} at a time. Failures with 0 bytes",
        "are false positives. Under load `busy`, two other processes compute without a pause.",
        f"Python {platform.python_version()}, {os.cpu_count()} processors.",
        "",
        "| bytes leaked per task | " + " | ".join(f"load: {load}" for load in loads) + " |",
        "|---:|" + "---|" * len(loads),
    ]
    for size in sizes:
        cells = []
        for load in loads:
            found = counts[size, load]
            others = "".join(f", {n} {name}" for name, n in found.items() if name not in ("passed", "failed"))
            cells.append(f"{found['failed']} of {runs} failed{others}")
        lines.append(f"| {size} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
