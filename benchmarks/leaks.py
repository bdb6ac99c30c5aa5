"""How often a leak of a size is found, and how often an executor without one is accused.

    python -m benchmarks.leaks [--runs 100] [--sizes 0,2048,4096,16384] [--loads none,busy]
        [--at-once 2] [--write docs/leaks.md]

Each run is a whole judgement of ``memory.workers-reach-a-plateau``, on workers that lose so many bytes with
each task.  The loads and the sizes take turns.
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

_RULE = "memory.workers-reach-a-plateau"


class LeakyWorkers(ProcessPoolExecutor):
    """Its workers lose ``leak`` bytes with each task."""

    def __init__(self, max_workers: int = 2, leak: int = 0) -> None:
        super().__init__(max_workers, get_context("fork"))
        self._leak = leak

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The task, in a worker that keeps something of each."""
        return super().submit(_leaking, self._leak, function, args, kwargs)


_kept: list[bytes] = []


def _leaking(leak: int, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    _kept.append(os.urandom(leak))
    return function(*args, **kwargs)


def main() -> None:
    """Run, count, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100, help="of each size beside each load")
    parser.add_argument("--sizes", default="0,2048,4096,16384", help="bytes a task")
    parser.add_argument("--loads", default="none,busy", help=f"of {', '.join(LOADS)}")
    parser.add_argument("--write", type=Path, help="a Markdown file")
    parser.add_argument("--at-once", type=int, default=2, help="runs side by side")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    loads = options.loads.split(",")
    counts: dict[tuple[int, str], collections.Counter[str]] = collections.defaultdict(collections.Counter)
    with ThreadPoolExecutor(options.at_once) as pool:
        for number, load in itertools.product(range(options.runs), loads):
            with load_of(load):
                for size, verdict in zip(sizes, pool.map(judge, sizes), strict=True):
                    counts[size, load][verdict] += 1
                    print(f"{number + 1:4} {load:6} {size:7} bytes a task: {verdict}", file=sys.stderr)
    text = document(sizes, loads, counts, options.runs, options.at_once)
    print(text)
    if options.write:
        options.write.write_text(text, encoding="utf-8")


def judge(size: int) -> str:
    """The verdict on workers with such a leak."""
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
    """A table: how many of the runs failed, by size and load."""
    lines = [
        "# Leaks found",
        "",
        "<!-- written by `python -m benchmarks.leaks --write docs/leaks.md`; do not edit -->",
        "",
        f"`{_RULE}`, {runs} runs of each, {at_once} at a time;",
        f"Python {platform.python_version()}, {os.cpu_count()} processors.",
        "The load is what the benchmark starts beside them; the machine may have had other work.",
        "",
        "| bytes a task | " + " | ".join(f"load: {load}" for load in loads) + " |",
        "|---:|" + "---|" * len(loads),
    ]
    for size in sizes:
        cells = []
        for load in loads:
            told = counts[size, load]
            others = "".join(f", {n} {name}" for name, n in told.items() if name not in ("passed", "failed"))
            cells.append(f"{told['failed']} of {runs} failed{others}")
        lines.append(f"| {size} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
