"""One try of a task in an async executor, and the text of its failure."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Hashable

from executor_reference.commands import Await, Command
from executor_reference.endings import safe_str
from executor_reference.states import QUEUED, TRANSITIONS

Key = Hashable
#: A terminal event: the state, and the reason of a failure.
Event = tuple[str, "str | None"]
#: An entry of a heap of queued tries: (-priority, submission number, the try).
QueuedTry = tuple[int, int, "Try"]


class Try:
    """One try of a task.

    ``key``, ``command`` and ``gate`` never change.  Only the loop's thread changes ``state``, ``task`` and
    ``reason``, except when the loop is closed or blocked.

    :param gate: the name of its queue, if that has a limit.
    """

    __slots__ = ("command", "context", "gate", "key", "reason", "state", "task", "watchers")

    def __init__(self, key: Key, command: Command | Await, gate: str | None) -> None:
        self.key = key
        self.command = command
        self.gate = gate
        self.context: contextvars.Context | None = contextvars.copy_context()
        self.state = QUEUED
        self.task: asyncio.Task[str | None] | None = None
        self.reason: str | None = None  # why it is being cancelled, and finally why it failed
        self.watchers: list[asyncio.Future[Event]] = []

    def move(self, after: str) -> None:
        """Change the state."""
        assert after in TRANSITIONS[self.state], f"{self.key!r} cannot change from {self.state} to {after}"
        self.state = after


def notify(watcher: asyncio.Future[Event], event: Event) -> None:
    """Send the terminal event to a coroutine that waits for it, on whichever loop that is."""

    def set_result() -> None:
        if not watcher.done():
            watcher.set_result(event)

    loop = watcher.get_loop()
    if loop is asyncio._get_running_loop():
        set_result()
        return
    try:
        loop.call_soon_threadsafe(set_result)
    except RuntimeError:
        pass  # the loop of the watcher was closed


def describe(error: BaseException) -> str:
    """Return the reason of a failure: the type and the text of an exception."""
    return f"{type(error).__name__}: {safe_str(error)}"


def describe_exit(exit_: SystemExit) -> str | None:
    """Return why a task failed that raised ``SystemExit``, or ``None`` for success, as for a process."""
    code = exit_.code
    if code is None or (type(code) is int and code & 0xFF == 0):
        return None
    return describe(exit_)
