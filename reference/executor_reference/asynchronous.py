"""The reference for async executors: the same contract, with thousands of tasks on one event loop.

This module is the scheduler's side of the executor, ``runner.py`` is the loop's side.  The two threads share
nothing but two queues: submitted tries go to the loop through one of them, and ended tries come back through
the other, from which ``sync()`` collects them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
import threading
import types
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any

from executor_reference.commands import Await, Command, parse_with_coroutines
from executor_reference.events import split_events
from executor_reference.limits import Limit
from executor_reference.loops import Unreachable
from executor_reference.runner import TERMINATED, TaskRunner, warn_of_left_behind
from executor_reference.states import FAILED, QUEUED, TERMINAL
from executor_reference.tries import Event, Key, QueuedTry, Try, notify


class AsyncExecutor(TaskRunner):
    """Runs coroutine functions on an event loop, and also programs and blocking calls.

    Started inside a running loop, it uses that loop, does not block it, and leaves it running.  Otherwise it
    creates a loop in its own thread.  Call it from a single thread that lives as long as the executor; its
    tasks may submit other tasks.

    Coroutine functions share a process and a thread, so only their context variables isolate them.  A program
    has its own process.  Programs and blocking calls are meant for the few that coroutines need on the way;
    for thousands of them use :class:`~executor_reference.LocalExecutor`.

    A signal handler of the host may raise in any call: the next call continues where that one stopped.  But
    if it raises inside the standard library's ``threading``, objects of that module may stay locked.

    :param parallelism: how many tasks may run at once; 0 means no limit.
    :param threads: how many blocking calls may run at once, at least 1.
    :param limits: queue name -> its limit.  Other queues have no limit.
    :param timeout_s: a task that runs longer than this, in seconds, is cancelled and fails; ``None``: no
        timeout.
    :param patience_s: how long a task may take to end after its cancellation, in seconds.  After that,
        ``terminate()`` and a timeout report it as failed, leave it running, and warn.
    :param watchdog_s: a task that blocks the loop longer than this, in seconds, is logged with its stack as
        a warning of the logger ``executor_reference``; ``None``: no watchdog.
    :raises ValueError: a parameter is out of range.  Nothing has been started then.
    """

    is_async = True
    command_kinds = frozenset({"argv", "callable", "coroutine"})

    def __init__(
        self,
        parallelism: int = 1024,
        *,
        threads: int = min(32, (os.cpu_count() or 1) + 4),
        limits: Mapping[str, Limit] | None = None,
        timeout_s: float | None = None,
        patience_s: float = 2.0,
        watchdog_s: float | None = 0.1,
    ) -> None:
        if type(parallelism) is not int or parallelism < 0:  # isinstance() would accept True
            raise ValueError(f"parallelism must be an int >= 0 (0: no limit), got {parallelism!r}")
        if type(threads) is not int or threads < 1:
            raise ValueError(f"threads must be an int >= 1, got {threads!r}")
        if not _is_positive(patience_s):
            raise ValueError(f"patience_s must be > 0 seconds, got {patience_s!r}")
        for name, seconds in {"timeout_s": timeout_s, "watchdog_s": watchdog_s}.items():
            if seconds is not None and not _is_positive(seconds):
                raise ValueError(f"{name} must be > 0 seconds, or None, got {seconds!r}")
        super().__init__(parallelism, threads, limits or {}, timeout_s, patience_s, watchdog_s)
        self._started = False
        self._submissions = itertools.count()
        self._in_flight: dict[Key, Try] = {}  # until sync() has collected the try
        self._staged: deque[QueuedTry] = deque()  # until the next heartbeat
        self._events: dict[Key, Event] = {}
        self._collecting: Try | None = None  # the try whose event is being made
        self._closing = threading.Lock()

    # -- lifecycle -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Get ready to run tasks, on the running loop if there is one.

        :raises RuntimeError: the executor was started before.
        :raises ImportError: a limit needs a library that is not installed.
        """
        if self._started:
            raise RuntimeError("start() was called before; an executor can be started only once")
        self._open()
        self._started = True
        self._accepting = True

    def end(self) -> None:
        """Run all accepted tasks to completion, then stop.  Further calls do nothing.

        A call on the executor's own loop cannot wait.  It returns at once, and the tasks continue on the
        loop; :meth:`aclose` waits for them.
        """
        self._accepting = False
        if self._home is None or self._stopped:
            return
        self._submit_staged()
        if self._stopping:  # an exception interrupted the next lines
            self._stop()
        elif not self._home.is_here:
            try:
                self._home.run(self._wait_until_settled())
            except Unreachable as reason:
                self._fail_in_flight(str(reason))
            self._stop()
        elif not self._unsettled and not self._submitted:
            self._stop()
        self._collect()

    def _end_serialized(self) -> None:
        with self._closing:
            self.end()

    def terminate(self) -> None:
        """Cancel running tasks, drop queued ones, and report all of them as ``failed``.

        A task that ignores its cancellation, or blocks the loop, is reported like the others and left running
        with a warning.  A call on the executor's own loop returns before the tasks have ended.
        """
        self._accepting = False
        if self._home is None or self._stopped:
            return
        self._submit_staged()
        if self._home.is_here:
            self._cancel_all()
            running = self._tasks.copy()
            for try_ in running.values():
                self._settle(try_, TERMINATED)
            self._loop.call_later(self._patience_s, warn_of_left_behind, running)
            self._stop_threads_if_idle()
            left_behind = {}
        else:
            left_behind = self._tasks
            try:
                left_behind = self._home.run(self._stop_all(), self._patience_s)
            except Unreachable as reason:
                self._fail_in_flight(str(reason))
                self._programs.kill_all()
                self._home.abandon()
                self._stop_threads()
                self._stopped = True
            else:
                self._stop(left_behind)
        self._collect()
        warn_of_left_behind(left_behind)

    async def aclose(self) -> None:
        """:meth:`end` for coroutines: wait for the tasks without blocking the loop.

        After :meth:`terminate` it waits up to ``patience_s`` for the cancelled tasks to end.

        :raises RuntimeError: called by a task of this executor, which would wait for its own end.
        """
        if asyncio.current_task() in self._tasks:
            raise RuntimeError("a task cannot wait for the end of its own executor")
        if self._stopped and not self._tasks:
            self._collect()
            return
        if self._home is None or not self._home.is_here:
            await asyncio.get_running_loop().run_in_executor(None, self._end_serialized)
            return
        self.end()
        await self._wait_until_settled()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=self._patience_s)
        self._stop()
        self._collect()

    async def __aenter__(self) -> AsyncExecutor:
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        """Finish all tasks, or cancel them if the block raised an exception."""
        if kind is not None:
            self.terminate()
        await self.aclose()

    # -- tasks -----------------------------------------------------------------------------------------------

    def execute_async(
        self, key: Key, command: Any, queue: str | None = None, executor_config: object = None
    ) -> None:
        """Accept one try of a task.  The loop starts it as soon as there is a slot.

        The task sees the context variables of the caller; its own changes to them stay its own.

        :param command: a coroutine function or a callable, without arguments, or a sequence of ``str``.
        :param queue: the name of a queue in ``limits``.  Any other name means no limit.
        :param executor_config: ignored.
        :raises RuntimeError: the executor is not running, or its loop is closed.
        :raises ValueError: the key is in flight or has an event in the buffer, or no system could execute the
            argv.
        :raises TypeError: the command is of no supported kind.
        """
        self.queue_command(key, command, queue=queue)
        self._submit_staged()

    def queue_command(self, key: Key, command: Any, priority: int = 1, queue: str | None = None) -> None:
        """Accept one try of a task for the next ``heartbeat()``, which starts higher priorities first.

        Parameters and errors are those of :meth:`execute_async`.
        """
        if not self._accepting or self._home is None:
            raise RuntimeError(f"cannot accept {key!r}: the executor is not running")
        if self._loop.is_closed():
            raise RuntimeError(f"cannot accept {key!r}: the event loop of this executor was closed")
        self._collect_current()
        if key in self._in_flight:
            raise ValueError(f"{key!r} is in flight; another try needs another key")
        if key in self._events:
            raise ValueError(f"{key!r} has an event in the buffer; call get_event_buffer() first")
        try_ = Try(key, parse_with_coroutines(command), queue if queue in self._gates else None)
        entry = (-priority, next(self._submissions), try_)
        try:
            self._in_flight[key] = try_
            self._staged.append(entry)
        except BaseException:  # a signal handler raised; with both lines done, the task was accepted
            if entry not in self._staged:
                self._in_flight.pop(key, None)
            raise

    def heartbeat(self) -> None:
        """Do one round of the scheduler's loop: the same as :meth:`sync`."""
        self.sync()

    def sync(self) -> None:
        """Collect ended tasks and submit queued ones to the loop.  Never blocks."""
        self._collect()
        self._submit_staged()

    def get_event_buffer(self, dag_ids: Collection[str] | None = None) -> dict[Any, Event]:
        """Drain the event buffer.

        If a signal handler raises in this call, the events stay in the buffer.  If it raises while the call
        returns, before the caller has stored the result, the events are lost with the result.

        :param dag_ids: take only the events whose key has one of these ``dag_id``; the others stay.
        :returns: key -> (``"success"``, ``None``) or (``"failed"``, the reason).
        """
        self._collect_current()
        events = self._events
        taken, kept = split_events(events, dag_ids)
        try:
            self._events = kept
            return taken
        except BaseException:
            self._events = events
            raise

    async def wait(self, key: Key) -> Event:
        """Wait for the terminal event of a task and take it, so it is not in the buffer any more.

        Several coroutines may wait for the same task.

        :raises KeyError: no such task is in flight, and the buffer has no event of it.
        """
        self.sync()
        if key in self._in_flight:
            loop = asyncio.get_running_loop()
            event: asyncio.Future[Event] = loop.create_future()
            watchers = self._in_flight[key].watchers
            watchers.append(event)
            if self._ended:  # the task may have ended just before it was watched
                self.sync()
            try:
                await event
            finally:
                watchers.remove(event)
            self.sync()
            self._events.pop(key, None)
            return event.result()
        return self._events.pop(key)

    # -- what a scheduler reads, as of the last heartbeat ----------------------------------------------------

    @property
    def running(self) -> set[Key]:
        """The keys of the running tasks."""
        return {key for key, try_ in self._in_flight.copy().items() if try_.state != QUEUED}

    @property
    def queued_tasks(self) -> Mapping[Key, Command | Await]:
        """The keys of the queued tasks, with their commands."""
        return {key: try_.command for key, try_ in self._in_flight.copy().items() if try_.state == QUEUED}

    @property
    def slots_occupied(self) -> int:
        """The number of running and queued tasks."""
        return len(self._in_flight)

    @property
    def slots_available(self) -> int:
        """``parallelism`` minus ``slots_occupied``; can be negative.  ``sys.maxsize`` without a limit."""
        return self.parallelism - self.slots_occupied if self.parallelism else sys.maxsize

    # -- the queues between the two threads ------------------------------------------------------------------

    def _submit_staged(self) -> None:
        if (self._staged or self._submitted) and self._home is not None:
            # In C throughout: no signal handler runs between the removal of a try and its submission.  A task
            # may call this at the same time; each caller moves what it removes.
            with contextlib.suppress(IndexError):
                self._submitted.extend(iter(self._staged.popleft, None))
            # The loop clears the flag before it reads the queue, so it never misses a submission.
            if not self._wakeup_scheduled:
                try:
                    self._wakeup_scheduled = True
                    self._loop.call_soon_threadsafe(self._take_submitted)
                except BaseException as error:
                    self._wakeup_scheduled = False
                    if isinstance(error, RuntimeError) and self._loop.is_closed():
                        return  # _collect() handles that
                    raise  # a signal handler raised; the next call wakes the loop

    def _collect(self) -> None:
        if self._home is not None and not self._stopped and self._loop.is_closed():
            self._fail_in_flight("its event loop was closed")
            self._stop_threads()
        self._collect_current()
        while self._ended:
            self._collecting = self._ended[0]
            self._collect_current()

    def _collect_current(self) -> None:
        """Make an event of the try that is being collected, also after an exception interrupted this."""
        try_ = self._collecting
        if try_ is None:
            return
        event = self._events[try_.key] = (try_.state, try_.reason)
        for watcher in try_.watchers:
            notify(watcher, event)
        self._in_flight.pop(try_.key, None)
        if self._ended and self._ended[0] is try_:
            self._ended.popleft()
        self._collecting = None

    def _fail_in_flight(self, reason: str) -> None:
        """Report everything in flight as failed, because the loop will not run it."""
        ended = set(self._ended)
        for try_ in self._in_flight.copy().values():
            if try_ not in ended:
                if try_.state not in TERMINAL:
                    try_.move(FAILED)
                try_.reason = reason
                self._ended.append(try_)


def _is_positive(seconds: object) -> bool:
    return isinstance(seconds, (int, float)) and seconds > 0
