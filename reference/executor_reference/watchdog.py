"""Tells which task blocks an event loop, and where.

A coroutine that computes, or calls what blocks, holds up everything else on its loop, and nothing in the loop
can say so.  A thread asks the loop for a sign of life, while there are tasks; where none comes, it looks what
the loop's thread is at.
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
#: Signs of life asked for within the time that a task may block; each is a wake-up of a thread.
_SIGNS = 4
#: After so many seconds without a task the thread ends; the next task has a new one.
_REST_S = 5.0
_FRAMES_TOLD = 8


class Watchdog:
    """Logs a warning with the name and the stack of a task that has blocked the loop for too long.

    :param loop: is watched while there is something to watch.
    :param limit_s: a task may block so long, in seconds.
    :param name_of: the name of one of our tasks; ``None`` for anybody else's, who are left alone.
    :param is_idle: whether there is nothing to watch.
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
        self._sign_of_life = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._thread_changes = threading.Lock()

    def wake(self) -> None:
        """There is something to watch; called in the loop's thread."""
        if self._awake.is_set():
            return
        self._loops_thread = threading.get_ident()
        with self._thread_changes:
            self._awake.set()
            if self._thread is None:
                thread = threading.Thread(target=self._watch, name="loop-watchdog", daemon=True)
                try:
                    thread.start()
                except (
                    RuntimeError
                ):  # the machine is out of threads: tasks go on unwatched until there is one
                    self._awake.clear()
                else:
                    self._thread = thread

    def stop(self) -> None:
        """For good; does not need the loop."""
        for event in (self._stopped, self._awake, self._sign_of_life):
            event.set()
        if (thread := self._thread) is not None:
            thread.join()

    def _watch(self) -> None:
        while self._is_wanted():
            if self._stopped.wait(self._limit_s / _SIGNS) or self._loop.is_closed():
                return
            if self._is_idle():
                # Cleared before a second look: who has come after the first one may have found it set.
                self._awake.clear()
                if not self._is_idle() or self._stopped.is_set():
                    self._awake.set()
                continue
            if asyncio.current_task(self._loop) is None:
                continue  # nobody is at it: asking would only wake the loop
            self._sign_of_life.clear()
            try:
                self._loop.call_soon_threadsafe(self._sign_of_life.set)
            except RuntimeError:  # it is closed
                return
            self._await_sign()

    def _is_wanted(self) -> bool:
        """Waits until there is something to watch; ``False``: the executor may have been forgotten."""
        if self._awake.wait(_REST_S):
            return True
        with self._thread_changes:
            if not self._awake.is_set():
                self._thread = None
            return self._thread is not None

    def _await_sign(self) -> None:
        """In one round of a loop a task has one turn: who is at it all the while blocks the others."""
        suspect: asyncio.Task[Any] | None = None
        looks = 0
        while not (self._sign_of_life.wait(self._limit_s / _SIGNS) or self._is_over):
            now = asyncio.current_task(self._loop)
            looks = looks + 1 if now is suspect else 0
            suspect = now
            if suspect is not None and looks == _SIGNS:  # told once is enough
                self._tell(suspect)

    @property
    def _is_over(self) -> bool:
        return self._stopped.is_set() or self._loop.is_closed()

    def _tell(self, task: asyncio.Task[Any]) -> None:
        name = self._name_of(task)
        frame = sys._current_frames().get(self._loops_thread)
        if name is None or frame is None:
            return  # what holds up the loop is none of ours, or over
        _LOG.warning(
            "%s has blocked the event loop for %.0f ms, and all other tasks with it; it is at\n%s",
            name,
            1000 * self._limit_s,
            "".join(traceback.format_stack(frame)[-_FRAMES_TOLD:]),
        )
