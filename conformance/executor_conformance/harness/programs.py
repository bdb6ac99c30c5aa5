"""Programs: what a scheduler and its users do to one executor, as data, and what comes of it.

A program is performed beside a model of what was promised: the history of submissions, starts, ends and
reports goes to the same judge that reads logs from production.  Every step can be done at any time (one that
makes no sense then does nothing), so any part of a program is a program too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from executor_conformance.contract import FAILED, SUCCESS, TaskKey
from executor_conformance.driving import Capability
from executor_conformance.harness import processes
from executor_conformance.harness.linux import monotonic_ns
from executor_conformance.harness.probes import Gate, Probe
from executor_conformance.harness.trial import Trial
from executor_conformance.harness.workers import workers_of
from executor_conformance.history import Event, HistoryJudge, Kind
from executor_conformance.verdicts import Broken

#: What a step does -> what a reader of the timeline is told; ``{task}`` is its number.
DOINGS = {
    "submit": "task {task} of DAG {dag} is submitted",
    "fail": "task {task} of DAG {dag}, which will fail, is submitted",
    "hold": "task {task} of DAG {dag}, which waits to be released, is submitted",
    "release": "task {task} is released",
    "retry": "the next try of task {task} is submitted",
    "pump": "the scheduler's loop goes round once",
    "work": "the scheduler's loop goes round until what is not held is done; the events stay in the buffer",
    "drain": "the event buffer is drained",
    "drain-dag": "the event buffer is drained for DAG {dag}",
    "settle": "the scheduler's loop goes round until all slots are used",
    "kill": "the worker of task {task} is killed",
    "second": "a second executor is started, runs a task and ends",
    "end": "all tasks are released, and end() is called",
    "terminate": "terminate() is called",
    "late": "a task is submitted after that",
}
DAGS = ("a", "b")
_EVENTS_TOLD = 8
#: How many tasks end() has to finish: it has so much time, and tasks may take long.
_LEFT_TO_THE_END = 3


@dataclass(frozen=True)
class Step:
    """One thing that is done; ``task`` counts modulo the tasks there are."""

    do: str
    task: int = 0
    dag: str = DAGS[0]

    def told(self, task: object) -> str:
        return DOINGS[self.do].format(task=task, dag=self.dag)


@dataclass(frozen=True)
class Program:
    """What is done to an executor with ``parallelism`` slots; 0 means without limit."""

    parallelism: int
    steps: tuple[Step, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Program:
        """The reverse of :meth:`as_dict`.

        :raises ValueError: it is no program; the text says what is wrong.
        """
        parallelism, steps = data.get("parallelism"), data.get("steps")
        if type(parallelism) is not int or parallelism < 0:
            raise ValueError(f"parallelism must be a number from 0 (no limit) up, not {parallelism!r}")
        if not isinstance(steps, list):
            raise ValueError(f"steps must be a list, not {steps!r}")
        return cls(parallelism, tuple(_step(number, step) for number, step in enumerate(steps, 1)))


def _step(number: int, data: Any) -> Step:
    if not isinstance(data, dict) or data.get("do") not in DOINGS:
        raise ValueError(f"step {number}: {data!r} does none of {', '.join(DOINGS)}")
    task, dag = data.get("task", 0), data.get("dag", DAGS[0])
    if type(task) is not int or task < 0 or dag not in DAGS:
        raise ValueError(f"step {number}: {data!r} has no task number from 0 up, or a DAG other than a and b")
    return Step(data["do"], task, dag)


class PromiseBroken(Broken):
    """A promise was broken in the course of a program.

    :param promise: the id of its rule.
    :param awaited: empty for what the rule itself says.
    :param is_safety: something happened that must never happen, once seen it is certain; else something did
        not happen in time.
    """

    def __init__(self, promise: str, *, awaited: str, seen: str, is_safety: bool) -> None:
        super().__init__(awaited=awaited, seen=seen)
        self.promise = promise
        self.is_safety = is_safety


@dataclass
class _Task:
    number: int
    probe: Probe
    fails: bool
    gate: Gate | None = None
    killed_ns: int = 0
    submitted_ns: int = 0
    released: bool = False


@dataclass
class Performance:
    """Performs a program on an executor of its own.

    :param tell: is given each line of the timeline as it comes about.
    :param patience: what part of the usual budget is waited for what has to happen.
    """

    trial: Trial
    program: Program
    tell: Callable[[str], None]
    patience: float = 1.0
    _tasks: list[_Task] = field(default_factory=list)
    _events: list[tuple[int, Event]] = field(default_factory=list)
    _killed: bool = False
    _over: str = ""
    _over_ns: int = 0
    _has_coroutines: bool = False

    def run(self) -> None:
        """Perform it to its end and judge the history.

        :raises Broken: a promise was not kept.
        """
        self._began_ns = monotonic_ns()
        self._subject = (
            self.trial.started(self.program.parallelism)
            if self.program.parallelism
            else self.trial.started_without_limit()
        )
        self._slots = self.program.parallelism or sys.maxsize
        # A coroutine may have no process but the host, which a program with deaths in it would kill.
        self._has_coroutines = self._subject.can(Capability.COROUTINE) and all(
            step.do != "kill" for step in self.program.steps
        )
        for step in self.program.steps:
            self._do(step)
        if not self._over:
            self._finish()
        self._subject.drain_all()
        if self._over == "terminate":
            self._await_events("shutdown.terminate-reports-what-ran", self._subject.pump)
        self._judge()

    # -- the steps -------------------------------------------------------------------------------------------

    def _do(self, step: Step) -> None:
        name = step.do.replace("-", "_")
        if self._over and step.do not in ("drain", "drain-dag", "end", "terminate", "late"):
            return
        getattr(self, f"_do_{name}")(step)

    def _do_submit(self, step: Step) -> None:
        self._submit(step, self._new_task(step))

    def _do_fail(self, step: Step) -> None:
        self._submit(step, self._new_task(step, "raise=on purpose", fails=True))

    def _do_hold(self, step: Step) -> None:
        gate = self.trial.gate()
        task = self._new_task(step, gate.step)
        task.gate = gate
        self._submit(step, task)

    def _do_release(self, step: Step) -> None:
        task = _chosen(step, [task for task in self._tasks if task.gate and not task.released])
        if task is not None:
            self._tell(step.told(task.number))
            self._release(task)

    def _do_retry(self, step: Step) -> None:
        if not self._subject.can(Capability.KEYS):
            return

        def done() -> list[_Task]:
            return [task for task in self._tasks if self._subject.outcome(task.probe)]

        will_end = any(task.gate is None or task.released or task.killed_ns for task in self._tasks)
        if will_end and len(self._running()) < self._slots:
            self.trial.comes_true(done, pump=self._subject.pump, budget_s=self.trial.budgets.arrival_s / 8)
        old = _chosen(step, done())
        if old is None:
            return
        key = old.probe.key
        again = key._replace(try_number=1 + max(t.probe.key.try_number for t in self._tasks if _same(t, old)))
        self._submit(step, _Task(old.number, self.trial.probe(key=again), False))

    def _do_pump(self, step: Step) -> None:
        self._tell(step.told(""))
        self._subject.pump()

    def _do_work(self, step: Step) -> None:
        self._tell(step.told(""))
        free = [task for task in self._tasks if (task.gate is None or task.released) and not task.killed_ns]
        self.trial.comes_true(
            lambda: all(task.probe.finished or self._subject.outcome(task.probe) for task in free),
            pump=self._subject.beat,
            budget_s=self.trial.budgets.arrival_s / 4,  # held tasks may have all the slots
        )
        self.trial.quiet(self._subject.beat)

    def _do_drain(self, step: Step) -> None:
        self._tell(step.told(""))
        self._subject.drain()

    def _do_drain_dag(self, step: Step) -> None:
        if not self._subject.can(Capability.EVENT_FILTER):
            return
        self._tell(step.told(""))
        for event in self._subject.drain([step.dag]):
            if event.key[:1] != (step.dag,):
                raise PromiseBroken(
                    "states.the-filter-flushes-what-it-returns",
                    awaited=f"only events of DAG {step.dag}",
                    seen=f"one of {event.key!r}",
                    is_safety=True,
                )

    def _do_settle(self, step: Step) -> None:
        if self._held():
            self._tell(step.told(""))
            self._settle()

    def _held(self) -> list[_Task]:
        return [
            task
            for task in self._tasks
            if task.gate
            and not task.released
            and not task.killed_ns
            and not self._subject.outcome(task.probe)
        ]

    def _running(self) -> list[_Task]:
        return [task for task in self._held() if task.probe.started]

    def _settle(self) -> list[_Task]:
        """Pump until as many held tasks run as there are slots; which those are."""

        def possible() -> int:
            return min(self._slots, len(self._held()))

        self._await(
            lambda: len(self._running()) >= possible(),
            "faults.capacity-is-restored" if self._killed else "parallelism.no-slot-stays-idle",
            awaited=lambda: f"{possible()} of {len(self._held())} tasks that wait to be released to run",
            seen=lambda: f"{len(self._running())} run",
        )
        return self._running()

    def _do_kill(self, step: Step) -> None:
        if self.trial.facts.tasks_in_host:
            return
        running = self._running()
        if len(running) < 2:
            running = self._settle()
        if len(running) < 2:  # a worker is told from what all have in common by comparing two
            return
        doomed = running[step.task % len(running)]
        others = [task.probe for task in running if task is not doomed]
        self._tell(step.told(doomed.number))
        self._killed = True
        doomed.killed_ns = monotonic_ns()
        processes.kill(workers_of(self.trial, [doomed.probe, *others])[0])

    def _do_second(self, step: Step) -> None:
        self._tell(step.told(""))
        second = self.trial.started(1)
        probe = self.trial.probe()
        second.run(probe)
        second.expect_outcome(probe, SUCCESS, "the task of the second executor")
        second.end()

    def _do_end(self, step: Step) -> None:
        if not self.trial.target.adapter.lacks.get(Capability.REPEATED_END) or not self._over:
            self._tell(step.told(""))
            for task in self._tasks:
                self._release(task)
            if not self._over:
                finishes = self._subject.can(Capability.FINISHES_QUEUED_WORK)
                self._await_events(self._lost, self._subject.pump, but=_LEFT_TO_THE_END if finishes else 0)
            self._close("end", self._subject.end)

    def _do_terminate(self, step: Step) -> None:
        if self._subject.can(Capability.TERMINATE):
            self._tell(step.told(""))
            self._close("terminate", self._subject.terminate)

    def _close(self, how: str, call: Callable[[], None]) -> None:
        if not self._over:
            self._over, self._over_ns = how, monotonic_ns()
        call()

    def _do_late(self, step: Step) -> None:
        if not self._over:
            return
        probe = self.trial.probe()
        self._tell(step.told(""))
        refused = self._subject.refusal(lambda: self._subject.submit(probe)) is not None
        if not refused and self._over == "end":
            raise PromiseBroken(
                "lifecycle.submit-after-end-is-refused",
                awaited="an error from a submission after end()",
                seen="it was accepted",
                is_safety=True,
            )

    # -- tasks -----------------------------------------------------------------------------------------------

    def _new_task(self, step: Step, *steps: str, fails: bool = False) -> _Task:
        number = 1 + max((task.number for task in self._tasks), default=0)
        key = TaskKey(step.dag, f"task-{number}", "run", 1, -1)
        return _Task(number, self.trial.probe(*steps, key=key), fails)

    def _submit(self, step: Step, task: _Task) -> None:
        as_coroutine = self._has_coroutines and task.probe.key.dag_id == DAGS[-1]
        self._tell(step.told(task.number) + (", as a coroutine function" if as_coroutine else ""))
        task.submitted_ns = monotonic_ns()
        (self._subject.submit_coroutine if as_coroutine else self._subject.submit)(task.probe)
        self._tasks.append(task)

    def _release(self, task: _Task) -> None:
        if task.gate is not None and not task.released and not task.killed_ns:  # its child may still be there
            task.released = True
            task.gate.open()

    def _finish(self) -> None:
        """What every program ends with: nothing is held any more, and everything is reported."""
        for task in self._tasks:
            self._release(task)
        self._await_events(self._lost, self._subject.pump)
        if self._subject.has("slots_occupied"):
            occupied = self._subject.optional("slots_occupied")
            if occupied != 0:
                raise PromiseBroken(
                    "faults.capacity-is-restored"
                    if self._killed
                    else "parallelism.slots-are-true-to-the-journal",
                    awaited="slots_occupied to be 0 when everything was reported",
                    seen=repr(occupied),
                    is_safety=True,
                )
        self._close("end", self._subject.end)

    @property
    def _lost(self) -> str:
        """The promise that is broken by a task of which nothing is heard."""
        return "faults.the-other-tasks-go-on" if self._killed else "states.exactly-one-terminal-event"

    def _await_events(self, promise: str, pump: Callable[[], object], but: int = 0) -> None:
        """Pump until all tasks ``but`` some have been reported."""

        def missing() -> list[_Task]:
            return [task for task in self._tasks if not self._subject.outcome(task.probe)]

        while (left := len(missing())) > but:  # the budget is for the next event, however many there are
            self._await(
                lambda: len(missing()) < left,
                "faults.a-killed-worker-fails-its-task"
                if any(task.killed_ns for task in missing())
                else promise,
                awaited=lambda: "an event for every task",
                seen=lambda: (
                    f"none for {', '.join(f'task {task.number}' for task in missing()[:4])}; "
                    + self._subject.story([missing()[0].probe])
                ),
                pump=pump,
            )

    def _await(
        self,
        condition: Callable[[], object],
        promise: str,
        *,
        awaited: Callable[[], str],
        seen: Callable[[], str],
        pump: Callable[[], object] | None = None,
    ) -> None:
        budget = self.trial.budgets.arrival_s * self.patience
        if not self.trial.comes_true(condition, pump=pump or self._subject.pump, budget_s=budget):
            raise PromiseBroken(
                promise, awaited=f"{awaited()} within {budget:.1f} s", seen=seen(), is_safety=False
            )

    def _tell(self, line: str) -> None:
        self.tell(f"{(monotonic_ns() - self._began_ns) / 1e6:8.1f} ms  {line}")

    # -- the history -----------------------------------------------------------------------------------------

    def _judge(self) -> None:
        for task in self._tasks:
            self._note(task)
        events = sorted(self._events, key=lambda timed: timed[0])
        judge = HistoryJudge(self.program.parallelism)
        for line, (at_ns, event) in enumerate([*events, (monotonic_ns(), Event(Kind.ENDED))], 1):
            for offence in judge.take(replace(event, line=line)):
                self._tell_events(events, at_ns)
                raise PromiseBroken(
                    offence.rule,
                    awaited="",
                    seen=f"{offence.message} ({(at_ns - self._began_ns) / 1e6:.1f} ms after the start)",
                    is_safety=True,
                )
        self._compare_outcomes()

    def _note(self, task: _Task) -> None:
        key = tuple(task.probe.key)
        self._events.append((task.submitted_ns, Event(Kind.SUBMITTED, key)))
        for run in task.probe.runs:
            self._events.append((run.started_ns, Event(Kind.STARTED, key)))
            if run.finished_ns is not None:
                # terminate() may have come between its last instruction and its exit
                known = self._over != "terminate"
                state = (FAILED if task.fails else SUCCESS) if known else None
                self._events.append((run.finished_ns, Event(Kind.FINISHED, key, state)))
            elif task.killed_ns or self._over == "terminate":
                at_ns = max(task.killed_ns or self._over_ns, run.started_ns + 1)
                self._events.append((at_ns, Event(Kind.KILLED, key)))
        for seen in self._subject.events_of(task.probe):
            self._events.append((seen.at_ns, Event(Kind.OBSERVED, key, seen.state)))

    def _compare_outcomes(self) -> None:
        """A task that neither a kill nor terminate() has touched ends as its own instructions say."""
        if self._killed or self._over == "terminate":
            return
        for task in self._tasks:
            outcome = self._subject.outcome(task.probe)
            expected = FAILED if task.fails else SUCCESS
            if outcome != expected or len(task.probe.runs) != 1:
                raise PromiseBroken(
                    "states.an-exception-is-a-failure" if task.fails else "lifecycle.runs-a-task",
                    awaited=f"one run and {expected!r} for task {task.number}",
                    seen=f"{len(task.probe.runs)} runs and {outcome!r}",
                    is_safety=True,
                )

    def _tell_events(self, events: Sequence[tuple[int, Event]], until_ns: int) -> None:
        """The last events up to this time, of whatever task."""
        numbers = {tuple(task.probe.key): task.number for task in self._tasks}
        before = [(at_ns, event) for at_ns, event in events if at_ns <= until_ns]
        for at_ns, event in before[-_EVENTS_TOLD:]:
            if event.kind is not Kind.SUBMITTED:
                told = f"{event.kind} {event.state or ''}".strip()
                what = f"task {numbers[event.key]}: {told}" if event.key in numbers else told
                self.tell(f"{(at_ns - self._began_ns) / 1e6:8.1f} ms    {what}")


def _chosen(step: Step, tasks: Sequence[_Task]) -> _Task | None:
    return tasks[step.task % len(tasks)] if tasks else None


def _same(task: _Task, other: _Task) -> bool:
    return task.probe.key[:3] == other.probe.key[:3]
