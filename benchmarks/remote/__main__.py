"""Measures the cost of launching and watching remote jobs on one core: the reference and its alternatives.

    python -m benchmarks.remote [--jobs 1000] [--rounds 3] [--airflow3 PYTHON] [--only NAME ...]
        [--write docs/remote]

In each round every contender runs once, in its own process on one core, against a new server of the Batch API
on another core.  Durations and outcomes of the jobs are the same for all contenders.  It prints medians over
the rounds, their spread, and ratios within the same round.  With --write it writes .md, .json and (with
matplotlib) .svg.  The interpreter given by --airflow3 needs aiobotocore too.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import textwrap
from pathlib import Path

from benchmarks.remote import report
from benchmarks.remote.contenders import CONTENDERS
from benchmarks.remote.rounds import Cores, hold, launch_and_watch
from benchmarks.remote.work import Work
from examples.batch.behavior import Behavior

#: The share of jobs that fail.
_FAIL = 0.02
#: The width of the Markdown text, in characters.
_WIDTH = 118


def main() -> None:
    """Run, print, and write the results."""
    options = _options()
    contenders = [
        one
        for one in CONTENDERS
        if (not one.interpreter or getattr(options, one.interpreter))
        and (not options.only or one.name in options.only)
    ]
    pythons = {
        one.name: getattr(options, one.interpreter or "", None) or sys.executable for one in contenders
    }
    cores = Cores.here()
    behavior = Behavior(seed=options.seed, seconds=options.seconds, fail=_FAIL)
    work = Work("", options.jobs, options.interval, options.threads, cores.measured)
    load = os.getloadavg()[0]
    costs = launch_and_watch(contenders, pythons, options.rounds, behavior, work, cores)
    held = hold(options.rounds, options.sleepers, options.look, cores)
    text = "\n".join(
        [
            "# Remote jobs on one core",
            "",
            "<!-- written by `python -m benchmarks.remote --write docs/remote`; do not edit -->",
            "",
            _paragraph(
                f"{machine()}. Load average {load:.1f} before and {os.getloadavg()[0]:.1f} after, with this "
                f"benchmark included. Medians of {options.rounds} interleaved rounds, with minimum and "
                "maximum; ratios are from the same round. Each client runs in a process of its own on one "
                "core. The server runs on another core."
            ),
            "",
            "## Launch and watch jobs",
            "",
            _paragraph(
                f"{options.jobs:,} jobs that take {options.seconds / 2:g} to {1.5 * options.seconds:g} s. "
                f"Each job is polled every {options.interval:g} s. The thread pool has {options.threads} "
                "threads; all other clients have one task, or one trigger, per job. CPU is the user and "
                "system time of the client's processes. Memory is the growth from before the first "
                "submission to the peak, divided by the number of jobs in flight at that time."
            ),
            "",
            _paragraph(
                "Clients that poll many jobs in one call have one watcher for all of them. In `reference, "
                "one poll per job`, there is no watcher: each task polls its own job, as each thread does. "
                "The difference between it and the thread pool is the gain of the event loop; the rest is "
                "the gain of the watcher."
            ),
            "",
            *report.costs(contenders, costs, options.jobs),
            "",
            f"## {options.sleepers:,} sleeping coroutines",
            "",
            _paragraph(
                "Memory and lag are measured while all coroutines sleep. The time to submit runs from the "
                "first submission until the last coroutine sleeps."
            ),
            "",
            *report.held(held),
            "",
            "## Goals",
            "",
            *report.aims(costs, options.jobs, options.threads),
            "",
        ]
    )
    print(text)
    if options.write:
        options.write.with_suffix(".md").write_text(text, encoding="utf-8")
        numbers = {name: value for name, value in vars(options).items() if isinstance(value, (int, float))}
        found = {"machine": machine(), "options": numbers, "launched": costs, "held": held}
        options.write.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        report.plot(costs, options.jobs, options.write.with_suffix(".svg"))


def _paragraph(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def machine() -> str:
    """Describe the machine and the versions of the libraries."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("aiobotocore", "botocore"))
    loop = "uvloop for loops of the reference's own" if importlib.util.find_spec("uvloop") else "no uvloop"
    return (
        f"{os.cpu_count()} processors, Python {platform.python_version()}, {platform.platform()}, "
        f"{versions}, {loop}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.remote",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--jobs", type=int, default=1000, help="default: 1000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        help="average duration of a job; the actual one differs by up to 50 %%",
    )
    parser.add_argument("--interval", type=float, default=2.0, help="polling interval of a job, in seconds")
    parser.add_argument("--threads", type=int, default=1000, help="size of the thread pool")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sleepers", type=int, default=100_000, help="number of sleeping coroutines")
    parser.add_argument(
        "--look", type=float, default=5.0, help="how long to measure the lag of sleepers, in seconds"
    )
    parser.add_argument("--only", nargs="*", default=[], choices=[one.name for one in CONTENDERS])
    for name in sorted({one.interpreter for one in CONTENDERS if one.interpreter}):
        parser.add_argument(f"--{name}", metavar="PYTHON", help=f"interpreter of an environment with {name}")
    parser.add_argument("--write", type=Path, help="path of the results, without suffix")
    return parser.parse_args()


if __name__ == "__main__":
    main()
