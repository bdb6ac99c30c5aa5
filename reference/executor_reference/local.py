"""The reference executor: the whole contract in one class, with each task in its own process.

Nothing here polls.  Tasks share nothing: there is no queue, no lock, and no pool whose worker could die while
it holds another task.  A try waits in a heap until there is a slot.  A launcher then starts it, and its end
makes a descriptor readable.

A signal handler of the host may raise in the middle of any call.  So each change of a try is one assignment
to its state; the queue, the running tasks and the events only follow from the states.  After an exception,
the next call restores them (:meth:`LocalExecutor._recover`).
"""

from __future__ import annotations

import heapq
import itertools
import os
import sys
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any

from executor_reference.commands import Command, parse
from executor_reference.events import split_events
from executor_reference.launch import ForkLauncher, Job, Launcher, is_of_the_system
from executor_reference.spares import FreshLauncher, InterpreterLauncher, SnapshotLauncher
from executor_reference.states import FAILED, QUEUED, RUNNING, SUCCESS, TERMINAL, TRANSITIONS

Key = Hashable

_FORKSERVER = "forkserver"
_LAUNCHERS: dict[str, Callable[[int], Launcher]] = {
    "snapshot": SnapshotLauncher,
    "fork": lambda spares: ForkLauncher(),
    _FORKSERVER: FreshLauncher,
    "spawn": InterpreterLauncher,
}


class _Try(Job):
    """One try of a task.

    :param entry: its entry in the heap of queued tries, without the try itself: (-priority, number).
    """

    __slots__ = ("command", "entry", "key", "reason", "state")

    def __init__(self, key: Key, command: Command, entry: tuple[int, int], prepared: Any) -> None:
        super().__init__(prepared)
        self.key = key
        self.command = command
        self.entry = entry
        self.state = QUEUED
        self.reason: str | None = None


class _Changes:
    """Notices that an exception has interrupted a change."""

    interrupted = False

    def __enter__(self) -> None:
        self.interrupted = True

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.interrupted = kind is not None


class LocalExecutor:
    """Runs each task in its own process on this machine.

    Call it from a single thread that lives as long as the executor: tasks die with the thread that started
    them.

    The default start method, ``"snapshot"``, has the shortest queued time, however large the host is, and
    needs no list of modules.  A task finds the memory of the host as it was at ``start()``, with the imported
    modules and ``__main__``.  So start the executor after the imports, and before the first thread.  Only the
    environment and the working directory are those at the start of the task.  A callable must be picklable,
    or else it is rejected, and its module must have had it at ``start()``, or else its task fails.
    ``"fork"`` has none of these limits, and forks the whole host for each task.  On a free-threaded build, a
    garbage collection in a task forked like that copies the memory that it shares with the host.

    A signal handler of the host may raise in any call: the next call continues where that one stopped.  A
    submission is then either accepted, so the key is in flight, or leaves nothing behind.

    :param parallelism: how many tasks may run at once; 0 means no limit.
    :param start_method: ``"snapshot"`` keeps processes ready, so that no task waits for one.  It forks them
        from a copy of the host that ``start()`` makes.  ``"forkserver"`` forks them from a small new
        interpreter, which makes more tasks per second if the host is large, and ``"spawn"`` gives each task a
        new interpreter.  ``"fork"`` forks each task from the host when the task starts.
    :param preload: modules to import before tasks are forked; only for ``"forkserver"``.
    :raises ValueError: the parallelism, the start method or the use of ``preload`` is invalid.  Nothing has
        been started then.
    """

    is_async = False
    command_kinds = frozenset({"argv", "callable"})

    def __init__(
        self, parallelism: int = 32, start_method: str = "snapshot", preload: Sequence[str] = ()
    ) -> None:
        if type(parallelism) is not int or parallelism < 0:  # isinstance() would accept True
            raise ValueError(f"parallelism must be an int >= 0 (0: no limit), got {parallelism!r}")
        if start_method not in _LAUNCHERS:
            raise ValueError(f"start_method must be one of {', '.join(_LAUNCHERS)}, got {start_method!r}")
        if preload and start_method != _FORKSERVER:
            raise ValueError(f"preload needs start_method={_FORKSERVER!r}, got {start_method!r}")
        self.parallelism = parallelism
        spares = min(parallelism or sys.maxsize, (os.cpu_count() or 1) + 1)
        self._launcher: Launcher = (
            FreshLauncher(spares, tuple(preload)) if preload else _LAUNCHERS[start_method](spares)
        )
        self._accepting = False
        self._started = False
        self._submissions = itertools.count()
        self._tries: dict[Key, _Try] = {}  # in flight
        # What follows from the states of the tries:
        self._queue: list[tuple[tuple[int, int], _Try]] = []  # a heap
        self._running: dict[Key, _Try] = {}
        self._events: dict[Key, tuple[str, str | None]] = {}
        self._changes = _Changes()

    # -- lifecycle -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Get ready to run tasks.

        :raises RuntimeError: the executor was started before.
        """
        if self._started:
            raise RuntimeError("start() was called before; an executor can be started only once")
        self._started = True
        self._launcher.start()
        self._accepting = True

    def end(self) -> None:
        """Run all accepted tasks to completion, then stop.  Further calls do nothing."""
        self._accepting = False
        self._recover()
        with self._changes:
            while self._running or self._queue:
                self._start_queued()
                self._collect(None)
            self._launcher.stop()

    def terminate(self) -> None:
        """Kill running tasks, drop queued ones, and report all of them as ``failed``."""
        self._accepting = False
        self._recover()
        with self._changes:
            while self._queue:
                self._end_task(self._queue[0][1], "terminated before it started")
                heapq.heappop(self._queue)
            for try_ in self._running.values():
                if try_.end is None:
                    self._launcher.kill(try_)
            while self._running:
                self._collect(None)
            self._launcher.stop()

    # -- tasks -----------------------------------------------------------------------------------------------

    def execute_async(
        self, key: Key, command: Any, queue: str | None = None, executor_config: object = None
    ) -> None:
        """Accept one try of a task, and start it at once if there is a slot.

        :param command: a sequence of ``str`` to execute, or a callable without arguments.  With every start
            method but ``spawn``, ``[sys.executable, "-m", module, ...]`` runs the module in the forked child.
        :param queue: ignored; there is one queue.
        :param executor_config: ignored.
        :raises RuntimeError: the executor is not running.
        :raises ValueError: the key is in flight or has an event in the buffer, or no system could execute the
            argv.
        :raises TypeError: the command is of no supported kind.
        """
        self.queue_command(key, command, queue=queue)
        with self._changes:
            self._start_queued()

    def queue_command(self, key: Key, command: Any, priority: int = 1, queue: str | None = None) -> None:
        """Accept one try of a task for the next ``heartbeat()``, which starts higher priorities first.

        Parameters and errors are those of :meth:`execute_async`.
        """
        if not self._accepting:
            raise RuntimeError(f"cannot accept {key!r}: the executor is not running")
        self._recover()
        if key in self._tries:
            raise ValueError(f"{key!r} is in flight; another try needs another key")
        if key in self._events:
            raise ValueError(f"{key!r} has an event in the buffer; call get_event_buffer() first")
        parsed = parse(command)
        entry = (-priority, next(self._submissions))
        try_ = _Try(key, parsed, entry, self._launcher.prepare(parsed))
        with self._changes:
            self._tries[key] = try_
            heapq.heappush(self._queue, (entry, try_))

    def heartbeat(self) -> None:
        """Do one round of the scheduler's loop: the same as :meth:`sync`."""
        self.sync()

    def sync(self) -> None:
        """Collect ended tasks and fill the free slots.  Never blocks."""
        self._recover()
        with self._changes:
            self._collect(0)
            self._start_queued()

    def wait(self, timeout_s: float | None = None) -> None:
        """Like :meth:`sync`, but block until something happens to a running task.

        Returns at once if no task runs.

        :param timeout_s: the longest wait, in seconds; ``None``: no limit.
        """
        self._recover()
        with self._changes:
            self._collect(timeout_s)
            self._start_queued()

    def get_event_buffer(self, dag_ids: Collection[str] | None = None) -> dict[Any, tuple[str, str | None]]:
        """Drain the event buffer.

        If a signal handler raises in this call, the events stay in the buffer.  If it raises while the call
        returns, before the caller has stored the result, the events are lost with the result.

        :param dag_ids: take only the events whose key has one of these ``dag_id``; the others stay.
        :returns: key -> (``"success"``, ``None``) or (``"failed"``, the reason).
        """
        self._recover()
        events = self._events
        taken, kept = split_events(events, dag_ids)
        try:
            self._events = kept
            return taken
        except BaseException:
            self._events = events
            raise

    # -- what a scheduler reads ------------------------------------------------------------------------------

    @property
    def running(self) -> set[Key]:
        """The keys of the running tasks."""
        return set(self._running)

    @property
    def queued_tasks(self) -> Mapping[Key, Command]:
        """The keys of the queued tasks, with their commands."""
        return {key: try_.command for key, try_ in self._tries.items() if try_.state == QUEUED}

    @property
    def slots_occupied(self) -> int:
        """The number of running and queued tasks."""
        return len(self._tries)

    @property
    def slots_available(self) -> int:
        """``parallelism`` minus ``slots_occupied``; can be negative.  ``sys.maxsize`` without a limit."""
        return self.parallelism - self.slots_occupied if self.parallelism else sys.maxsize

    # -- state changes ---------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Restore what follows from the states of the tries, if an exception has interrupted a change."""
        if self._changes.interrupted:
            for try_ in list(self._tries.values()):
                if try_.state in TERMINAL:
                    self._report(try_)
            tries = self._tries.values()
            self._queue = sorted((try_.entry, try_) for try_ in tries if try_.state == QUEUED)
            self._running = {try_.key: try_ for try_ in tries if try_.state == RUNNING}
            for try_ in list(self._running.values()):
                if try_.end is None:
                    self._launch(try_)
            self._changes.interrupted = False

    def _start_queued(self) -> None:
        """Start queued tasks while there is a free slot."""
        while self._queue and (self.parallelism == 0 or len(self._running) < self.parallelism):
            try_ = self._queue[0][1]
            self._move(try_, RUNNING)
            self._running[try_.key] = try_
            heapq.heappop(self._queue)
            self._launch(try_)

    def _launch(self, try_: _Try) -> None:
        """Start a task, or complete a start that an exception has interrupted."""
        try:
            self._launcher.launch(try_)
        except OSError as error:
            if not is_of_the_system(error):
                raise
            # The system is out of processes, memory or descriptors.
            self._end_task(try_, f"could not be started: {error}")

    def _collect(self, timeout_s: float | None) -> None:
        """Collect ended tasks, after a wait of at most ``timeout_s`` seconds for something to happen."""
        if self._running:
            self._launcher.collect(timeout_s)
            for try_ in list(self._launcher.ended):
                assert isinstance(try_, _Try)
                assert try_.end is not None
                self._end_task(try_, *try_.end)
                del self._launcher.ended[try_]

    def _end_task(self, try_: _Try, reason: str | None) -> None:
        """Report the terminal event: ``success`` if there is no reason, else ``failed``."""
        if try_.state not in TERMINAL:
            try_.reason = reason
            self._move(try_, SUCCESS if reason is None else FAILED)
        self._report(try_)

    def _move(self, try_: _Try, after: str) -> None:
        before = try_.state
        assert after in TRANSITIONS[before], f"{try_.key!r} cannot change from {before} to {after}"
        try_.state = after

    def _report(self, try_: _Try) -> None:
        if self._tries.get(try_.key) is try_:  # else an interrupted call has reported it
            self._events[try_.key] = (try_.state, try_.reason)
            self._running.pop(try_.key, None)
            del self._tries[try_.key]
