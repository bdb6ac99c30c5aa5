"""The reference for async executors: the same contract, thousands of tasks on one event loop.

The scheduler's thread and the loop's share nothing but two queues.  What is submitted goes through one of
them to the loop, which starts tasks while there are slots, and what has ended comes back through the other,
where ``sync()`` finds it.  Nothing polls and nothing is locked: the loop is woken once for however many tasks
were submitted meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import inspect
import itertools
import os
import sys
import threading
import types
import warnings
from collections import deque
from collections.abc import Collection, Hashable, Mapping
from typing import Any

from executor_reference import awaiting
from executor_reference.commands import Argv, Await, Command, parse_with_coroutines
from executor_reference.endings import text_of
from executor_reference.limits import Gate, Limit
from executor_reference.loops import CallersLoop, Unreachable, running_or_own
from executor_reference.states import FAILED, QUEUED, RUNNING, SUCCESS, TERMINAL, TRANSITIONS
from executor_reference.watchdog import Watchdog

Key = Hashable
Event = tuple[str, "str | None"]

#: What waits in a heap: (-priority, order of arrival, the try).
_Waiting = tuple[int, int, "_Try"]

_TERMINATED = "terminated"
#: Tasks that are begun in one go: the loop's other business comes in between.
_AT_ONCE = 100


class _Try:
    """One try of a task.

    ``state`` is the loop's to change; everything else is settled before the loop gets it, or after.
    """

    __slots__ = ("command", "context", "gate", "key", "reason", "state", "task", "watchers")

    def __init__(self, key: Key, command: Command | Await, gate: str | None) -> None:
        self.key = key
        self.command = command
        self.gate = gate  # the name of a queue with a limit
        self.context: contextvars.Context | None = contextvars.copy_context()
        self.state = QUEUED
        self.task: asyncio.Task[str | None] | None = None
        self.reason: str | None = None  # why it is being stopped; then, why it failed
        self.watchers: list[asyncio.Future[Event]] = []

    def move(self, after: str) -> None:
        assert after in TRANSITIONS[self.state], f"{self.key!r} cannot go from {self.state} to {after}"
        self.state = after


class AsyncExecutor:
    """Runs coroutine functions on an event loop, programs and blocking calls beside it.

    Started inside a running loop it uses that one: nothing there is blocked, and it is left as it was.  Else
    it makes a loop of its own, in a thread.  Call it from one lasting thread, as a scheduler does; its tasks
    may submit others.

    Coroutine functions share a process and a thread, so they are isolated by their context variables only; a
    program has a process of its own.  Programs and blocking calls are for the few that a loop of coroutines
    needs: thousands of them are :class:`~executor_reference.LocalExecutor`'s work.

    :param parallelism: how many tasks may run at once; 0 means without limit.
    :param threads: how many blocking calls may run at once.
    :param limits: what queues are allowed, by name; the others have no limit of their own.
    :param timeout_s: a task is cancelled, and has failed, after so many seconds; ``None``: never.
    :param patience_s: ``terminate()`` leaves a task behind that has not heeded its cancellation for so many
        seconds, with a warning.
    :param watchdog_s: a task that blocks the loop for so many seconds is named in a warning of the logger
        ``executor_reference``, with its stack; ``None``: nobody looks.
    :raises ValueError: for any other number of tasks, threads or seconds; nothing has been started then.
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
        if type(parallelism) is not int or parallelism < 0:  # bool is an int, and nobody means it
            raise ValueError(f"parallelism must be an int from 0 (no limit) up, got {parallelism!r}")
        if type(threads) is not int or threads < 1:
            raise ValueError(f"threads must be an int from 1 up, got {threads!r}")
        if not _is_a_time(patience_s):
            raise ValueError(f"patience_s must be seconds above 0, got {patience_s!r}")
        for name, seconds in {"timeout_s": timeout_s, "watchdog_s": watchdog_s}.items():
            if seconds is not None and not _is_a_time(seconds):
                raise ValueError(f"{name} must be seconds above 0, or None, got {seconds!r}")
        self.parallelism = parallelism
        self._threads = threads
        self._limits = dict(limits or {})
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._watchdog_s = watchdog_s
        self._started = False
        self._accepting = False
        self._over = False  # nothing is left to be stopped
        # the scheduler's
        self._arrivals = itertools.count()
        self._in_flight: dict[Key, _Try] = {}  # until sync() has seen its end
        self._staged: deque[_Waiting] = deque()  # until the next heartbeat
        self._events: dict[Key, Event] = {}
        # between the two: tries to be started, tries that have ended, and whether the loop was told
        self._submitted: deque[_Waiting] = deque()
        self._ended: deque[_Try] = deque()
        self._told = False
        # the loop's
        self._home: CallersLoop | None = None
        self._waiting: list[_Waiting] = []  # a heap
        self._tasks: dict[asyncio.Task[str | None], _Try] = {}  # what runs
        self._beginning: _Try | None = None  # some loops run a new task at once, before anybody knows it
        self._programs = awaiting.Programs()
        self._filling = False
        self._known = 0  # tries that were taken over and have not ended
        self._none_known = asyncio.Event()
        self._closing = threading.Lock()

    # -- life ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Get ready to run tasks, on the running loop if there is one.

        :raises RuntimeError: it has been started before.
        :raises ImportError: a limit needs a library that is not installed.
        """
        if self._started:
            raise RuntimeError("start() was called before; an executor is started once")
        self._gates = {queue: Gate(limit, self._admit) for queue, limit in self._limits.items()}
        self._home = running_or_own()
        self._started = True
        self._watchdog = (
            Watchdog(self._home.loop, self._watchdog_s, self._name_of, lambda: not self._known)
            if self._watchdog_s
            else None
        )
        self._call_slots = asyncio.Semaphore(self._threads)
        self._accepting = True

    def end(self) -> None:
        """Run everything that was accepted to its end, then stop; calling it again changes nothing.

        Called on the executor's own loop, where waiting would be for ever, it returns at once and the loop
        goes on to the end of what was accepted; :meth:`aclose` waits for that.
        """
        self._accepting = False
        if self._home is None or self._over:
            return
        self._hand_over()
        if not self._home.is_here:
            try:
                self._home.carry_out(self._until_none_is_known())
            except Unreachable as reason:
                self._give_up(str(reason))
            self._stop()
        elif not self._known and not self._submitted:
            self._stop()
        self._collect()

    def _end_after_others(self) -> None:
        with self._closing:
            self.end()

    def terminate(self) -> None:
        """Cancel what runs, drop what waits, and report all of it ``failed``.

        A task that swallows its cancellation, or blocks the loop, is reported like the others and left
        behind with a warning.  On the executor's own loop it returns before the tasks have stopped.
        """
        self._accepting = False
        if self._home is None or self._over:
            return
        self._hand_over()
        if self._home.is_here:
            self._cancel_all()
            running = self._tasks.copy()
            for try_ in running.values():
                self._settle(try_, _TERMINATED)
            self._loop.call_later(self._patience_s, _warn_of_stubborn, running)
            self._leave_loop_if_idle()
            stubborn = {}
        else:
            stubborn = self._tasks
            try:
                stubborn = self._home.carry_out(self._stop_all(), self._patience_s)
            except Unreachable as reason:
                self._give_up(str(reason))
                self._programs.kill_all()
                self._home.abandon()
                self._leave_loop()
                self._over = True
            else:
                self._stop(stubborn)
        self._collect()
        _warn_of_stubborn(stubborn)

    async def aclose(self) -> None:
        """:meth:`end` for callers on a loop: waits without blocking it.

        After :meth:`terminate` it waits for the tasks that were cancelled, as long as that would have.

        :raises RuntimeError: a task of this executor would have to wait for its own end.
        """
        if asyncio.current_task() in self._tasks:
            raise RuntimeError("a task cannot wait for the end of the executor that runs it")
        if self._over and not self._tasks:
            self._collect()
            return
        if self._home is None or not self._home.is_here:
            await asyncio.get_running_loop().run_in_executor(None, self._end_after_others)
            return
        self.end()
        await self._until_none_is_known()
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
        """After an exception what runs is cancelled, else it is finished."""
        if kind is not None:
            self.terminate()
        await self.aclose()

    # -- work ------------------------------------------------------------------------------------------------

    def execute_async(
        self, key: Key, command: Any, queue: str | None = None, executor_config: object = None
    ) -> None:
        """Accept one try of a task; it starts as soon as the loop comes to it, if there is a slot.

        It sees the context variables of its submission, and what it sets is its own.

        :param command: a coroutine function or a callable, both without arguments, or a sequence of ``str``.
        :param queue: the name of a limit.
        :param executor_config: ignored.
        :raises RuntimeError: the executor is not running, or its loop is closed.
        :raises ValueError: the key is in flight already, or the argv cannot be executed by any system.
        :raises TypeError: the command is of no known kind.
        """
        self.queue_command(key, command, queue=queue)
        self._hand_over()

    def queue_command(self, key: Key, command: Any, priority: int = 1, queue: str | None = None) -> None:
        """Accept one try of a task, to be started by the next ``heartbeat()``; the highest priority first.

        Arguments and errors as for :meth:`execute_async`.
        """
        if not self._accepting or self._home is None:
            raise RuntimeError(f"the executor is not running, so it cannot take {key!r}")
        if self._loop.is_closed():
            raise RuntimeError(f"the event loop of this executor was closed, so it cannot take {key!r}")
        if key in self._in_flight:
            raise ValueError(f"{key!r} is in flight; another try needs another key")
        try_ = _Try(key, parse_with_coroutines(command), queue if queue in self._gates else None)
        entry = (-priority, next(self._arrivals), try_)
        self._in_flight[key] = try_
        self._staged.append(entry)

    def heartbeat(self) -> None:
        """One round of the scheduler's loop."""
        self.sync()

    def sync(self) -> None:
        """Collect what has ended, and hand over what was queued; never waits."""
        self._collect()
        self._hand_over()

    def get_event_buffer(self, dag_ids: Collection[str] | None = None) -> dict[Any, Event]:
        """Take the events out of the buffer.

        :param dag_ids: only those whose key's ``dag_id`` is one of these; the others stay.
        :returns: key -> (``"success"``, ``None``) or (``"failed"``, the reason).
        """
        taken = {key: event for key, event in self._events.items() if dag_ids is None or _dag(key) in dag_ids}
        for key in taken:
            del self._events[key]
        return taken

    async def wait(self, key: Key) -> Event:
        """Wait for the end of a task and take its event, which is then in no buffer.

        :raises KeyError: nothing is known of such a task, or its event was taken before.
        """
        self.sync()
        if key in self._in_flight:
            loop = asyncio.get_running_loop()
            event: asyncio.Future[Event] = loop.create_future()
            watchers = self._in_flight[key].watchers
            watchers.append(event)
            if self._ended:  # it may have ended before it was watched
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
        """Keys that have a slot."""
        return {key for key, try_ in self._in_flight.copy().items() if try_.state != QUEUED}

    @property
    def queued_tasks(self) -> Mapping[Key, Command | Await]:
        """Keys that wait for a slot, with their commands."""
        return {key: try_.command for key, try_ in self._in_flight.copy().items() if try_.state == QUEUED}

    @property
    def slots_occupied(self) -> int:
        """How many tasks run or wait."""
        return len(self._in_flight)

    @property
    def slots_available(self) -> int:
        """How many more could run at once; below zero when more wait than could."""
        return self.parallelism - self.slots_occupied if self.parallelism else sys.maxsize

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        assert self._home is not None
        return self._home.loop

    # -- in the scheduler's thread ---------------------------------------------------------------------------

    def _hand_over(self) -> None:
        if self._staged and self._home is not None:
            with contextlib.suppress(IndexError):
                while True:  # a task that submits may be at it, too: each moves what it gets
                    self._submitted.append(self._staged.popleft())
            # The loop forgets that it was told before it looks, so whatever it has not seen it is told of.
            if not self._told:
                self._told = True
                try:
                    self._loop.call_soon_threadsafe(self._take_over)
                except RuntimeError:
                    pass  # closed, as _collect() finds out

    def _collect(self) -> None:
        if self._home is not None and not self._over and self._loop.is_closed():
            self._give_up("its event loop was closed")
            self._leave_loop()
        while self._ended:
            try_ = self._ended.popleft()
            del self._in_flight[try_.key]
            event = self._events[try_.key] = (try_.state, try_.reason)
            for watcher in try_.watchers:
                _tell(watcher, event)

    def _give_up(self, reason: str) -> None:
        """The loop will do nothing more: whatever is in flight has failed."""
        ended = set(self._ended)
        for try_ in self._in_flight.copy().values():
            if try_ not in ended:
                if try_.state not in TERMINAL:
                    try_.move(FAILED)
                try_.reason = reason
                self._ended.append(try_)

    def _stop(self, stubborn: Collection[asyncio.Task[str | None]] = ()) -> None:
        assert self._home is not None
        self._leave_loop(0.0 if self._home.is_here else self._patience_s)
        self._home.close(self._patience_s, stubborn)
        self._over = True

    def _leave_loop_if_idle(self) -> None:
        """On its caller's loop, where :meth:`end` returned long ago, nobody else does."""
        if not (self._accepting or self._known or self._submitted or self._tasks):
            self._leave_loop()

    def _leave_loop(self, patience_s: float = 0.0) -> None:
        """Let the threads go that serve the loop."""
        if self._watchdog:
            self._watchdog.stop()
        self._programs.close(patience_s)

    # -- on the loop -----------------------------------------------------------------------------------------

    def _take_over(self) -> None:
        self._told = False
        while self._submitted:
            entry = self._submitted.popleft()
            self._known += 1
            gate = entry[2].gate
            if gate is None:
                heapq.heappush(self._waiting, entry)
            else:
                self._gates[gate].add(entry)
        if self._known:
            self._none_known.clear()
            if self._watchdog:
                self._watchdog.wake()
        self._fill_slots()

    def _admit(self, entry: _Waiting) -> None:
        heapq.heappush(self._waiting, entry)
        self._fill_slots()

    def _fill_slots(self) -> None:
        for _ in range(_AT_ONCE):
            if not self._waiting or 0 < self.parallelism <= len(self._tasks):
                return
            self._begin(heapq.heappop(self._waiting)[2])
        if not self._filling:
            self._filling = True
            self._loop.call_soon(self._go_on_filling)

    def _go_on_filling(self) -> None:
        self._filling = False
        self._fill_slots()

    def _begin(self, try_: _Try) -> None:
        if try_.state in TERMINAL:  # it was given up while the loop was blocked
            return
        try_.move(RUNNING)
        context, try_.context = try_.context, None
        assert context is not None
        self._beginning = try_
        task = try_.task = context.run(self._loop.create_task, self._run(try_.command))
        self._beginning = None
        self._tasks[task] = try_
        task.add_done_callback(self._task_done)
        if self._timeout_s is not None:
            timer = self._loop.call_later(self._timeout_s, self._time_out, try_)
            task.add_done_callback(lambda _: timer.cancel())

    async def _run(self, command: Command | Await) -> str | None:
        """Why it failed, or ``None``; a cancellation leaves it, and nothing else but Ctrl-C."""
        assert self._home is not None
        try:
            if isinstance(command, Await):
                await command.function()
            elif isinstance(command, Argv):
                return await self._programs.run(command.words)
            else:
                value = await awaiting.call(command.function, self._call_slots)
                if inspect.isawaitable(value):  # a lambda around a coroutine function
                    await value
        except asyncio.CancelledError:
            raise
        except KeyboardInterrupt as error:
            if not self._home.is_ours:  # it is meant for whoever runs the loop
                raise
            return _why(error)
        except SystemExit as exit_:
            return _why_exited(exit_)
        except BaseException as error:  # also what would leave the loop by way of the task
            return _why(error)
        return None

    def _task_done(self, task: asyncio.Task[str | None]) -> None:
        try_ = self._tasks.pop(task)
        if try_.gate is not None:
            self._gates[try_.gate].leave()
        if task.cancelled():
            self._settle(try_, "it was cancelled")
        else:
            error = task.exception()
            self._settle(try_, task.result() if error is None else _why(error))
        self._fill_slots()
        if self._home and not self._home.is_ours:
            self._leave_loop_if_idle()

    def _settle(self, try_: _Try, reason: str | None) -> None:
        """The last move of a try: to success if there is no reason against it."""
        if try_.state in TERMINAL:  # it was reported when it was left behind
            return
        try_.reason = try_.reason or reason
        try_.move(SUCCESS if try_.reason is None else FAILED)
        try_.task = None
        self._known -= 1
        self._ended.append(try_)
        for watcher in try_.watchers:
            _tell(watcher, (try_.state, try_.reason))
        if not self._known:
            self._none_known.set()

    def _time_out(self, try_: _Try) -> None:
        if try_.task:
            try_.reason = f"it was cancelled after {self._timeout_s} s"
            try_.task.cancel()
            self._loop.call_later(self._patience_s, self._leave_behind, try_)

    def _leave_behind(self, try_: _Try) -> None:
        """It keeps its slot, for it still runs."""
        if task := try_.task:
            self._settle(try_, None)
            _warn_of_stubborn({task: try_})

    def _cancel_all(self) -> None:
        self._take_over_nothing()
        for try_ in self._tasks.values():
            try_.reason = _TERMINATED
            assert try_.task is not None
            try_.task.cancel()

    def _take_over_nothing(self) -> None:
        """What waits, wherever it waits, is not to be started."""
        self._known += len(self._submitted)  # _settle() will take them off again
        dropped = [*self._submitted, *self._waiting]
        for gate in self._gates.values():
            dropped += gate.clear()
        self._submitted.clear()
        self._waiting.clear()
        for _, _, try_ in sorted(dropped):
            self._settle(try_, f"{_TERMINATED} before it started")

    async def _stop_all(self) -> dict[asyncio.Task[str | None], _Try]:
        """Cancel everything and wait for it; what does not heed that is settled and returned."""
        self._cancel_all()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=self._patience_s)
            # The time may have passed before each had a turn: one to begin, to be cancelled, to be done.
            for _ in range(3):
                await asyncio.sleep(0)
        for try_ in self._tasks.values():
            self._settle(try_, _TERMINATED)
        return self._tasks.copy()

    async def _until_none_is_known(self) -> None:
        while self._known or self._submitted:
            if self._known:
                await self._none_known.wait()
            else:
                await asyncio.sleep(0)  # the loop was told, and is about to take over

    def _name_of(self, task: asyncio.Task[Any]) -> str | None:
        try_ = self._tasks.get(task) or self._beginning
        return None if try_ is None else f"task {try_.key!r}"


def _warn_of_stubborn(tasks: Mapping[asyncio.Task[str | None], _Try]) -> None:
    keys = [try_.key for task, try_ in tasks.items() if not task.done()]
    if keys:
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        warnings.warn(
            f"task {keys[0]!r}{more} did not heed cancellation: left behind",
            RuntimeWarning,
            stacklevel=3,
        )


def _tell(watcher: asyncio.Future[Event], event: Event) -> None:
    def tell() -> None:
        if not watcher.done():
            watcher.set_result(event)

    loop = watcher.get_loop()
    if loop is asyncio._get_running_loop():
        tell()
        return
    try:
        loop.call_soon_threadsafe(tell)
    except RuntimeError:
        pass  # its loop is closed: nobody waits


def _why(error: BaseException) -> str:
    return f"{type(error).__name__}: {text_of(error)}"


def _why_exited(exit_: SystemExit) -> str | None:
    """As a process would that exits so."""
    code = exit_.code
    if code is None or (type(code) is int and code & 0xFF == 0):
        return None
    return _why(exit_)


def _is_a_time(seconds: object) -> bool:
    return isinstance(seconds, (int, float)) and seconds > 0


def _dag(key: Any) -> object:
    return getattr(key, "dag_id", key[0] if isinstance(key, tuple) and key else None)
