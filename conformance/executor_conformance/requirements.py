"""What a rule needs before it can be judged: abilities of the executor, and things that the suite can
observe.

A rule lists both in ``needs=``.  The specification, ``--explain`` and the report show them, and a rule whose
needs are not met is ``not_applicable`` with the reason.
"""

from __future__ import annotations

import enum


class Capability(enum.Enum):
    """An ability that an adapter may lack; the value describes it."""

    START = "a start() method separate from the constructor"
    TERMINATE = "a terminate() method"
    REPEATED_END = "an end() method that the scheduler may call more than once"
    INERT_CONSTRUCTOR = "a constructor separate from the start"
    EXIT_STATUS = "tasks that are commands with an exit status"
    ARGV = "argv commands"
    CALLABLE = "callables as commands"
    COROUTINE = "coroutine functions as commands"
    ASYNC = "tasks that share an event loop (is_async is true)"
    KEYS = "keys chosen by the caller"
    EVENT_FILTER = "an event buffer that can be drained for selected DAGs"
    QUEUE_AND_CONFIG = "a queue and an executor_config per task"
    CHOSEN_PARALLELISM = "a parallelism that the caller chooses"
    OWN_WORKERS = "workers that the executor itself starts and stops"
    PARALLELISM_ATTRIBUTE = "a public parallelism attribute"
    FINISHES_QUEUED_WORK = "an end() that finishes the work it accepted"
    RUNS_ONCE = "tasks that the executor itself never retries"
    RESULTS = "task results that are returned to the scheduler"
    CALLS = "calls with arguments, as in concurrent.futures"


class TaskLocation(str, enum.Enum):
    """Where the first task was seen to run, relative to the process that holds the executor (the host)."""

    HOST = "in the host"
    LOCAL_PROCESSES = "local processes"
    ELSEWHERE = "elsewhere"
    UNKNOWN = "unknown"

    __str__ = str.__str__


class Observation(enum.Enum):
    """Something that the suite must be able to see; the value describes it.

    What cannot be seen is not judged: it would pass whatever the executor does.
    """

    LOCAL_PROCESSES = "tasks in processes below the scheduler's own, where the suite can see and signal them"
    VISIBLE_WORKERS = "workers in or below the scheduler's process, where the suite can see them"

    def missing(self, location: TaskLocation) -> str:
        """Why a rule that needs this is not applicable to tasks at ``location``; empty if it is."""
        if location is TaskLocation.LOCAL_PROCESSES or (
            location is TaskLocation.HOST and self is Observation.VISIBLE_WORKERS
        ):
            return ""
        return _REASONS[location]


_REASONS = {
    TaskLocation.HOST: "tasks run in the scheduler's own process (same pid)",
    TaskLocation.ELSEWHERE: "tasks run outside the scheduler's process tree, where the suite cannot see them",
    TaskLocation.UNKNOWN: "no task was seen to run, so it is not known where tasks run",
}

#: What ``needs=`` of a rule may list.
Need = Capability | Observation
