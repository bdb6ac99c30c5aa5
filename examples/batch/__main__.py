"""Launch and watch thousands of Batch jobs on one event loop, and hold the outcome against the truth.

    python -m examples.batch [--jobs 10000] [--fail 0.02] [--throttle 0.1] [--endpoint URL] [--core 0]

The server has a process of its own, on another core.  The exit status is 1 if a promise was broken: a job
lost, submitted or reported twice, or reported with another end than it had.
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

from examples.batch.conduct import Conduct, add_options, from_options
from examples.batch.jobs import Jobs
from examples.batch.meters import Meters
from examples.batch.process import served, truth_of
from examples.batch.progress import Progress
from examples.batch.run import Reports, broken_promises, keys_of, run_all
from executor_reference import AsyncExecutor, Limit, TaskKey

#: Of the broken promises, so many are told.
_TOLD = 10
#: What the rate allows within this time may start at once: of a whole second's worth the loop would feel it.
_BURST_S = 0.1


def main() -> int:
    """Run, print, and return the exit status."""
    options = _options()
    server_core = _pin(options.core)
    with ExitStack() as stack:
        own = options.endpoint is None
        endpoint = (
            stack.enter_context(served(from_options(options), server_core)) if own else options.endpoint
        )
        # Fates follow from names, so on our own server the same seed gives the same run.
        keys = keys_of(f"seed_{options.seed}" if own else uuid.uuid4().hex[:8], options.jobs)
        jobs, meters, reports = asyncio.run(_run(endpoint, keys, options))
        truth = truth_of(endpoint) if own else None
    _print(jobs, meters, reports, truth)
    broken = broken_promises(keys, reports, truth)
    if truth and truth["faults"]["throttled"] != jobs.calls.throttled:
        broken.append(f"{truth['faults']['throttled']} calls were throttled, {jobs.calls.throttled} repeated")
    for promise in broken[:_TOLD]:
        print("BROKEN:", promise)
    print(f"{len(broken)} promises were broken" if broken else "every promise was kept")
    return 1 if broken else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.batch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=500.0, help="submissions a second; default: 500")
    parser.add_argument("--interval", type=float, default=2.0, help="seconds between two looks at a job")
    parser.add_argument("--endpoint", metavar="URL", help="a server that runs; default: one of our own")
    parser.add_argument("--core", type=int, help="processor to stay on; the server gets another")
    add_options(parser, Conduct(seconds=120.0, fail=0.02, throttle=0.1, errors=0.01))
    return parser.parse_args()


def _pin(core: int | None) -> int | None:
    """Stay on one processor; returns another one, if there is."""
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
        f"{jobs.submitted:,} submitted, {jobs.under_way:,} under way, {counts['success']:,} succeeded, "
        f"{counts['failed']:,} failed, {jobs.calls.throttled:,} calls throttled",
    )


def _print(jobs: Jobs, meters: Meters, reports: Reports, truth: dict[str, Any] | None) -> None:
    counts = Counter(state for events in reports.values() for state, _ in events)
    total = max(1, len(reports))
    growth = meters.peak_growth
    lines = {
        "jobs in flight at peak": f"{truth['peak'] if truth else jobs.peak:,}",
        "succeeded, failed": f"{counts['success']:,}, {counts['failed']:,}",
        "throttled calls, repeated": f"{jobs.calls.throttled:,}",
        "errors of the service": f"{jobs.calls.doubtful:,}; {jobs.adopted:,} jobs adopted that had arrived",
        "time": f"{meters.seconds:.1f} s",
        "CPU": f"{meters.cpu_s:.2f} s, {1e6 * meters.cpu_s / total:.0f} us a job",
        "memory at peak": f"{growth / 2**20:.0f} MB more, {growth / total:,.0f} bytes a job",
        "loop lag": f"{1000 * meters.lag_s(0.5):.1f} ms p50, {1000 * meters.lag_s(0.99):.1f} ms p99, "
        f"{1000 * meters.lag_s(1):.1f} ms at most",
    }
    for name, value in lines.items():
        print(f"{name:28}{value}")


if __name__ == "__main__":
    sys.exit(main())
