"""The part of the async executor that runs on the event loop: it starts tries and settles them.

It shares two queues with the scheduler's thread.  Tries to start come in through ``_submitted``; ended tries
go out through ``_ended``.  Nothing here polls, and there is no lock: the scheduler's thread wakes the loop
once for however many tries it has submitted.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import warnings
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any

from executor_reference import awaiting
from executor_reference.commands import Argv, Await, Command
from executor_reference.limits import Gate, Limit
from executor_reference.loops import CallersLoop, running_or_new
from executor_reference.states import FAILED, RUNNING, SUCCESS, TERMINAL
from executor_reference.tries import QueuedTry, Try, describe, describe_exit, notify
from executor_reference.watchdog import Watchdog

#: The reason of a try that ``terminate()`` has stopped.
TERMINATED = "terminated"
#: How many tasks are started before other callbacks of the loop get a turn.
_START_BATCH = 100


class TaskRunner:
    """Runs tries on an event loop, as many at once as there are slots.

    The parameters are those of :class:`~executor_reference.AsyncExecutor`, which derives from this class and
    has checked them.
    """

    def __init__(
        self,
        parallelism: int,
        threads: int,
        limits: Mapping[str, Limit],
        timeout_s: float | None,
        patience_s: float,
        watchdog_s: float | None,
    ) -> None:
        self.parallelism = parallelism
        self._threads = threads
        self._limits = dict(limits)
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._watchdog_s = watchdog_s
        self._accepting = False
        self._stopping = False  # whether the loop may have been asked to stop
        self._stopped = False  # whether nothing is left that would have to be stopped
        # Shared by both threads.
        self._submitted: deque[QueuedTry] = deque()
        self._ended: deque[Try] = deque()
        self._wakeup_scheduled = False
        # Only used on the loop.
        self._home: CallersLoop | None = None
        self._queue: list[QueuedTry] = []  # a heap
        self._tasks: dict[asyncio.Task[str | None], Try] = {}  # the running tasks
        self._starting: Try | None = None  # an eager task runs before it is in _tasks
        self._programs = awaiting.Programs()
        self._fill_scheduled = False
        self._unsettled = 0  # how many tries have been taken from _submitted and not yet been settled
        self._all_settled = asyncio.Event()

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        assert self._home is not None
        return self._home.loop

    def _open(self) -> None:
        """Take the running loop, or create one.

        :raises ImportError: a limit needs a library that is not installed.
        """
        self._gates = {queue: Gate(limit, self._admit) for queue, limit in self._limits.items()}
        self._home = running_or_new()
        self._watchdog = (
            Watchdog(self._home.loop, self._watchdog_s, self._name_of, lambda: not self._unsettled)
            if self._watchdog_s
            else None
        )
        self._call_slots = asyncio.Semaphore(self._threads)

    # -- starting --------------------------------------------------------------------------------------------

    def _take_submitted(self) -> None:
        self._wakeup_scheduled = False  # before the queue is read, so a later submission wakes the loop again
        while self._submitted:
            entry = self._submitted.popleft()
            self._unsettled += 1
            gate = entry[2].gate
            if gate is None:
                heapq.heappush(self._queue, entry)
            else:
                self._gates[gate].add(entry)
        if self._unsettled:
            self._all_settled.clear()
            if self._watchdog:
                self._watchdog.wake()
        self._fill_slots()

    def _admit(self, entry: QueuedTry) -> None:
        heapq.heappush(self._queue, entry)
        self._fill_slots()

    def _fill_slots(self) -> None:
        for _ in range(_START_BATCH):
            if not self._queue or 0 < self.parallelism <= len(self._tasks):
                return
            self._begin(heapq.heappop(self._queue)[2])
        if not self._fill_scheduled:
            self._fill_scheduled = True
            self._loop.call_soon(self._continue_filling)

    def _continue_filling(self) -> None:
        self._fill_scheduled = False
        self._fill_slots()

    def _begin(self, try_: Try) -> None:
        if try_.state in TERMINAL:  # it was reported as failed while the loop was blocked
            return
        try_.move(RUNNING)
        context, try_.context = try_.context, None
        assert context is not None
        self._starting = try_
        task = try_.task = context.run(self._loop.create_task, self._run(try_.command))
        self._starting = None
        self._tasks[task] = try_
        task.add_done_callback(self._task_done)
        if self._timeout_s is not None:
            timer = self._loop.call_later(self._timeout_s, self._time_out, try_)
            task.add_done_callback(lambda _: timer.cancel())

    async def _run(self, command: Command | Await) -> str | None:
        """Run a command; return why it failed, or ``None`` for success.

        Only ``CancelledError`` is raised, and on the caller's loop ``KeyboardInterrupt``.
        """
        assert self._home is not None
        try:
            if isinstance(command, Await):
                await command.function()
            elif isinstance(command, Argv):
                return await self._programs.run(command.words)
            else:
                value = await awaiting.call(command.function, self._call_slots)
                if inspect.isawaitable(value):  # for example from a lambda around a coroutine function
                    await value
        except asyncio.CancelledError:
            raise
        except KeyboardInterrupt as error:
            if not self._home.is_ours:  # it has to reach the code that runs the loop
                raise
            return describe(error)
        except SystemExit as exit_:
            return describe_exit(exit_)
        except BaseException as error:  # all of them: a task that raises some of them stops its loop
            return describe(error)
        return None

    # -- ending ----------------------------------------------------------------------------------------------

    def _task_done(self, task: asyncio.Task[str | None]) -> None:
        try_ = self._tasks.pop(task)
        if try_.gate is not None:
            self._gates[try_.gate].leave()
        if task.cancelled():
            self._settle(try_, "cancelled")
        else:
            error = task.exception()
            self._settle(try_, task.result() if error is None else describe(error))
        self._fill_slots()
        if self._home and not self._home.is_ours:
            self._stop_threads_if_idle()

    def _settle(self, try_: Try, reason: str | None) -> None:
        """Give a try its terminal state: ``success`` if there is no reason, else ``failed``."""
        if try_.state in TERMINAL:  # it was reported before, although its task was still running
            return
        try_.reason = try_.reason or reason
        try_.move(SUCCESS if try_.reason is None else FAILED)
        try_.task = None
        self._unsettled -= 1
        self._ended.append(try_)
        for watcher in try_.watchers:
            notify(watcher, (try_.state, try_.reason))
        if not self._unsettled:
            self._all_settled.set()

    def _time_out(self, try_: Try) -> None:
        if try_.task:
            try_.reason = f"timed out after {self._timeout_s} s"
            try_.task.cancel()
            self._loop.call_later(self._patience_s, self._leave_behind, try_)

    def _leave_behind(self, try_: Try) -> None:
        """Report a try that has ignored its timeout.  Its task still runs, so it keeps its slot."""
        if task := try_.task:
            self._settle(try_, None)
            warn_of_left_behind({task: try_})

    def _cancel_all(self) -> None:
        self._drop_queued()
        for try_ in self._tasks.values():
            try_.reason = TERMINATED
            assert try_.task is not None
            try_.task.cancel()

    def _drop_queued(self) -> None:
        self._unsettled += len(self._submitted)  # _settle() subtracts them again
        dropped = [*self._submitted, *self._queue]
        for gate in self._gates.values():
            dropped += gate.clear()
        self._submitted.clear()
        self._queue.clear()
        for _, _, try_ in sorted(dropped):
            self._settle(try_, f"{TERMINATED} before it started")

    async def _stop_all(self) -> dict[asyncio.Task[str | None], Try]:
        """Cancel all tasks and wait for them; return those that did not end in time, which are settled."""
        self._cancel_all()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=self._patience_s)
            # On a busy loop the time can pass before each task had its turns: to start, to be cancelled and
            # to be done.
            for _ in range(3):
                await asyncio.sleep(0)
        for try_ in self._tasks.values():
            self._settle(try_, TERMINATED)
        return self._tasks.copy()

    async def _wait_until_settled(self) -> None:
        """Wait until all submitted tries have been settled."""
        while self._unsettled or self._submitted:
            if self._unsettled:
                await self._all_settled.wait()
            else:
                await asyncio.sleep(0)  # _take_submitted() has been scheduled

    # -- stopping --------------------------------------------------------------------------------------------

    def _stop(self, left_behind: Collection[asyncio.Task[str | None]] = ()) -> None:
        assert self._home is not None
        self._stopping = True
        self._stop_threads(0.0 if self._home.is_here else self._patience_s)
        self._home.close(self._patience_s, left_behind)
        self._stopped = True

    def _stop_threads_if_idle(self) -> None:
        """Stop the threads on the caller's loop, where ``end()`` returned before the tasks had ended."""
        if not (self._accepting or self._unsettled or self._submitted or self._tasks):
            self._stop_threads()

    def _stop_threads(self, patience_s: float = 0.0) -> None:
        """Stop the watchdog and the thread that starts programs."""
        if self._watchdog:
            self._watchdog.stop()
        self._programs.close(patience_s)

    def _name_of(self, task: asyncio.Task[Any]) -> str | None:
        try_ = self._tasks.get(task) or self._starting
        return None if try_ is None else f"task {try_.key!r}"


def warn_of_left_behind(tasks: Mapping[asyncio.Task[str | None], Try]) -> None:
    """Warn of tasks that were cancelled and still run.

    The warning is attributed to the caller of the method that calls this function.
    """
    keys = [try_.key for task, try_ in tasks.items() if not task.done()]
    if keys:
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        warnings.warn(
            f"task {keys[0]!r}{more} ignored cancellation and may still be running",
            RuntimeWarning,
            stacklevel=3,
        )
