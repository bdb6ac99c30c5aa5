"""Launches and watches thousands of Batch jobs on one event loop, and checks the outcome.

    python -m examples.batch [--jobs 10000] [--fail 0.02] [--throttle 0.1] [--endpoint URL] [--core 0]

The server runs in its own process, on another core.  The exit status is 1 if a job was lost, submitted or
reported twice, or reported with another outcome than it had.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import uuid
from collections import Counter
from contextlib import ExitStack
from typing import Any

from examples.batch.behavior import Behavior, add_options, from_options
from examples.batch.jobs import Jobs
from examples.batch.meters import Meters
from examples.batch.process import fetch_truth, run_server
from examples.batch.progress import Progress
from examples.batch.run import Reports, find_errors, make_keys, run_all
from executor_reference import AsyncExecutor, Limit, TaskKey

#: The most errors to print.
_MAX_ERRORS = 10
#: The period of the rate limit, in seconds.  A burst of a whole second would cause noticeable loop lag.
_BURST_S = 0.1


def main() -> int:
    """Run, print the result, and return the exit status."""
    options = _options()
    server_core = _pin(options.core)
    with ExitStack() as stack:
        own = options.endpoint is None
        endpoint = (
            stack.enter_context(run_server(from_options(options), server_core)) if own else options.endpoint
        )
        # Outcomes depend on the names, so with the simulated service the same seed repeats the run.
        keys = make_keys(f"seed_{options.seed}" if own else uuid.uuid4().hex[:8], options.jobs)
        jobs, meters, reports = asyncio.run(_run(endpoint, keys, options))
        truth = fetch_truth(endpoint) if own else None
    _print(jobs, meters, reports, truth)
    errors = find_errors(keys, reports, truth)
    if truth and truth["faults"]["throttled"] != jobs.calls.throttled:
        errors.append(f"{truth['faults']['throttled']} calls were throttled, {jobs.calls.throttled} repeated")
    for error in errors[:_MAX_ERRORS]:
        print("ERROR:", error)
    print(f"{len(errors)} errors" if errors else "all jobs were submitted and reported exactly once")
    return 1 if errors else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.batch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--jobs", type=int, default=10_000, help="default: 10000")
    parser.add_argument("--rate", type=float, default=500.0, help="submissions per second (default: 500)")
    parser.add_argument("--interval", type=float, default=2.0, help="polling interval of a job, in seconds")
    parser.add_argument(
        "--endpoint", metavar="URL", help="a running server (default: start the simulated service)"
    )
    parser.add_argument("--core", type=int, help="processor to run on; the server runs on another one")
    add_options(parser, Behavior(seconds=120.0, fail=0.02, throttle=0.1, errors=0.01))
    return parser.parse_args()


def _pin(core: int | None) -> int | None:
    """Run on one processor only; return another one, if there is one."""
    if core is None:
        return None
    others = sorted(os.sched_getaffinity(0) - {core})
    os.sched_setaffinity(0, {core})
    return others[0] if others else None


async def _run(
    endpoint: str, keys: list[TaskKey], options: argparse.Namespace
) -> tuple[Jobs, Meters, Reports]:
    progress = Progress(len(keys))
    limit = Limit(rate=max(1.0, options.rate * _BURST_S), per_s=_BURST_S)
    executor = AsyncExecutor(parallelism=len(keys), limits={"submit": limit})
    async with Jobs(endpoint, options.interval) as jobs, executor, Meters() as meters:
        reports = await run_all(
            executor, jobs, keys, lambda so_far: _show(progress, jobs, so_far) if progress.is_due else None
        )
    _show(progress, jobs, reports)
    progress.stop()
    return jobs, meters, reports


def _show(progress: Progress, jobs: Jobs, reports: Reports) -> None:
    counts = Counter(events[0][0] for events in reports.values())
    progress.show(
        len(reports),
        f"{jobs.submitted:,} submitted, {jobs.running:,} running, {counts['success']:,} succeeded, "
        f"{counts['failed']:,} failed, {jobs.calls.throttled:,} calls throttled",
    )


def _print(jobs: Jobs, meters: Meters, reports: Reports, truth: dict[str, Any] | None) -> None:
    counts = Counter(state for events in reports.values() for state, _ in events)
    total = max(1, len(reports))
    growth = meters.peak_growth
    lines = {
        "jobs in flight at peak": f"{truth['peak'] if truth else jobs.peak:,}",
        "succeeded, failed": f"{counts['success']:,}, {counts['failed']:,}",
        "throttled calls, retried": f"{jobs.calls.throttled:,}",
        "service errors": f"{jobs.calls.unknown_outcomes:,}; {jobs.adopted:,} jobs found afterwards",
        "time": f"{meters.seconds:.1f} s",
        "CPU": f"{meters.cpu_s:.2f} s, {1e6 * meters.cpu_s / total:.0f} us per job",
        "memory at peak": f"{growth / 2**20:.0f} MB more, {growth / total:,.0f} bytes per job",
        "loop lag": f"{1000 * meters.lag_s(0.5):.1f} ms p50, {1000 * meters.lag_s(0.99):.1f} ms p99, "
        f"{1000 * meters.lag_s(1):.1f} ms at most",
    }
    for name, value in lines.items():
        print(f"{name:28}{value}")


if __name__ == "__main__":
    sys.exit(main())
