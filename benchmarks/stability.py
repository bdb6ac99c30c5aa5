"""Counts verdicts that change: the suite on one executor again and again, idle and beside busy loops.

    python benchmarks/stability.py --runs 10 --busy-runs 10 executor_reference:LocalExecutor -- -n 2

Every run is compared with the verdicts that most runs gave.  For an executor that keeps every promise, each
verdict of ``failed`` is a false alarm.  Prints one line a run, and a table of changed verdicts at the end;
the exit status is 1 if there is any.
"""

from __future__ import annotations

import argparse
import collections
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_PYTEST = [sys.executable, "-m", "pytest", "-q"]


def main() -> int:
    """Run and compare; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("executor", metavar="MODULE:CLASS")
    parser.add_argument("--runs", type=int, default=10, help="on the machine as it is")
    parser.add_argument("--busy-runs", type=int, default=10, help="beside the busy loops")
    parser.add_argument("--busy-loops", type=int, default=2)
    parser.add_argument("rest", nargs="*", metavar="-- PYTEST ARGUMENT")
    options = parser.parse_args()
    verdicts: list[dict[str, str]] = []
    durations: dict[bool, list[float]] = {False: [], True: []}
    for number in range(options.runs + options.busy_runs):
        busy = number >= options.runs
        found, duration = judge(options.executor, options.rest, options.busy_loops if busy else 0)
        verdicts.append(found)
        durations[busy].append(duration)
        print(
            f"run {number + 1:3} {'busy' if busy else 'idle'} {duration:6.1f} s {summary(found)}", flush=True
        )
    changed = report_changes(verdicts)
    for busy, values in durations.items():
        if values:
            name = "busy" if busy else "idle"
            print(f"{name}: median {statistics.median(values):.1f} s, longest {max(values):.1f} s")
    print(f"{len(verdicts)} runs, {sum(map(len, verdicts))} verdicts, {changed} changed")
    return 1 if changed else 0


def judge(executor: str, arguments: list[str], busy_loops: int) -> tuple[dict[str, str], float]:
    """One run: verdict by rule, and its seconds."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy_loops)]
    try:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder, "report.json")
            began = time.monotonic()
            done = subprocess.run(
                [*_PYTEST, f"--executor={executor}", f"--conformance-report={report}", *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            duration = time.monotonic() - began
            if not report.exists():
                raise SystemExit(f"no report was written:\n{done.stdout}")
            rules = json.loads(report.read_text())["rules"]
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    for rule in rules:
        if rule["verdict"] in ("failed", "inconclusive"):
            print(f"    {rule['verdict']} {rule['id']}: {rule['message'][:200]}")
    return {rule["id"]: rule["verdict"] for rule in rules}, duration


def summary(found: dict[str, str]) -> str:
    """How often each verdict was given."""
    counts = collections.Counter(found.values())
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))


def report_changes(verdicts: list[dict[str, str]]) -> int:
    """Print the rules whose verdict was not always the same; how many verdicts differ from the usual one."""
    changed = 0
    for rule in sorted({rule for found in verdicts for rule in found}):
        counts = collections.Counter(found.get(rule, "missing") for found in verdicts)
        if len(counts) > 1:
            changed += sum(counts.values()) - max(counts.values())
            print(f"changed: {rule}: {dict(counts)}")
    return changed


if __name__ == "__main__":
    sys.exit(main())
