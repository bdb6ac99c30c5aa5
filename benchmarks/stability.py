"""Counts false verdicts: runs the suite repeatedly on conformant executors, under load.

    python benchmarks/stability.py --runs 100
    python benchmarks/stability.py --runs 20 --loads none,busy executor_reference:LocalExecutor -- -n 2

The runs are distributed over the executors (by default, the reference with three start methods and every
executor in ``fixtures/legal``) and over the loads.  Each failure is a false positive.  Inconclusive rules are
counted too.  It prints one line per run and the rates at the end.  The exit status is 1 if any rule failed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from fixtures import specimens  # noqa: E402

_SPIN = "while True: pass"
_FORK = """\
import os
while True:
    pids = [os.fork() or os._exit(0) for _ in range(8)]
    for pid in pids:
        os.waitpid(pid, 0)
"""
#: The name of a load -> the scripts that run at the same time as the suite.
LOADS = {"none": [], "busy": [_SPIN, _SPIN], "forking": [_FORK, _FORK], "both": [_SPIN, _SPIN, _FORK]}
_WRONG = ("failed", "blocked")


def main() -> int:
    """Run, count, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("executors", nargs="*", metavar="MODULE:CLASS[,KEY=VALUE...]")
    parser.add_argument("--runs", type=int, default=100, help="total number of runs (default: 100)")
    parser.add_argument(
        "--loads", default="busy,forking,both", help=f"comma-separated, from: {', '.join(LOADS)}"
    )
    arguments, rest = _split(sys.argv[1:])
    options = parser.parse_args(arguments)
    unknown = set(options.loads.split(",")) - set(LOADS)
    if unknown:
        parser.error(f"unknown load {', '.join(sorted(unknown))}; choose from {', '.join(LOADS)}")
    executors = options.executors or [
        *(f"executor_reference:LocalExecutor,start_method={mode}" for mode in ("fork", "spawn", "snapshot")),
        *(specimen.target for specimen in specimens.legal()),
    ]
    loads = options.loads.split(",")
    counts: collections.Counter[str] = collections.Counter()
    durations: dict[str, list[float]] = collections.defaultdict(list)
    # Consecutive runs use different executors; each executor gets every load.
    pairs = itertools.cycle((executor, load) for load in loads for executor in executors)
    for number, (executor, load) in enumerate(itertools.islice(pairs, options.runs), 1):
        verdicts, duration = judge(executor, rest, load)
        durations[load].append(duration)
        counts.update(verdicts.values())
        print(f"{number:4} {load:8} {duration:6.1f} s  {executor}: {summary(verdicts)}", flush=True)
    for load, values in durations.items():
        median, longest = statistics.median(values), max(values)
        print(f"{load}: {len(values)} runs, median {median:.1f} s, longest {longest:.1f} s")
    wrong = sum(counts[verdict] for verdict in _WRONG)
    judged = counts["passed"] + counts["inconclusive"] + wrong
    rate = counts["inconclusive"] / judged if judged else 0.0
    print(
        f"{options.runs} runs, {sum(counts.values())} verdicts: {wrong} false, "
        f"{counts['inconclusive']} inconclusive ({rate:.2%} of the applicable ones)"
    )
    return 1 if wrong else 0


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split the arguments: those of this script, and those of pytest, after ``--``."""
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


@contextlib.contextmanager
def load_of(name: str) -> Iterator[None]:
    """Run a load until the context ends."""
    loops = [subprocess.Popen([sys.executable, "-c", code], start_new_session=True) for code in LOADS[name]]
    try:
        yield
    finally:
        for loop in loops:
            os.killpg(loop.pid, 9)
            loop.wait()


def judge(executor: str, arguments: list[str], load: str) -> tuple[dict[str, str], float]:
    """Run the suite once; return the verdict of each rule, and the duration in seconds."""
    target, *options = executor.split(",")
    with load_of(load), tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        began = time.monotonic()
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
                *(f"--executor={target}", f"--conformance-report={report}", "--conformance-time-limit=900"),
                *(f"--executor-option={option}" for option in options),
                *arguments,
            ],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        duration = time.monotonic() - began
        if not report.exists():
            raise SystemExit(f"no report was written:\n{done.stdout}")
        rules = json.loads(report.read_text())["rules"]
    for rule in rules:
        if rule["verdict"] in (*_WRONG, "inconclusive"):
            print(f"    {rule['verdict']} {rule['id']}: {rule['message'][:300]}")
    return {rule["id"]: rule["verdict"] for rule in rules}, duration


def summary(found: dict[str, str]) -> str:
    """Return how many rules got each verdict."""
    counts = collections.Counter(found.values())
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(main())
