"""Measures what it costs to hold sleeping coroutines, and prints it as JSON.

python -m benchmarks.remote.holding NAME --tasks 100000 --seconds 5 --core 0
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.remote.contenders import LIMIT, OWN_LOOP, REFERENCE
from benchmarks.remote.meters import Lags, memory
from executor_reference import AsyncExecutor, TaskKey

_SLEEP_S = 3600.0
#: How long the cancellation of 100,000 tasks may take, in seconds.
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Held:
    """The cost.

    :param submit_s: the time from the first submission until the last task sleeps, in seconds.
    :param memory: the growth of resident memory until all tasks sleep, in bytes per task.
    :param lag_p50_s: the median loop lag while all tasks sleep, in seconds.
    :param lag_p99_s: the 99th percentile of the loop lag while all tasks sleep, in seconds.
    """

    submit_s: float
    memory: float
    lag_p50_s: float
    lag_p99_s: float


class Sleepers:
    """Coroutines that sleep.

    :param tasks: how many.
    :param when_all: called on their loop as soon as all of them sleep.
    """

    def __init__(self, tasks: int, when_all: Callable[[], None]) -> None:
        self._awake = tasks
        self._when_all = when_all

    async def sleep(self) -> None:
        """Sleep until cancelled."""
        self._awake -= 1
        if not self._awake:
            self._when_all()
        await asyncio.sleep(_SLEEP_S)


class _Scale:
    """Measures time and memory from its construction on."""

    def __init__(self, tasks: int) -> None:
        self._tasks = tasks
        gc.collect()
        self._memory = memory("self", "VmRSS")
        self._began = time.monotonic()

    def all_sleep(self, lags: Lags) -> None:
        self._submit_s = time.monotonic() - self._began
        lags.clear()

    def held(self, lags: Lags) -> Held:
        grown = (memory("self", "VmRSS") - self._memory) / self._tasks
        return Held(self._submit_s, grown, lags.quantile(0.5), lags.quantile(0.99))


async def _by_task_group(tasks: int, seconds: float) -> Held:
    asleep = asyncio.Event()
    sleepers = Sleepers(tasks, asleep.set)
    lags = Lags()
    watch = asyncio.create_task(lags.watch())
    scale = _Scale(tasks)
    if sys.version_info < (3, 11):
        held = [asyncio.create_task(sleepers.sleep()) for _ in range(tasks)]
        found = await _observe(asleep, scale, lags, seconds)
        for task in held:
            task.cancel()
        await asyncio.wait(held)
    else:
        async with asyncio.TaskGroup() as group:
            held = [group.create_task(sleepers.sleep()) for _ in range(tasks)]
            found = await _observe(asleep, scale, lags, seconds)
            for task in held:
                task.cancel()
    lags.stop()
    await watch
    return found


async def _by_reference(tasks: int, seconds: float) -> Held:
    asleep = asyncio.Event()
    sleepers = Sleepers(tasks, asleep.set)
    lags = Lags()
    watch = asyncio.create_task(lags.watch())
    async with AsyncExecutor(tasks, patience_s=_PATIENCE_S) as executor:
        scale = _Scale(tasks)
        for number in range(tasks):
            executor.execute_async(_key(number), sleepers.sleep)
        found = await _observe(asleep, scale, lags, seconds)
        executor.terminate()
    lags.stop()
    await watch
    return found


async def _observe(asleep: asyncio.Event, scale: _Scale, lags: Lags, seconds: float) -> Held:
    await asleep.wait()
    scale.all_sleep(lags)
    await asyncio.sleep(seconds)
    return scale.held(lags)


def _by_own_loop(tasks: int, seconds: float) -> Held:
    asleep = threading.Event()
    sleepers = Sleepers(tasks, asleep.set)
    lags = Lags()
    executor = AsyncExecutor(tasks + 1, patience_s=_PATIENCE_S)
    executor.start()
    executor.execute_async(TaskKey("holding", "watch", "run"), lags.watch)
    scale = _Scale(tasks)
    for number in range(tasks):
        executor.execute_async(_key(number), sleepers.sleep)
    asleep.wait()
    scale.all_sleep(lags)
    time.sleep(seconds)
    found = scale.held(lags)
    executor.terminate()
    return found


def _key(number: int) -> TaskKey:
    return TaskKey("holding", f"task_{number}", "run")


HOLDERS: dict[str, Callable[[int, float], Held]] = {
    LIMIT: lambda tasks, seconds: asyncio.run(_by_task_group(tasks, seconds)),
    REFERENCE: lambda tasks, seconds: asyncio.run(_by_reference(tasks, seconds)),
    OWN_LOOP: _by_own_loop,
}


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=HOLDERS)
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="how long to measure the lag")
    parser.add_argument("--core", type=int, required=True)
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    json.dump(dataclasses.asdict(HOLDERS[options.name](options.tasks, options.seconds)), sys.stdout)


if __name__ == "__main__":
    main()
