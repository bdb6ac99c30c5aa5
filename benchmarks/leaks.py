"""How often a leak of a size is found, and how often an executor without one is accused.

    python -m benchmarks.leaks [--runs 100] [--sizes 0,4096,16384,65536] [--loads none,busy]
        [--write docs/leaks.md]

Each run is a whole judgement of ``memory.workers-reach-a-plateau``, on workers that lose so many bytes with
each task.  The machine's load and the sizes take turns.
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
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.stability import LOADS, load_of
from fixtures.legal.persistent import PersistentWorkers, Worker, serve

_RULE = "memory.workers-reach-a-plateau"


class LeakyWorkers(PersistentWorkers):
    """Its workers lose ``leak`` bytes with each task."""

    def __init__(self, parallelism: int = 2, leak: int = 0) -> None:
        super().__init__(parallelism)
        self._leak = leak

    def _new_worker(self) -> Worker:
        leak = self._leak

        def leaking(pipe: connection.Connection, host: int) -> None:
            kept: list[bytes] = []
            receive = pipe.recv

            class Leaking:
                def recv(self) -> Any:
                    kept.append(os.urandom(leak))
                    return receive()

                def __getattr__(self, name: str) -> Any:
                    return getattr(pipe, name)

            serve(Leaking(), host)  # type: ignore[arg-type]

        return Worker(get_context("fork"), leaking)


def main() -> None:
    """Run, count, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100, help="of each size beside each load")
    parser.add_argument("--sizes", default="0,4096,16384,65536", help="bytes a task")
    parser.add_argument("--loads", default="none,busy", help=f"of {', '.join(LOADS)}")
    parser.add_argument("--write", type=Path, help="a Markdown file")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    loads = options.loads.split(",")
    counts: dict[tuple[int, str], collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for number in range(options.runs):
        for load, size in itertools.product(loads, sizes):
            with load_of(load):
                verdict = judge(size)
            counts[size, load][verdict] += 1
            print(f"{number + 1:4} {load:6} {size:7} bytes a task: {verdict}", file=sys.stderr, flush=True)
    text = document(sizes, loads, counts, options.runs)
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
) -> str:
    """A table: how many of the runs failed, by size and load."""
    lines = [
        "# Leaks found",
        "",
        "<!-- written by `python -m benchmarks.leaks --write docs/leaks.md`; do not edit -->",
        "",
        f"`{_RULE}`, {runs} runs of each; Python {platform.python_version()}, {os.cpu_count()} processors.",
        "The load is what the benchmark starts beside it; the machine may have had other work.",
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
