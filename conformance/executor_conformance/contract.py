"""The contract: what an executor offers to the scheduler that drives it.

It is Airflow 2's executor interface, made exact.  No executor has to import it: an executor conforms by its
methods and its behaviour.  It is defined here once, as types and as a table of legal transitions; the rules
in
:mod:`executor_conformance.rules` check it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable


class TaskKey(NamedTuple):
    """Identifies one try of one task; the fields are those of Airflow's ``TaskInstanceKey``."""

    dag_id: str
    task_id: str
    run_id: str
    try_number: int = 1
    map_index: int = -1


QUEUED = "queued"
RUNNING = "running"
SUCCESS = "success"
FAILED = "failed"

STATES = (QUEUED, RUNNING, SUCCESS, FAILED)
TERMINAL_STATES = frozenset({SUCCESS, FAILED})

#: What may be reported next for one accepted try, by what was reported last (``None``: nothing yet).
#: ``queued`` and ``running`` are optional; a terminal state is the last word.
LEGAL_TRANSITIONS: Mapping[str | None, frozenset[str]] = {
    None: frozenset({QUEUED, RUNNING, SUCCESS, FAILED}),
    QUEUED: frozenset({RUNNING, SUCCESS, FAILED}),
    RUNNING: frozenset({SUCCESS, FAILED}),
    SUCCESS: frozenset(),
    FAILED: frozenset(),
}


class Call(str, enum.Enum):
    """The calls of the contract; the value is the name under which messages show it."""

    CONSTRUCTOR = "constructor"
    START = "start()"
    EXECUTE_ASYNC = "execute_async()"
    QUEUE_COMMAND = "queue_command()"
    HEARTBEAT = "heartbeat()"
    SYNC = "sync()"
    GET_EVENT_BUFFER = "get_event_buffer()"
    END = "end()"
    TERMINATE = "terminate()"

    __str__ = str.__str__


#: Calls that a scheduler makes once.
LIFECYCLE_CALLS = frozenset({Call.CONSTRUCTOR, Call.START, Call.END, Call.TERMINATE})

Command = Sequence[str] | Callable[[], object] | Callable[[], Coroutine[Any, Any, object]]
EventBuffer = dict[TaskKey, tuple[str, object]]


@runtime_checkable
class Executor(Protocol):
    """What every executor offers.

    A scheduler calls all of it from one lasting thread, and pumps ``heartbeat()`` (where there is one, else
    ``sync()``) all the while.

    The constructor takes ``parallelism``, the number of tasks that may run at once (0 is refused or means
    unlimited), and is inert: it makes no process, no thread and no file.  A value that is not valid is
    refused with an error before anything is started.

    Optional, and judged where present: ``heartbeat()``, ``queue_command(key, command, priority=1,
    queue=None)``, ``slots_available``, ``slots_occupied``, ``running``, ``queued_tasks``,
    ``try_adopt_task_instances()``, ``revoke_task()``, ``is_async`` (bool) and ``command_kinds`` (a frozenset
    out of ``"argv"``, ``"callable"``, ``"coroutine"``).
    """

    parallelism: int

    def start(self) -> None:
        """Start once; workers are up afterwards, or come lazily.

        A second call is refused with an error or changes nothing.
        """

    def execute_async(
        self, key: TaskKey, command: Command, queue: str | None = None, executor_config: object = None
    ) -> None:
        """Accept one try of a task: run ``command`` when a slot is free.

        :param command: an argv sequence of ``str``; executors may also take a zero-argument callable or a
            coroutine function.  ``[sys.executable, "-m", "pkg.mod", ...]`` may be run inside a forked child;
            every other argv is executed as it stands.
        :raises Exception: before ``start()`` and after ``end()``, and for what cannot be run.
        """

    def sync(self) -> None:
        """Collect results and hand over waiting tasks; never waits for a task."""

    def get_event_buffer(self, dag_ids: Sequence[str] | None = None) -> EventBuffer:
        """Return the events since the last call, each once: key -> (state, info).

        :param dag_ids: return (and flush) only events of these DAGs.
        """

    def end(self) -> None:
        """Finish what was accepted, stop and reap every worker; calling it again changes nothing."""

    def terminate(self) -> None:
        """Stop now: what ran or waited is reported ``failed``, and nothing survives."""
