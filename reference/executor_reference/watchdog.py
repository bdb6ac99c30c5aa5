"""Finds the task that blocks an event loop.

A coroutine that computes for long, or calls something that blocks, stops everything else on its loop, and no
code on that loop can report it.  So a thread asks the loop for a response, as long as there are tasks.  If
none comes, the thread checks which task the loop is running, and where.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

_LOG = logging.getLogger("executor_reference")
#: The loop is checked this many times within the limit.  Each check wakes the thread.
_CHECKS = 4
#: Without tasks the thread ends after this many seconds; the next task starts a new one.
_IDLE_TIMEOUT_S = 5.0
#: How many frames of the stack a warning shows.
_MAX_FRAMES = 8


class Watchdog:
    """Logs a warning, with the name and the stack, for a task that has blocked the loop for too long.

    :param loop: the loop to watch.
    :param limit_s: how long a task may block the loop, in seconds.
    :param name_of: returns the name of a task of the executor, or ``None`` for any other task of the loop.
    :param is_idle: returns whether there is no task to watch.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limit_s: float,
        name_of: Callable[[asyncio.Task[Any]], str | None],
        is_idle: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._limit_s = limit_s
        self._name_of = name_of
        self._is_idle = is_idle
        self._loops_thread = 0
        self._awake = threading.Event()
        self._responded = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._thread_changes = threading.Lock()

    def wake(self) -> None:
        """Start watching.  Must be called in the loop's thread."""
        if self._awake.is_set():
            return
        self._loops_thread = threading.get_ident()
        with self._thread_changes:
            self._awake.set()
            if self._thread is None:
                thread = threading.Thread(target=self._watch, name="loop-watchdog", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # out of threads: tasks run unwatched until wake() finds one
                    self._awake.clear()
                else:
                    self._thread = thread

    def stop(self) -> None:
        """Stop for good.  Does not need the loop."""
        for event in (self._stopped, self._awake, self._responded):
            event.set()
        if (thread := self._thread) is not None:
            thread.join()

    def _watch(self) -> None:
        while self._wait_for_tasks():
            if self._stopped.wait(self._limit_s / _CHECKS) or self._loop.is_closed():
                return
            if self._is_idle():
                # Clear first, then check again: a task that came between may have found the event set.
                self._awake.clear()
                if not self._is_idle() or self._stopped.is_set():
                    self._awake.set()
                continue
            if asyncio.current_task(self._loop) is None:
                continue  # no task is running, so a request would only wake the loop
            self._responded.clear()
            try:
                self._loop.call_soon_threadsafe(self._responded.set)
            except RuntimeError:  # the loop was closed
                return
            self._await_response()

    def _wait_for_tasks(self) -> bool:
        """Wait until there is a task to watch; return ``False`` if the thread has to end.

        The thread ends after a while without tasks, because the executor may have been dropped without
        ``end()``.
        """
        if self._awake.wait(_IDLE_TIMEOUT_S):
            return True
        with self._thread_changes:
            if not self._awake.is_set():
                self._thread = None
            return self._thread is not None

    def _await_response(self) -> None:
        # A task runs once in each round of the loop, so one that runs at every check blocks the others.
        suspect: asyncio.Task[Any] | None = None
        same = 0
        while not (self._responded.wait(self._limit_s / _CHECKS) or self._is_over):
            current = asyncio.current_task(self._loop)
            same = same + 1 if current is suspect else 0
            suspect = current
            if suspect is not None and same == _CHECKS:  # not >=: one warning is enough
                self._warn(suspect)

    @property
    def _is_over(self) -> bool:
        return self._stopped.is_set() or self._loop.is_closed()

    def _warn(self, task: asyncio.Task[Any]) -> None:
        name = self._name_of(task)
        frame = sys._current_frames().get(self._loops_thread)
        if name is None or frame is None:
            return  # the task is not the executor's, or the loop's thread has ended
        _LOG.warning(
            "%s has blocked the event loop, and so all other tasks, for %.0f ms; its stack:\n%s",
            name,
            1000 * self._limit_s,
            "".join(traceback.format_stack(frame)[-_MAX_FRAMES:]),
        )
