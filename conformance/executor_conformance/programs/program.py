"""A program: what a scheduler and its environment do to one executor, as a sequence of steps.

Every step is possible at any time; one that makes no sense then does nothing.  So any subsequence of a
program is a program too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

#: Step -> its line in the timeline.
DOINGS = {
    "submit": "submit task {task} of DAG {dag}",
    "fail": "submit task {task} of DAG {dag}, which will fail",
    "hold": "submit task {task} of DAG {dag}, which runs until it is released",
    "release": "release task {task}",
    "retry": "submit a retry of task {task}",
    "pump": "run the scheduler loop once",
    "work": "run the scheduler loop until every task that can end has ended; leave the events in the buffer",
    "drain": "drain the event buffer",
    "drain-dag": "drain the event buffer for DAG {dag}",
    "settle": "run the scheduler loop until all slots are used",
    "kill": "kill the worker of task {task}",
    "second": "start a second executor, run a task on it and end it",
    "end": "release all tasks and call end()",
    "terminate": "call terminate()",
    "late": "submit a task after the end",
}
DAGS = ("a", "b")


@dataclass(frozen=True)
class Step:
    """One step.

    :param task: selects one of the tasks that the step can apply to, modulo their number.
    """

    do: str
    task: int = 0
    dag: str = DAGS[0]

    def describe(self, task: object) -> str:
        """Its line in the timeline, for the task with this number."""
        return DOINGS[self.do].format(task=task, dag=self.dag)


@dataclass(frozen=True)
class Program:
    """The steps for one executor.

    :param parallelism: 0 means unlimited.
    """

    parallelism: int
    steps: tuple[Step, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Program:
        """The reverse of :meth:`as_dict`.

        :raises ValueError: the data is not a valid program; the text names what is wrong.
        """
        parallelism, steps = data.get("parallelism"), data.get("steps")
        if type(parallelism) is not int or parallelism < 0:
            raise ValueError(
                f"parallelism must be a non-negative integer (0 means unlimited), not {parallelism!r}"
            )
        if not isinstance(steps, list):
            raise ValueError(f"steps must be a list, not {steps!r}")
        return cls(parallelism, tuple(_step(number, step) for number, step in enumerate(steps, 1)))


def _step(number: int, data: Any) -> Step:
    if not isinstance(data, dict) or data.get("do") not in DOINGS:
        raise ValueError(f"step {number}: 'do' must be one of {', '.join(DOINGS)}, in {data!r}")
    task, dag = data.get("task", 0), data.get("dag", DAGS[0])
    if type(task) is not int or task < 0 or dag not in DAGS:
        raise ValueError(
            f"step {number}: 'task' must be a non-negative integer and 'dag' one of {', '.join(DAGS)}, "
            f"in {data!r}"
        )
    return Step(data["do"], task, dag)
