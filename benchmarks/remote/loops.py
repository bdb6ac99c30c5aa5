"""Contenders with an event loop: the lower bound, and the reference on either kind of loop."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine

from benchmarks.remote.meters import Lags, Meter
from benchmarks.remote.work import HEARTBEAT_S, Cost, Work
from examples.batch.jobs import JobFailed, Jobs
from executor_reference import AsyncExecutor, TaskKey

_Coroutine = Callable[[], Coroutine[object, object, None]]


def task_group(work: Work) -> Cost:
    """Run each job as a plain task, without an executor: the lower bound for executors on asyncio."""
    return asyncio.run(_task_group(work))


async def _task_group(work: Work) -> Cost:
    lags = Lags()
    watch = asyncio.create_task(lags.watch())
    async with Jobs(work.endpoint, work.interval_s) as jobs:
        meter = Meter()
        ends = await _run_all([jobs.task(key) for key in work.keys])
        cost = meter.cost(lags)
    lags.stop()
    await watch
    assert len(ends) == work.jobs
    return cost


async def _run_all(functions: list[_Coroutine]) -> list[str | None]:
    """Run all functions; return why each failed, or ``None`` for success."""

    async def run(function: _Coroutine) -> str | None:
        try:
            await function()
        except JobFailed as reason:
            return str(reason)
        return None

    if sys.version_info < (3, 11):
        return list(await asyncio.gather(*map(run, functions)))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(function)) for function in functions]
    return [task.result() for task in tasks]


def reference(work: Work, kind: type[Jobs] = Jobs) -> Cost:
    """Run the jobs on the loop of the caller."""
    return asyncio.run(_reference(work, kind))


async def _reference(work: Work, kind: type[Jobs]) -> Cost:
    lags = Lags()
    watch = asyncio.create_task(lags.watch())
    ended = 0
    async with kind(work.endpoint, work.interval_s) as jobs, AsyncExecutor(work.jobs) as executor:
        meter = Meter()
        for key in work.keys:
            executor.execute_async(key, jobs.task(key))
        while ended < work.jobs:
            await asyncio.sleep(HEARTBEAT_S)
            executor.heartbeat()
            ended += len(executor.get_event_buffer())
        cost = meter.cost(lags)
    lags.stop()
    await watch
    return cost


def reference_own_loop(work: Work) -> Cost:
    """Run the jobs on the executor's own loop; this thread is the scheduler, which calls ``sync()``."""
    lags = Lags()
    jobs = Jobs(work.endpoint, work.interval_s)
    executor = AsyncExecutor(work.jobs + 1)
    executor.start()
    opening, watching, closing = (TaskKey("remote", name, "run") for name in ("open", "watch", "close"))
    executor.execute_async(opening, jobs.open)
    assert asyncio.run(executor.wait(opening)) == ("success", None)
    executor.execute_async(watching, lags.watch)
    meter = Meter()
    for key in work.keys:
        executor.execute_async(key, jobs.task(key))
    ended = 0
    while ended < work.jobs:
        time.sleep(HEARTBEAT_S)
        executor.sync()
        ended += len(executor.get_event_buffer())
    cost = meter.cost(lags)
    lags.stop()
    executor.execute_async(closing, jobs.close)
    executor.end()
    return cost
