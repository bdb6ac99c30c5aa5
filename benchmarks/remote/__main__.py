"""What it costs to launch and to watch remote jobs on one core, with the reference, its peers and the limit.

    python -m benchmarks.remote [--jobs 1000] [--rounds 3] [--airflow3 PYTHON] [--only NAME ...]
        [--write docs/remote]

In each round every contender runs once, in a process of its own that stays on one core, against a fresh
server of the Batch API on another, which lets the same jobs last as long and end as they did for the others.
Prints medians over the rounds, their spread, and ratios of the same round; ``--write`` leaves ``.md``,
``.json`` and (with matplotlib) ``.svg``.  The interpreter of ``--airflow3`` has to have aiobotocore, too.
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
from examples.batch.conduct import Conduct

#: Of the jobs, so many fail, and are waited for like the others.
_FAIL = 0.02
#: Of a line of text, in letters.
_WIDTH = 118


def main() -> None:
    """Run, print, and write."""
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
    conduct = Conduct(seed=options.seed, seconds=options.seconds, fail=_FAIL)
    work = Work("", options.jobs, options.interval, options.threads, cores.measured)
    load = os.getloadavg()[0]
    costs = launch_and_watch(contenders, pythons, options.rounds, conduct, work, cores)
    held = hold(options.rounds, options.sleepers, options.look, cores)
    text = "\n".join(
        [
            "# Remote jobs on one core",
            "",
            "<!-- written by `python -m benchmarks.remote --write docs/remote`; do not edit -->",
            "",
            _paragraph(
                f"{machine()}; load {load:.1f} before and {os.getloadavg()[0]:.1f} after, this benchmark's "
                f"own included. Medians of {options.rounds} interleaved rounds, with the smallest and the "
                "largest; ratios are of the same round. Each contender has a process of its own on one "
                "core, and the service is on another."
            ),
            "",
            "## Launched and watched",
            "",
            _paragraph(
                f"{options.jobs:,} jobs that last {options.seconds / 2:g} to {1.5 * options.seconds:g} s, "
                f"each asked after every {options.interval:g} s. The thread pool has {options.threads} "
                "threads; everybody else has a task, or a trigger, for each job. CPU is user and system, of "
                "the client's processes. Memory is the growth from before the first submission to the "
                "peak, for each of the jobs that were under way at once."
            ),
            "",
            _paragraph(
                "Whoever asks for many jobs in one call has one watcher for all of them. `a poll each` is "
                "the reference without it, each task asking for its own job, as each thread does: what "
                "there is between it and the thread pool is the loop's, and the rest the watcher's."
            ),
            "",
            *report.costs(contenders, costs, options.jobs),
            "",
            f"## {options.sleepers:,} that sleep",
            "",
            _paragraph(
                "Coroutines that sleep, all at once. Memory and lag are while all of them do; the time to "
                "submit is from the first submission until the last one sleeps."
            ),
            "",
            *report.held(held),
            "",
            "## Aims",
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
    """What it was measured on, and with."""
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
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="a job lasts, give or take a half")
    parser.add_argument("--interval", type=float, default=2.0, help="seconds between two looks at a job")
    parser.add_argument("--threads", type=int, default=1000, help="of the thread pool")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sleepers", type=int, default=100_000)
    parser.add_argument("--look", type=float, default=5.0, help="seconds for which sleepers are looked at")
    parser.add_argument("--only", nargs="*", default=[], choices=[one.name for one in CONTENDERS])
    for name in sorted({one.interpreter for one in CONTENDERS if one.interpreter}):
        parser.add_argument(f"--{name}", metavar="PYTHON", help=f"of an environment with {name}")
    parser.add_argument("--write", type=Path, help="path without suffix")
    return parser.parse_args()


if __name__ == "__main__":
    main()
