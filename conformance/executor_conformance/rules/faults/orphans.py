"""No process of a task outlives its killed worker."""

from __future__ import annotations

from executor_conformance.harness import processes
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Observation
from executor_conformance.rules import must, should
from executor_conformance.rules.faults.killing import kill_worker, start_two_tasks
from executor_conformance.verdicts import NotApplicable


@must(needs=(Observation.LOCAL_PROCESSES,))
def no_task_outlives_its_killed_worker(trial: Trial) -> None:
    """When a worker is killed, the process of its task ends too.

    Why: otherwise the scheduler starts the next try, and two tries run at once.
    Likely causes: the task is a child process that does not notice its parent's death; it has a session of
    its own, which nothing kills.
    Origin: apache/airflow#880; apache/airflow#1157; the tasks of Airflow's LocalExecutor run to their end
    after their worker was killed.
    """
    subject, _, doomed, other = start_two_tasks(trial)
    worker = kill_worker(trial, doomed, other)
    task = doomed.runs[0].pid
    if worker == task:
        raise NotApplicable("the worker is the task's own process (same pid)")
    subject.require(
        lambda: not processes.is_alive(task),
        expected="the process of a killed worker's task to end",
        actual=lambda: f"it is still alive: {processes.look(task)}",
    )


@should(
    needs=(Observation.LOCAL_PROCESSES,),
    after=(
        "faults.no-task-outlives-its-killed-worker",
        "shutdown.terminate-kills-children-of-tasks",
        "shutdown.no-zombie-is-left",
    ),
)
def no_child_of_a_task_outlives_its_killed_worker(trial: Trial) -> None:
    """When a worker is killed, the child processes of its task end too.

    Why: a task is often a shell whose child does the work; that child would run alongside the next try.
    Likely causes: the process group of a killed task is not killed; only the direct child is known.
    Origin: apache/airflow#1157; apache/airflow#13215.
    """
    subject = trial.started(parallelism=2, slots=2)
    gate = trial.gate()
    doomed, other = trial.probes(2, f"child={gate.path}", gate.step)
    subject.submit(doomed, other)
    subject.require(
        lambda: all(probe.runs and probe.runs[0].children for probe in (doomed, other)),
        expected="2 tasks to start a child process each",
        actual=lambda: subject.describe([doomed, other]),
        stalled=True,
    )
    kill_worker(trial, doomed, other)
    children = doomed.runs[0].children
    subject.require(
        lambda: not any(map(processes.is_alive, children)),
        expected="the child process of a killed worker's task to end",
        actual=lambda: f"it is still alive: {processes.look(children[0])}",
    )
