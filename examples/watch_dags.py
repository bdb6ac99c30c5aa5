"""A coroutine that never ends, beside programs that do: runs each DAG file of a folder whenever it changes.

    python -m examples.watch_dags FOLDER

The watch is itself a task, and submits to the executor that it runs on.  A DAG file is somebody else's code,
so it is run as a program: it blocks nobody's loop, and what it leaves behind is its own.  Interrupt it, and
everything stops.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from watchfiles import awatch

from executor_reference import AsyncExecutor, Limit, TaskKey

#: The key of the watch itself.
WATCH = TaskKey("dag_files", "watch", "once")
_QUEUE = "dag files"
_HEARTBEAT_S = 0.1

Event = tuple[str, "str | None"]


class Watch:
    """Submits a task for each DAG file that has changed, and at first for each that is there.

    :param look_ms: it looks so often though it was told of nothing, lest a change be missed that fell between
        the first look and the watch.
    """

    def __init__(self, folder: Path, executor: AsyncExecutor, look_ms: int = 5000) -> None:
        self._folder = folder
        self._executor = executor
        self._look_ms = look_ms
        self._seen: dict[Path, int] = {}
        self._changes: dict[Path, int] = {}

    async def run(self) -> None:
        """For ever."""
        self._submit_changed()
        async for _ in awatch(self._folder, rust_timeout=self._look_ms, yield_on_timeout=True):
            self._submit_changed()

    def _submit_changed(self) -> None:
        there = {path: path.stat().st_mtime_ns for path in sorted(self._folder.glob("*.py"))}
        for path, changed_at in there.items():
            if self._seen.get(path) != changed_at:
                self._changes[path] = self._changes.get(path, 0) + 1
                key = TaskKey("dag_files", path.name, "change", self._changes[path])
                self._executor.execute_async(key, [sys.executable, str(path)], queue=_QUEUE)
        self._seen = there


async def watch(
    folder: Path,
    report: Callable[[AsyncExecutor, TaskKey, Event], None],
    look_ms: int = 5000,
) -> None:
    """Watch until the executor is told to terminate, or the process to stop.

    :param report: is told of each task that has ended.
    """
    limits = {_QUEUE: Limit(concurrency=os.cpu_count() or 1)}

    def collect() -> None:
        executor.heartbeat()
        for key, event in executor.get_event_buffer().items():
            report(executor, key, event)

    async with AsyncExecutor(limits=limits) as executor:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, executor.terminate)
        executor.execute_async(WATCH, Watch(folder, executor, look_ms).run)
        while executor.slots_occupied:
            await asyncio.sleep(_HEARTBEAT_S)
            collect()
    collect()


def main() -> None:
    """Print what has ended, until interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.watch_dags",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    asyncio.run(watch(parser.parse_args().folder, _print))


def _print(_: AsyncExecutor, key: TaskKey, event: Event) -> None:
    state, reason = event
    print(f"{key.task_id}, change {key.try_number}: {state}", reason or "", flush=True)


if __name__ == "__main__":
    main()
