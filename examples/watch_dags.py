"""Watches a folder and runs each DAG file whenever it changes: one endless coroutine and many programs.

    python -m examples.watch_dags FOLDER

The watch is a task itself, and submits tasks to the executor that runs it.  A DAG file is third-party code,
so it runs as a program: it cannot block the loop, and it leaves nothing in this process.  Ctrl-C stops the
watch and all programs.
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
    """Submits a task for each DAG file at the start, and again whenever the file changes.

    :param folder: the folder with the DAG files.
    :param executor: runs the DAG files.
    :param poll_ms: the interval at which the folder is also scanned without a notification, in milliseconds.
        A change between the first scan and the start of the watch causes no notification.
    """

    def __init__(self, folder: Path, executor: AsyncExecutor, poll_ms: int = 5000) -> None:
        self._folder = folder
        self._executor = executor
        self._poll_ms = poll_ms
        self._seen: dict[Path, int] = {}
        self._changes: dict[Path, int] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        self._submit_changed()
        async for _ in awatch(self._folder, rust_timeout=self._poll_ms, yield_on_timeout=True):
            self._submit_changed()

    def _submit_changed(self) -> None:
        found = {path: path.stat().st_mtime_ns for path in sorted(self._folder.glob("*.py"))}
        for path, changed_at in found.items():
            if self._seen.get(path) != changed_at:
                self._changes[path] = self._changes.get(path, 0) + 1
                key = TaskKey("dag_files", path.name, "change", self._changes[path])
                self._executor.execute_async(key, [sys.executable, str(path)], queue=_QUEUE)
        self._seen = found


async def watch(
    folder: Path,
    report: Callable[[AsyncExecutor, TaskKey, Event], None],
    poll_ms: int = 5000,
) -> None:
    """Watch until the executor is terminated, or the process gets SIGINT or SIGTERM.

    :param report: called for each task that has ended.
    :param poll_ms: as for :class:`Watch`.
    """
    limits = {_QUEUE: Limit(concurrency=os.cpu_count() or 1)}

    def collect() -> None:
        executor.heartbeat()
        for key, event in executor.get_event_buffer().items():
            report(executor, key, event)

    async with AsyncExecutor(limits=limits) as executor:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, executor.terminate)
        executor.execute_async(WATCH, Watch(folder, executor, poll_ms).run)
        while executor.slots_occupied:
            await asyncio.sleep(_HEARTBEAT_S)
            collect()
    collect()


def main() -> None:
    """Print each task that ends, until interrupted."""
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
