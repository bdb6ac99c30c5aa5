"""The reference executor: the whole contract in one class, each task in a process of its own.

Nothing here polls, and nothing is shared between tasks: no queue, no lock, no pool of workers that could die
with another's work in hand.  A try of a task waits in one heap until there is a slot, is started by a
launcher, and is collected through a descriptor that becomes readable when it ends.
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
    """Runs tasks on this machine, each in a process of its own.

    Call it from one lasting thread, as a scheduler does: tasks die with the thread that started them.

    :param parallelism: how many tasks may run at once; 0 means without limit.
    :param start_method: ``"fork"`` forks each task from the host, when it is due.  The others have processes
        made ahead of demand, so that no task waits for one: ``"snapshot"`` by a process that ``start()``
        forks from the host, ``"forkserver"`` by one that is small because it has imported nothing;
        ``"spawn"`` gives each task a new interpreter.
    :param preload: modules that tasks find imported; of ``"forkserver"`` only.
    :raises ValueError: for any other parallelism or start method; nothing has been started then.
    """

    is_async = False
    command_kinds = frozenset({"argv", "callable"})

    def __init__(
        self, parallelism: int = 32, start_method: str = "fork", preload: Sequence[str] = ()
    ) -> None:
        if type(parallelism) is not int or parallelism < 0:  # bool is an int, and nobody means it
            raise ValueError(f"parallelism must be an int from 0 (no limit) up, got {parallelism!r}")
        if start_method not in _LAUNCHERS:
            raise ValueError(f"start_method must be one of {', '.join(_LAUNCHERS)}, got {start_method!r}")
        if preload and start_method != _FORKSERVER:
            raise ValueError(f"preload is for start_method={_FORKSERVER!r}, not {start_method!r}")
        self.parallelism = parallelism
        spares = min(parallelism or sys.maxsize, (os.cpu_count() or 1) + 1)
        self._launcher: Launcher = (
            FreshLauncher(spares, tuple(preload)) if preload else _LAUNCHERS[start_method](spares)
        )
        self._accepting = False
        self._started = False
        # a heap of (-priority, order of arrival, key, what the launcher takes)
        self._waiting: list[tuple[int, int, Key, Any]] = []
        self._arrivals = itertools.count()
        self._commands: dict[Key, Command] = {}  # of the waiting
        self._tasks: dict[Key, int] = {}  # what runs, with the launcher's number for it
        self._keys: dict[int, Key] = {}  # the other way round
        self._events: dict[Key, tuple[str, str | None]] = {}

    # -- life ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Get ready to run tasks.

        :raises RuntimeError: it has been started before.
        """
        if self._started:
            raise RuntimeError("start() was called before; an executor is started once")
        self._started = True
        self._launcher.start()
        self._accepting = True

    def end(self) -> None:
        """Run everything that was accepted to its end, then stop; calling it again changes nothing."""
        self._accepting = False
        while self._tasks or self._waiting:
            self._hand_over()
            self._collect(None)
        self._launcher.stop()

    def terminate(self) -> None:
        """Kill what runs, drop what waits, and report all of it ``failed``."""
        self._accepting = False
        while self._waiting:
            key = heapq.heappop(self._waiting)[2]
            del self._commands[key]
            self._end_task(key, QUEUED, "terminated before it started")
        for number in self._tasks.values():
            self._launcher.kill(number)
        while self._tasks:
            self._collect(None)
        self._launcher.stop()

    # -- work ------------------------------------------------------------------------------------------------

    def execute_async(
        self, key: Key, command: Any, queue: str | None = None, executor_config: object = None
    ) -> None:
        """Accept one try of a task; it starts at once if there is a slot.

        :param command: a sequence of ``str`` to execute, or a callable without arguments.  In every
            mode but ``spawn``, ``[sys.executable, "-m", module, ...]`` runs the module in the forked child.
        :param queue: ignored; there is one queue.
        :param executor_config: ignored.
        :raises RuntimeError: the executor is not running.
        :raises ValueError: the key is in flight already, or the argv cannot be executed by any system.
        :raises TypeError: the command is of no known kind.
        """
        self.queue_command(key, command, queue=queue)
        self._hand_over()

    def queue_command(self, key: Key, command: Any, priority: int = 1, queue: str | None = None) -> None:
        """Accept one try of a task, to be started by the next ``heartbeat()``; the highest priority first.

        Arguments and errors as for :meth:`execute_async`.
        """
        if not self._accepting:
            raise RuntimeError(f"the executor is not running, so it cannot take {key!r}")
        if key in self._tasks or key in self._commands:
            raise ValueError(f"{key!r} is in flight; another try needs another key")
        parsed = parse(command)
        prepared = self._launcher.prepare(parsed)
        self._commands[key] = parsed
        heapq.heappush(self._waiting, (-priority, next(self._arrivals), key, prepared))

    def heartbeat(self) -> None:
        """One round of the scheduler's loop."""
        self.sync()

    def sync(self) -> None:
        """Collect what has ended and fill the free slots; never waits."""
        self._collect(0)
        self._hand_over()

    def wait(self, timeout_s: float | None = None) -> None:
        """As :meth:`sync`, but waits until something has happened to a task that runs; else returns at once.

        :param timeout_s: seconds, at the most; ``None``: as long as it takes.
        """
        self._collect(timeout_s)
        self._hand_over()

    def get_event_buffer(self, dag_ids: Collection[str] | None = None) -> dict[Any, tuple[str, str | None]]:
        """Take the events out of the buffer.

        :param dag_ids: only those whose key's ``dag_id`` is one of these; the others stay.
        :returns: key -> (``"success"``, ``None``) or (``"failed"``, the reason).
        """
        taken = {key: event for key, event in self._events.items() if dag_ids is None or _dag(key) in dag_ids}
        for key in taken:
            del self._events[key]
        return taken

    # -- what a scheduler reads ------------------------------------------------------------------------------

    @property
    def running(self) -> set[Key]:
        """Keys that have a slot."""
        return set(self._tasks)

    @property
    def queued_tasks(self) -> Mapping[Key, Command]:
        """Keys that wait for a slot, with their commands."""
        return dict(self._commands)

    @property
    def slots_occupied(self) -> int:
        """How many tasks run or wait."""
        return len(self._tasks) + len(self._commands)

    @property
    def slots_available(self) -> int:
        """How many more could run at once; below zero when more wait than could."""
        return self.parallelism - self.slots_occupied if self.parallelism else sys.maxsize

    # -- the moves of a task ---------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        """From waiting to running, while there is a slot."""
        while self._waiting and (self.parallelism == 0 or len(self._tasks) < self.parallelism):
            _, _, key, prepared = heapq.heappop(self._waiting)
            del self._commands[key]
            try:
                number = self._launcher.launch(prepared)
            except OSError as error:  # the machine is out of processes, memory or descriptors
                self._end_task(key, QUEUED, f"it could not be started: {error}")
            else:
                self._tasks[key] = number
                self._keys[number] = key

    def _collect(self, timeout_s: float | None) -> None:
        """From running to ended; waits so long for something to happen to some task."""
        if self._tasks:
            for number, reason in self._launcher.ended(timeout_s):
                key = self._keys.pop(number)
                del self._tasks[key]
                self._end_task(key, RUNNING, reason)

    def _end_task(self, key: Key, before: str, reason: str | None) -> None:
        """The last move: to success if there is no reason against it."""
        after = SUCCESS if reason is None else FAILED
        assert after in TRANSITIONS[before], f"{key!r} cannot go from {before} to {after}"
        self._events[key] = (after, reason)


def _dag(key: Any) -> object:
    return getattr(key, "dag_id", key[0] if isinstance(key, tuple) and key else None)
