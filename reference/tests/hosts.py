"""Hosts with an unusual state, each in its own process:

python hosts.py STATE METHOD RESULT

STATE is how the host differs, METHOD a start method or "async".  The outcomes are written to RESULT as JSON.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import threading
from typing import Any

import tasks
from executor_reference import AsyncExecutor, LocalExecutor

PYTHON = sys.executable
COMMANDS: dict[str, Any] = {
    "program": ["/bin/sh", "-c", "exit 0"],
    "program-fails": ["/bin/sh", "-c", "exit 3"],
    "program-dies": ["/bin/sh", "-c", "kill -9 $$"],
    "program-is-missing": ["/nonexistent"],
    "callable": tasks.nothing,
    "callable-exits": functools.partial(tasks.exit_with, "4"),
    "callable-raises": tasks.fail,
    "callable-leaves": functools.partial(tasks.os_exit, "5"),
    "callable-dies": functools.partial(tasks.kill_itself, "11"),
    "module": [PYTHON, "-m", "tasks", "nothing"],
    "module-exits": [PYTHON, "-m", "tasks", "exit_with", "6"],
    "uses-its-streams": ["/bin/sh", "-c", "echo text; echo text >&2; cat"],
    "prints": functools.partial(print, "text"),
}
#: These would happen to the host itself: an async executor runs callables in it.
NOT_IN_THE_HOST = ("callable-leaves", "callable-dies")


def ignore_sigchld() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def do_nothing() -> None:
    """For a state that the host has inherited."""


def close_standard_descriptors() -> None:
    os.closerange(0, 3)
    sys.stdin = sys.stdout = sys.stderr = None  # type: ignore[assignment]


def wait_for_any_child() -> None:
    """Reap whatever ends, as soon as it ends."""

    def reap() -> None:
        while True:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                no_child.wait(0.0005)

    no_child = threading.Event()
    threading.Thread(target=reap, daemon=True).start()


STATES = (ignore_sigchld, do_nothing, close_standard_descriptors, wait_for_any_child)


def main(state: str, method: str, path: str) -> None:
    {one.__name__: one for one in STATES}[state]()
    executor: Any = AsyncExecutor() if method == "async" else LocalExecutor(2, method)
    before = signal.getsignal(signal.SIGCHLD)
    executor.start()
    for name, command in COMMANDS.items():
        if method != "async" or name not in NOT_IN_THE_HOST:
            executor.execute_async(name, command)
            executor.sync()
    executor.end()
    assert signal.getsignal(signal.SIGCHLD) == before
    with open(path, "w") as file:
        json.dump(executor.get_event_buffer(), file)


if __name__ == "__main__":
    main(*sys.argv[1:])
