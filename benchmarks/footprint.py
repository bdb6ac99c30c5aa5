"""Measures the memory of the reference (host, workers, queued tasks) and its wake-ups when idle.

    python -m benchmarks.footprint [--start-method snapshot,forkserver,fork,spawn] [--write docs/footprint.md]

Each figure is measured in its own process.  Memory means private pages (smaps_rollup).
"""

from __future__ import annotations

import argparse
import functools
import gc
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import weigh
from executor_conformance.harness.memory import MB, ballast, private_bytes
from executor_reference import LocalExecutor, TaskKey

_HEAP = 500 * MB
_TASKS, _BATCH, _WAITING, _IDLE_S = 10_000, 500, 1_000_000, 10.0


def run(executor: LocalExecutor, commands: list[Callable[[], None]], first: int = 0) -> None:
    """Run all commands, and wait until they have ended."""
    for number, command in enumerate(commands, first):
        executor.execute_async(TaskKey("footprint", "task", f"run-{number}"), command)
    while executor.slots_occupied:
        executor.sync()
        time.sleep(0.001)
    failed = [event for event in executor.get_event_buffer().values() if event[0] != "success"]
    assert not failed, failed[0]


def of_workers(executor: LocalExecutor) -> int:
    """Return the private memory of all descendants of this process, in bytes."""
    return sum(private_bytes(child.pid) or 0 for child in psutil.Process().children(recursive=True))


def worker(method: str) -> str:
    """Measure the private memory of a task after a garbage collection, with 500 MB in the host."""
    held = ballast(_HEAP)
    executor = LocalExecutor(2, method)
    executor.start()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "bytes")
        run(executor, [functools.partial(weigh.weigh, path)] * 10)
        sizes = [int(line) / 1024 for line in Path(path).read_text().split()]
    executor.end()
    del held
    return f"{max(sizes):.1f} MB"


def growth(method: str) -> str:
    """Measure the growth of the host and of its helper processes, over 10,000 tasks."""
    executor = LocalExecutor(2, method)
    executor.start()
    count = _TASKS if method != "spawn" else _TASKS // 10
    for first in range(
        0, 2 * _BATCH, _BATCH
    ):  # the same batches as below, so all tables have their final size
        run(executor, [weigh.nothing] * _BATCH, first)
    gc.collect()
    host, others = private_bytes() or 0, of_workers(executor)
    for first in range(0, count, _BATCH):
        run(executor, [weigh.nothing] * _BATCH, first)
    gc.collect()
    grown = (private_bytes() or 0) - host, of_workers(executor) - others
    executor.end()
    return f"{grown[0] / count:.0f} and {grown[1] / count:.0f} ({count:,} tasks)"


def waiting(method: str) -> str:
    """Measure the memory of a queued task, over a million of them."""
    executor = LocalExecutor(1, method)
    executor.start()
    executor.execute_async(TaskKey("footprint", "first", "run"), ["sleep", "600"])
    gc.collect()
    before = private_bytes() or 0
    for number in range(_WAITING):
        executor.queue_command(TaskKey("footprint", "task", f"run-{number}"), ["true"])
    after = private_bytes() or 0
    executor.terminate()
    return f"{(after - before) / _WAITING:.0f}"


def wake_ups(method: str) -> str:
    """Measure context switches of the host and its helper processes, in ten seconds without a call."""
    executor = LocalExecutor(2, method)
    executor.start()
    run(executor, [weigh.nothing] * 10)
    processes = [child for child in psutil.Process().children(recursive=True) if child.is_running()]
    time.sleep(1.0)
    before = [sum(process.num_ctx_switches()) for process in processes]
    own = sum(psutil.Process().num_ctx_switches())
    time.sleep(_IDLE_S)  # this sleep itself causes one switch
    own = sum(psutil.Process().num_ctx_switches()) - own
    others = sum(sum(process.num_ctx_switches()) for process in processes) - sum(before)
    executor.end()
    return f"{own} and {others}"


_FIGURES = {
    "memory of a task after a garbage collection, with 500 MB in the host": worker,
    "growth of the host and of its helpers, bytes per task": growth,
    "a queued task with its key and command, bytes": waiting,
    "context switches of the host and of its helpers in 10 s at rest": wake_ups,
}


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--start-method", default="snapshot,forkserver,fork,spawn", help="comma-separated")
    parser.add_argument("--figure", help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, help="write the table to this Markdown file")
    options = parser.parse_args()
    if options.figure:
        print(_FIGURES[options.figure](options.start_method))
        return
    methods = options.start_method.split(",")
    command = [sys.executable, "-m", "benchmarks.footprint"]
    lines = [
        "# Footprint of the reference",
        "",
        "<!-- written by `python -m benchmarks.footprint --write docs/footprint.md`; do not edit -->",
        "",
        f"{os.cpu_count()} processors, Python {platform.python_version()}, {platform.platform()}.",
        "Memory is private pages. Helpers are the processes that the executor keeps between tasks. The",
        "measurement itself causes one context switch of the host.",
        "",
        "| | " + " | ".join(methods) + " |",
        "|---|" + "---|" * len(methods),
    ]
    for name in _FIGURES:
        cells = [
            subprocess.run(
                [*command, f"--start-method={method}", f"--figure={name}"],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                cwd=Path(__file__).resolve().parents[1],
            ).stdout.strip()
            for method in methods
        ]
        print(name, *cells, sep="\n  ", flush=True)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if options.write:
        options.write.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
