"""The reference executor: the whole contract in one class, with each task in its own process.

Nothing here polls.  Tasks share nothing: there is no queue, no lock, and no pool whose worker could die while
it holds another task.  A try waits in a heap until there is a slot.  A launcher then starts it, and its end
makes a descriptor readable.
"""

from __future__ import annotations

import heapq
import itertools
import os
import sys
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any

from executor_reference.commands import Command, parse
from executor_reference.launch import ForkLauncher, Launcher
from executor_reference.spares import FreshLauncher, InterpreterLauncher, SnapshotLauncher
from executor_reference.states import FAILED, QUEUED, RUNNING, SUCCESS, TRANSITIONS

Key = Hashable

_FORKSERVER = "forkserver"
_LAUNCHERS: dict[str, Callable[[int], Launcher]] = {
    "fork": lambda spares: ForkLauncher(),
    "snapshot": SnapshotLauncher,
    _FORKSERVER: FreshLauncher,
    "spawn": InterpreterLauncher,
}


class LocalExecutor:
    """Runs each task in its own process on this machine.

    Call it from a single thread that lives as long as the executor: tasks die with the thread that started
    them.

    :param parallelism: how many tasks may run at once; 0 means no limit.
    :param start_method: ``"fork"`` forks each task from the host when the task starts.  The other methods
        keep processes ready, so that no task waits for one.  ``"snapshot"`` forks them from a copy of the
        host that ``start()`` makes, ``"forkserver"`` from a small new interpreter, and ``"spawn"`` gives each
        task a new interpreter.
    :param preload: modules to import before tasks are forked; only for ``"forkserver"``.
    :raises ValueError: the parallelism, the start method or the use of ``preload`` is invalid.  Nothing has
        been started then.
    """

    is_async = False
    command_kinds = frozenset({"argv", "callable"})

    def __init__(
        self, parallelism: int = 32, start_method: str = "fork", preload: Sequence[str] = ()
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
        # A heap of (-priority, submission number, key, prepared command).
        self._queue: list[tuple[int, int, Key, Any]] = []
        self._submissions = itertools.count()
        self._commands: dict[Key, Command] = {}  # of the queued tasks
        self._tasks: dict[Key, int] = {}  # running tasks -> the launcher's numbers
        self._keys: dict[int, Key] = {}  # the inverse of _tasks
        self._events: dict[Key, tuple[str, str | None]] = {}

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
        while self._tasks or self._queue:
            self._start_queued()
            self._collect(None)
        self._launcher.stop()

    def terminate(self) -> None:
        """Kill running tasks, drop queued ones, and report all of them as ``failed``."""
        self._accepting = False
        while self._queue:
            key = heapq.heappop(self._queue)[2]
            del self._commands[key]
            self._end_task(key, QUEUED, "terminated before it started")
        for number in self._tasks.values():
            self._launcher.kill(number)
        while self._tasks:
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
        :raises ValueError: the key is in flight, or no system could execute the argv.
        :raises TypeError: the command is of no supported kind.
        """
        self.queue_command(key, command, queue=queue)
        self._start_queued()

    def queue_command(self, key: Key, command: Any, priority: int = 1, queue: str | None = None) -> None:
        """Accept one try of a task for the next ``heartbeat()``, which starts higher priorities first.

        Parameters and errors are those of :meth:`execute_async`.
        """
        if not self._accepting:
            raise RuntimeError(f"cannot accept {key!r}: the executor is not running")
        if key in self._tasks or key in self._commands:
            raise ValueError(f"{key!r} is in flight; another try needs another key")
        parsed = parse(command)
        prepared = self._launcher.prepare(parsed)
        self._commands[key] = parsed
        heapq.heappush(self._queue, (-priority, next(self._submissions), key, prepared))

    def heartbeat(self) -> None:
        """Do one round of the scheduler's loop: the same as :meth:`sync`."""
        self.sync()

    def sync(self) -> None:
        """Collect ended tasks and fill the free slots.  Never blocks."""
        self._collect(0)
        self._start_queued()

    def wait(self, timeout_s: float | None = None) -> None:
        """Like :meth:`sync`, but block until something happens to a running task.

        Returns at once if no task runs.

        :param timeout_s: the longest wait, in seconds; ``None``: no limit.
        """
        self._collect(timeout_s)
        self._start_queued()

    def get_event_buffer(self, dag_ids: Collection[str] | None = None) -> dict[Any, tuple[str, str | None]]:
        """Drain the event buffer.

        :param dag_ids: take only the events whose key has one of these ``dag_id``; the others stay.
        :returns: key -> (``"success"``, ``None``) or (``"failed"``, the reason).
        """
        taken = {key: event for key, event in self._events.items() if dag_ids is None or _dag(key) in dag_ids}
        for key in taken:
            del self._events[key]
        return taken

    # -- what a scheduler reads ------------------------------------------------------------------------------

    @property
    def running(self) -> set[Key]:
        """The keys of the running tasks."""
        return set(self._tasks)

    @property
    def queued_tasks(self) -> Mapping[Key, Command]:
        """The keys of the queued tasks, with their commands."""
        return dict(self._commands)

    @property
    def slots_occupied(self) -> int:
        """The number of running and queued tasks."""
        return len(self._tasks) + len(self._commands)

    @property
    def slots_available(self) -> int:
        """``parallelism`` minus ``slots_occupied``; can be negative.  ``sys.maxsize`` without a limit."""
        return self.parallelism - self.slots_occupied if self.parallelism else sys.maxsize

    # -- state changes ---------------------------------------------------------------------------------------

    def _start_queued(self) -> None:
        """Start queued tasks while there is a free slot."""
        while self._queue and (self.parallelism == 0 or len(self._tasks) < self.parallelism):
            _, _, key, prepared = heapq.heappop(self._queue)
            del self._commands[key]
            try:
                number = self._launcher.launch(prepared)
            except OSError as error:  # the system is out of processes, memory or descriptors
                self._end_task(key, QUEUED, f"could not be started: {error}")
            else:
                self._tasks[key] = number
                self._keys[number] = key

    def _collect(self, timeout_s: float | None) -> None:
        """Collect ended tasks, after a wait of at most ``timeout_s`` seconds for something to happen."""
        if self._tasks:
            for number, reason in self._launcher.ended(timeout_s):
                key = self._keys.pop(number)
                del self._tasks[key]
                self._end_task(key, RUNNING, reason)

    def _end_task(self, key: Key, before: str, reason: str | None) -> None:
        """Report the terminal event: ``success`` if there is no reason, else ``failed``."""
        after = SUCCESS if reason is None else FAILED
        assert after in TRANSITIONS[before], f"{key!r} cannot change from {before} to {after}"
        self._events[key] = (after, reason)


def _dag(key: Any) -> object:
    return getattr(key, "dag_id", key[0] if isinstance(key, tuple) and key else None)
