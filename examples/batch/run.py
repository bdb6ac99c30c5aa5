"""A minimal scheduler: submits all jobs, collects the events, and compares them with what really happened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from examples.batch.jobs import Jobs, job_name
from executor_reference import AsyncExecutor, TaskKey

Event = tuple[str, "str | None"]
Reports = dict[TaskKey, list[Event]]

_HEARTBEAT_S = 0.1


def make_keys(run: str, jobs: int) -> list[TaskKey]:
    """Return a key for each job."""
    return [TaskKey("example", f"job_{number}", run) for number in range(jobs)]


async def run_all(
    executor: AsyncExecutor,
    jobs: Jobs,
    keys: Collection[TaskKey],
    on_heartbeat: Callable[[Reports], None] = lambda reports: None,
) -> Reports:
    """Run the job of every key, and close the executor.

    :param on_heartbeat: called with the events so far, after each heartbeat.
    :returns: key -> all its events.  There should be exactly one.
    """
    reports: Reports = {}

    def collect() -> None:
        executor.heartbeat()
        for key, event in executor.get_event_buffer().items():
            reports.setdefault(key, []).append(event)
        on_heartbeat(reports)

    for key in keys:
        executor.execute_async(key, jobs.task(key), queue="submit")
    while executor.slots_occupied:
        await asyncio.sleep(_HEARTBEAT_S)
        collect()
    await executor.aclose()
    collect()
    return reports


def find_errors(keys: Collection[TaskKey], reports: Reports, truth: dict[str, Any] | None) -> list[str]:
    """Return a description of each error: a job that was lost, or submitted or reported wrongly.

    :param truth: what :func:`~examples.batch.process.fetch_truth` returned; ``None``: check only the events.
    """
    errors = _report_errors(keys, reports)
    if truth is None:
        return errors
    submitted: dict[str, list[tuple[str, str | None]]] = truth["jobs"]
    for key in keys:
        ends = submitted.get(job_name(key), [])
        if len(ends) != 1:
            errors.append(f"{job_name(key)} was submitted {len(ends)} times")
        elif [_expected(*ends[0])] != reports.get(key, [])[:1]:
            errors.append(f"{job_name(key)} ended as {ends[0]}, but was reported as {reports.get(key)}")
    stray = submitted.keys() - {job_name(key) for key in keys}
    errors += [f"{name} was submitted without a task" for name in sorted(stray)]
    return errors


def _report_errors(keys: Collection[TaskKey], reports: Reports) -> list[str]:
    lost = [f"{job_name(key)} was lost" for key in keys if key not in reports]
    return lost + [
        f"{job_name(key)} was reported {len(events)} times"
        for key, events in reports.items()
        if len(events) > 1
    ]


def _expected(status: str, reason: str | None) -> Event:
    return ("success", None) if status == "SUCCEEDED" else ("failed", f"JobFailed: {reason}")
