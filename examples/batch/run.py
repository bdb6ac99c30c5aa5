"""A scheduler in a few lines: submits all, collects what is reported, and compares it with the truth."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from examples.batch.jobs import Jobs, job_name
from executor_reference import AsyncExecutor, TaskKey

Event = tuple[str, "str | None"]
Reports = dict[TaskKey, list[Event]]

_HEARTBEAT_S = 0.1


def keys_of(run: str, jobs: int) -> list[TaskKey]:
    """A key for each job."""
    return [TaskKey("example", f"job_{number}", run) for number in range(jobs)]


async def run_all(
    executor: AsyncExecutor,
    jobs: Jobs,
    keys: Collection[TaskKey],
    look: Callable[[Reports], None] = lambda reports: None,
) -> Reports:
    """Have every key's job run, and stop the executor.

    :param look: is shown the reports so far, at each heartbeat.
    :returns: every report of every key; more than one would be one too many.
    """
    reports: Reports = {}

    def collect() -> None:
        executor.heartbeat()
        for key, event in executor.get_event_buffer().items():
            reports.setdefault(key, []).append(event)
        look(reports)

    for key in keys:
        executor.execute_async(key, jobs.task(key), queue="submit")
    while executor.slots_occupied:
        await asyncio.sleep(_HEARTBEAT_S)
        collect()
    await executor.aclose()
    collect()
    return reports


def broken_promises(keys: Collection[TaskKey], reports: Reports, truth: dict[str, Any] | None) -> list[str]:
    """In words; none if all was kept.

    :param truth: of our server; ``None``: nobody knows it, so only the reports can be judged.
    """
    broken = _by_reports(keys, reports)
    if truth is None:
        return broken
    there: dict[str, list[tuple[str, str | None]]] = truth["jobs"]
    for key in keys:
        ends = there.get(job_name(key), [])
        if len(ends) != 1:
            broken.append(f"{job_name(key)} was submitted {len(ends)} times")
        elif [_expected(*ends[0])] != reports.get(key, [])[:1]:
            broken.append(f"{job_name(key)} is {ends[0]}, and was reported as {reports.get(key)}")
    stray = there.keys() - {job_name(key) for key in keys}
    broken += [f"{name} was submitted by nobody" for name in sorted(stray)]
    return broken


def _by_reports(keys: Collection[TaskKey], reports: Reports) -> list[str]:
    lost = [f"{job_name(key)} was lost" for key in keys if key not in reports]
    return lost + [
        f"{job_name(key)} was reported {len(events)} times"
        for key, events in reports.items()
        if len(events) > 1
    ]


def _expected(status: str, reason: str | None) -> Event:
    return ("success", None) if status == "SUCCEEDED" else ("failed", f"JobFailed: {reason}")
