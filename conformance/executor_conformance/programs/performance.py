"""Runs a program on an executor, step by step.

Anything that must happen in time is checked here; what the executor did is checked at the end, by the same
checker that reads event logs from production.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from executor_conformance.contract import SUCCESS, TaskKey
from executor_conformance.harness import processes
from executor_conformance.harness.linux import monotonic_ns
from executor_conformance.harness.trial import Trial
from executor_conformance.harness.workers import need_separate_processes, workers_of
from executor_conformance.programs.checking import Performed, ProgramTask, RuleViolated
from executor_conformance.programs.program import DAGS, Program, Step
from executor_conformance.requirements import Capability, TaskLocation

#: This many tasks at most are left for end() to finish: tasks may be slow, and its budget is limited.
_LEFT_FOR_END = 3


@dataclass
class Performance:
    """Runs a program on an executor of its own.

    :param log: called with each line of the timeline.
    :param patience: the part of the usual budget for which it waits.
    """

    trial: Trial
    program: Program
    log: Callable[[str], None]
    patience: float = 1.0
    _tasks: list[ProgramTask] = field(default_factory=list)
    _killed: bool = False
    _ended_by: str = ""
    _ended_ns: int = 0
    _has_coroutines: bool = False

    def run(self) -> None:
        """Run the program to its end and check the history.

        :raises Broken: a rule was violated.
        """
        self._began_ns = monotonic_ns()
        self._subject = (
            self.trial.started(self.program.parallelism)
            if self.program.parallelism
            else self.trial.started_without_limit()
        )
        self._slots = self.program.parallelism or sys.maxsize
        # Coroutines may run in the host itself, which a program that kills workers would kill.
        self._has_coroutines = self._subject.can(Capability.COROUTINE) and all(
            step.do != "kill" for step in self.program.steps
        )
        for step in self.program.steps:
            self._do(step)
        if not self._ended_by:
            self._finish()
        self._subject.drain_all()
        if self._ended_by == "terminate":
            self._await_events("shutdown.terminate-reports-running-tasks-as-failed", self._subject.pump)
        Performed(
            self._subject,
            self._tasks,
            self.program.parallelism,
            began_ns=self._began_ns,
            ended_by=self._ended_by,
            ended_ns=self._ended_ns,
            killed=self._killed,
        ).check(self.log)

    # -- the steps -------------------------------------------------------------------------------------------

    def _do(self, step: Step) -> None:
        name = step.do.replace("-", "_")
        if self._ended_by and step.do not in ("drain", "drain-dag", "end", "terminate", "late"):
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
            self._log(step.describe(task.number))
            self._release(task)

    def _do_retry(self, step: Step) -> None:
        if not self._subject.can(Capability.KEYS):
            return

        def done() -> list[ProgramTask]:
            return [task for task in self._tasks if self._subject.outcome(task.probe)]

        will_end = any(task.gate is None or task.released or task.killed_ns for task in self._tasks)
        if will_end:
            self._wait(done, self._subject.pump, self.trial.budgets.arrival_s / 8)
        old = _chosen(step, done())
        if old is None:
            return
        key = old.probe.key
        tries = [task for task in self._tasks if _are_tries_of_one_task(task, old)]
        again = key._replace(try_number=1 + max(task.probe.key.try_number for task in tries))
        self._submit(step, ProgramTask(old.number, self.trial.probe(key=again), False))

    def _do_pump(self, step: Step) -> None:
        self._log(step.describe(""))
        self._subject.pump()

    def _do_work(self, step: Step) -> None:
        self._log(step.describe(""))
        free = [task for task in self._tasks if (task.gate is None or task.released) and not task.killed_ns]
        self._wait(
            lambda: all(task.probe.finished or self._subject.outcome(task.probe) for task in free),
            self._subject.beat,
            self.trial.budgets.arrival_s / 4,
        )
        self.trial.quiet(self._subject.beat)

    def _do_drain(self, step: Step) -> None:
        self._log(step.describe(""))
        self._subject.drain()

    def _do_drain_dag(self, step: Step) -> None:
        if not self._subject.can(Capability.EVENT_FILTER):
            return
        self._log(step.describe(""))
        for event in self._subject.drain([step.dag]):
            if event.key[:1] != (step.dag,):
                raise RuleViolated(
                    "states.dag-filter-drains-only-matching-events",
                    expected=f"only events of DAG {step.dag}",
                    actual=f"an event of {event.key!r}",
                    is_safety=True,
                )

    def _do_settle(self, step: Step) -> None:
        if self._held():
            self._log(step.describe(""))
            self._settle()

    def _held(self) -> list[ProgramTask]:
        return [task for task in self._tasks if task.is_held and not self._subject.outcome(task.probe)]

    def _running(self) -> list[ProgramTask]:
        return [task for task in self._held() if task.probe.started]

    def _settle(self) -> list[ProgramTask]:
        """Pump until held tasks run in all slots; the held tasks that run."""

        def possible() -> int:
            return min(self._slots, len(self._held()))

        self._await(
            lambda: len(self._running()) >= possible(),
            "faults.capacity-is-restored-after-worker-deaths"
            if self._killed
            else "parallelism.no-slot-is-idle-while-tasks-wait",
            expected=lambda: f"{possible()} of {len(self._held())} unreleased tasks to run",
            actual=lambda: f"{len(self._running())} ran",
        )
        return self._running()

    def _do_kill(self, step: Step) -> None:
        if self.trial.facts.location is not TaskLocation.LOCAL_PROCESSES:
            return
        running = self._running()
        if len(running) < 2:
            running = self._settle()
        if len(running) < 2:  # two are needed to tell a worker from a helper process that all tasks share
            return
        doomed = running[step.task % len(running)]
        others = [task.probe for task in running if task is not doomed]
        for other in others:
            need_separate_processes(doomed.probe, other)
        self._log(step.describe(doomed.number))
        self._killed = True
        doomed.killed_ns = monotonic_ns()
        processes.kill(workers_of(self.trial, [doomed.probe, *others])[0])

    def _do_second(self, step: Step) -> None:
        self._log(step.describe(""))
        second = self.trial.started(1)
        probe = self.trial.probe()
        second.run(probe)
        second.expect_outcome(probe, SUCCESS, "the task of the second executor")
        second.end()

    def _do_end(self, step: Step) -> None:
        if not self.trial.target.lacks.get(Capability.REPEATED_END) or not self._ended_by:
            self._log(step.describe(""))
            for task in self._tasks:
                self._release(task)
            if not self._ended_by:
                finishes = self._subject.can(Capability.FINISHES_QUEUED_WORK, Capability.OWN_WORKERS)
                self._await_events(
                    self._rule_for_a_missing_event, self._subject.pump, but=_LEFT_FOR_END if finishes else 0
                )
            self._close("end", self._subject.end)

    def _do_terminate(self, step: Step) -> None:
        # Workers that are not the executor's own may go on, and these tasks would wait at their gates.
        if self._subject.can(Capability.TERMINATE, Capability.OWN_WORKERS):
            self._log(step.describe(""))
            self._close("terminate", self._subject.terminate)

    def _close(self, how: str, call: Callable[[], None]) -> None:
        if not self._ended_by:
            self._ended_by, self._ended_ns = how, monotonic_ns()
        call()

    def _do_late(self, step: Step) -> None:
        if not self._ended_by or not self._subject.can(Capability.OWN_WORKERS):
            return
        probe = self.trial.probe()
        self._log(step.describe(""))
        rejected = self._subject.rejection(lambda: self._subject.submit(probe)) is not None
        if not rejected and self._ended_by == "end":
            raise RuleViolated(
                "lifecycle.submit-after-end-is-rejected",
                expected="a task submitted after end() to be rejected",
                actual="it was accepted",
                is_safety=True,
            )

    # -- tasks -----------------------------------------------------------------------------------------------

    def _new_task(self, step: Step, *steps: str, fails: bool = False) -> ProgramTask:
        number = 1 + max((task.number for task in self._tasks), default=0)
        key = TaskKey(step.dag, f"task-{number}", "run", 1, -1)
        return ProgramTask(number, self.trial.probe(*steps, key=key), fails)

    def _submit(self, step: Step, task: ProgramTask) -> None:
        as_coroutine = self._has_coroutines and task.probe.key.dag_id == DAGS[-1]
        self._log(step.describe(task.number) + (", as a coroutine function" if as_coroutine else ""))
        task.submitted_ns = monotonic_ns()
        (self._subject.submit_coroutine if as_coroutine else self._subject.submit)(task.probe)
        self._tasks.append(task)

    def _release(self, task: ProgramTask) -> None:
        # A child of a killed task may still wait at the gate, which stays closed.
        if task.gate is not None and task.is_held:
            task.released = True
            task.gate.open()

    def _finish(self) -> None:
        """End a program that has not ended the executor: release all tasks, and await their events."""
        for task in self._tasks:
            self._release(task)
        self._await_events(self._rule_for_a_missing_event, self._subject.pump)
        if self._subject.has("slots_occupied"):
            occupied = self._subject.optional("slots_occupied")
            if occupied != 0:
                raise RuleViolated(
                    "faults.capacity-is-restored-after-worker-deaths"
                    if self._killed
                    else "parallelism.slot-counts-are-accurate",
                    expected="slots_occupied to be 0 once every task has a terminal event",
                    actual=repr(occupied),
                    is_safety=True,
                )
        self._close("end", self._subject.end)

    @property
    def _rule_for_a_missing_event(self) -> str:
        """The rule that a task without a terminal event violates."""
        return (
            "faults.other-tasks-survive-a-worker-death"
            if self._killed
            else "states.exactly-one-terminal-event"
        )

    def _await_events(self, rule: str, pump: Callable[[], object], but: int = 0) -> None:
        """Pump until all tasks except ``but`` of them have a terminal event."""

        def missing() -> list[ProgramTask]:
            return [task for task in self._tasks if not self._subject.outcome(task.probe)]

        while (left := len(missing())) > but:  # the budget is for the next event, however many there are
            self._await(
                lambda: len(missing()) < left,
                "faults.a-killed-worker-fails-its-task"
                if any(task.killed_ns for task in missing())
                else rule,
                expected=lambda: "a terminal event for every task",
                actual=lambda: (
                    f"none for {', '.join(f'task {task.number}' for task in missing()[:4])}; "
                    + self._subject.describe([missing()[0].probe])
                ),
                pump=pump,
            )

    def _wait(self, condition: Callable[[], object], pump: Callable[[], object], budget_s: float) -> None:
        """Pump until the condition holds, or held tasks have all the slots, or the budget is used up."""
        self.trial.wait_for(
            lambda: condition() or len(self._running()) >= self._slots, pump=pump, budget_s=budget_s
        )

    def _await(
        self,
        condition: Callable[[], object],
        rule: str,
        *,
        expected: Callable[[], str],
        actual: Callable[[], str],
        pump: Callable[[], object] | None = None,
    ) -> None:
        budget = self.trial.budgets.arrival_s * self.patience
        held = self.trial.wait_for(
            condition, pump=pump or self._subject.pump, budget_s=budget, patient=self.patience >= 1.0
        )
        if not held:
            raise RuleViolated(
                rule, expected=f"{expected()} within {budget:.1f} s", actual=actual(), is_safety=False
            )

    def _log(self, line: str) -> None:
        self.log(f"{(monotonic_ns() - self._began_ns) / 1e6:8.1f} ms  {line}")


def _chosen(step: Step, tasks: Sequence[ProgramTask]) -> ProgramTask | None:
    return tasks[step.task % len(tasks)] if tasks else None


def _are_tries_of_one_task(task: ProgramTask, other: ProgramTask) -> bool:
    return task.probe.key[:3] == other.probe.key[:3]
