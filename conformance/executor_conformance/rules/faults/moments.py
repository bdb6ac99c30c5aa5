"""A worker dies or is suspended at an awkward moment: while it is idle, or in the middle of a call."""

from __future__ import annotations

import signal
from collections.abc import Iterator

from executor_conformance.contract import FAILED, SUCCESS, Call
from executor_conformance.harness import processes
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.harness.workers import idle_processes, need_separate_processes, workers_of
from executor_conformance.requirements import Capability, Observation
from executor_conformance.rules import must
from executor_conformance.rules.faults.killing import (
    kill_new_process,
    let_reruns_end,
    start_two_tasks,
)
from executor_conformance.rules.faults.recovery import await_outcome, expect_capacity, state_of_killed
from executor_conformance.rules.shutdown.leftovers import drain_remaining_events
from executor_conformance.verdicts import NotApplicable, expect

#: Seconds for which a worker and its task are suspended.
_SILENT_S = 4.3  # not the time limit that an executor is likely to have


@must(needs=(Observation.LOCAL_PROCESSES,), after=("faults.other-tasks-survive-a-worker-death",))
def survives_the_death_of_an_idle_worker(trial: Trial) -> None:
    """After an idle worker was killed, ``parallelism`` tasks run at once again, whichever worker it was and
    whatever it held.

    Why: the kernel picks its victim by size, and a worker that has run many tasks is large.
    Likely causes: idle workers wait on a shared queue, and the one that dies holds its lock; a message is
    left half-written; the host writes to the dead worker's pipe; the dead worker is never replaced.
    Origin: Airflow's LocalExecutor, multiprocessing.Pool: all workers wait for the dead worker's lock.
    """
    for subject, worker in _with_each_idle_worker(trial):
        processes.kill(worker)
        subject.quiet()
        expect_capacity(trial, subject, 2, "after an idle worker was killed")


@must(
    needs=(Observation.LOCAL_PROCESSES,),
    after=(
        "faults.a-killed-worker-fails-its-task",
        "faults.capacity-is-restored-after-worker-deaths",
        "faults.survives-the-death-of-an-idle-worker",
    ),
)
def submit_survives_a_worker_death(trial: Trial) -> None:
    """A task that is submitted just after an idle worker was killed runs or is reported ``failed``.

    Why: until the death is detected, the host hands tasks to a worker that no longer exists.
    Likely causes: the task is written to a pipe without a reader, and forgotten; the error of that write is
    treated as fatal for the whole executor.
    Origin: apache/airflow#69975; Airflow 2's LocalExecutor loses a task when an idle worker is killed.
    """
    for subject, worker in _with_each_idle_worker(trial):
        processes.kill(worker)
        expect_capacity(trial, subject, 2, "just after an idle worker was killed")


def _with_each_idle_worker(trial: Trial) -> Iterator[tuple[Subject, int]]:
    """A new executor for each of its idle workers, and the pid of that worker."""
    position, found = 0, 1
    while position < found:
        subject = trial.started(parallelism=2, slots=2)
        workers = idle_processes(subject).workers
        if not workers:
            raise NotApplicable("no worker stayed alive after its task had ended")
        found = max(found, len(workers))
        yield subject, workers[min(position, len(workers) - 1)]
        position += 1


@must(
    needs=(Observation.LOCAL_PROCESSES, Capability.OWN_WORKERS),
    after=("faults.survives-the-death-of-an-idle-worker", "faults.submit-survives-a-worker-death"),
)
def start_survives_a_worker_death(trial: Trial) -> None:
    """A worker that is killed while ``start()`` creates it blocks neither ``start()`` nor later tasks.

    Why: memory is scarcest when everything starts at once.
    Likely causes: ``start()`` waits for a message from each worker; the worker that dies holds a lock.
    Origin: the contract; apache/airflow#41992 (a start that waits forever).
    """
    subject = trial.started(parallelism=2, slots=2)
    created = sorted(trial.host.processes(), key=lambda process: (process.started, process.pid))
    gate = trial.gate()
    held = trial.probes(2, gate.step)
    subject.submit(*held)
    subject.await_started(*held)
    workers = workers_of(trial, held)
    positions = [position for position, process in enumerate(created) if process.pid in workers]
    if not positions:
        raise NotApplicable("start() creates no worker")
    gate.open()
    subject.await_terminal(*held)
    subject.end()
    for position in positions:
        subject = trial.build(parallelism=2, slots=2)
        before = {process.pid for process in trial.host.processes()}
        killer = trial.host.meanwhile(lambda: kill_new_process(trial, position, before))  # noqa: B023
        rejection = subject.rejection(subject.start)
        trial.wait_for(lambda: not processes.is_alive(killer))  # noqa: B023
        trial.host.kill_own(killer)
        if rejection is None:  # a start() that raised has reported the death, and accepts no tasks
            expect_capacity(trial, subject, 2, "after a worker was killed during start()")


@must(
    needs=(Observation.LOCAL_PROCESSES,),
    after=(
        "faults.a-killed-worker-fails-its-task",
        "faults.other-tasks-survive-a-worker-death",
        "shutdown.end-finishes-running-tasks",
        "shutdown.events-during-end-are-delivered",
        "shutdown.end-returns-after-a-worker-death",
    ),
)
def end_survives_a_worker_death(trial: Trial) -> None:
    """``end()`` returns even if a worker is killed during the call.  That worker's task is reported
    ``failed``, and the other tasks finish.

    Why: a scheduler often shuts down because its machine is short of some resource.
    Likely causes: ``end()`` waits for a result that never comes; it waits for a dead worker to take its
    poison pill.
    Origin: apache/airflow#67870; apache/airflow#14085; apache/airflow#18989; apache/airflow#23944.
    """
    subject, gate, doomed, other = start_two_tasks(trial)
    need_separate_processes(doomed, other)
    worker = workers_of(trial, [doomed, other])[0]

    def kill_and_open() -> None:
        trial.host.await_call(Call.END, or_next=True)
        processes.kill(worker)
        gate.open()
        let_reruns_end(trial, doomed)
        signal.pause()  # the gate closes when this process exits

    killer = trial.host.meanwhile(kill_and_open)
    subject.end()
    subject.drain_all()
    if not trial.can(Capability.OWN_WORKERS):  # they may still be at work
        drain_remaining_events(trial, subject, [doomed, other])
    trial.host.kill_own(killer)
    for probe, state in ((doomed, state_of_killed(subject, doomed)), (other, SUCCESS)):
        expect(
            subject.outcome(probe) == state,
            expected=f"{state!r} for {probe} after end(), during which the worker of {doomed} was killed",
            actual=subject.describe([probe]),
        )


@must(
    needs=(Observation.LOCAL_PROCESSES,),
    after=(
        "shutdown.terminate-kills-running-tasks",
        "shutdown.terminate-kills-tasks-that-ignore-sigterm",
        "shutdown.terminate-leaves-no-worker",
        "parallelism.no-slot-is-idle-while-tasks-wait",
    ),
)
def a_suspended_worker_blocks_no_other_task(trial: Trial) -> None:
    """While a worker is suspended (SIGSTOP), the other slots keep running tasks, and ``terminate()`` works.

    Why: a suspended worker looks like a long task, and must not do more harm than one.
    Likely causes: the host waits for an answer from each worker in turn; ``terminate()`` sends SIGTERM,
    which a stopped process does not receive, and waits.
    Origin: apache/airflow#71380; apache/airflow#18989.
    """
    subject = trial.started(parallelism=3, slots=3)
    gate, soon = trial.gate(), trial.gate()
    suspended, other, third = *trial.probes(2, gate.step), trial.probe(soon.step)
    subject.submit(suspended, other, third)
    subject.await_started(suspended, other, third)
    for another in (other, third):  # the slot of the third task has to be in another worker
        need_separate_processes(suspended, another)
    worker = workers_of(trial, [suspended, other])[0]
    soon.open()
    subject.await_terminal(third)
    processes.kill(worker, signal.SIGSTOP)
    quick = trial.probes(6)
    subject.submit(*quick)
    for probe in quick:
        await_outcome(subject, probe, "a task that was submitted while a worker was suspended")
    gate.open()
    await_outcome(subject, other, "a task that was running when another task's worker was suspended")
    if subject.can(Capability.TERMINATE, Capability.OWN_WORKERS):
        subject.terminate()
        trial.require(
            lambda: not processes.is_alive(worker),
            expected="the suspended worker to exit after terminate()",
            actual=lambda: f"it is still alive: {processes.look(worker)}",
        )


@must(
    needs=(Observation.LOCAL_PROCESSES,),
    after=("faults.a-suspended-worker-blocks-no-other-task", "states.no-terminal-event-before-the-task-ends"),
    turn="background",
)
def a_suspended_task_has_one_outcome(trial: Trial) -> None:
    """A task whose worker and process are suspended for some seconds either continues and is reported
    with its own outcome, or is reported ``failed`` and never continues.

    Why: a machine that swaps, or that was itself suspended, looks dead and is not. A task that is retried
    while it still runs does its work twice.
    Likely causes: a worker that is silent for too long is declared dead, and not killed; only the worker is
    killed, and its task goes on.
    Origin: Parsl/parsl#1665 (results from a manager that was declared dead);
    wso2/product-integrator-mi#3155 (the task of a suspended node runs twice).
    """
    subject, gate, suspended, other = start_two_tasks(trial)
    need_separate_processes(suspended, other)
    stopped = {workers_of(trial, [suspended, other])[0], suspended.runs[0].pid}
    for pid in stopped:
        processes.kill(pid, signal.SIGSTOP)
    trial.wait_for(lambda: subject.outcome(suspended), pump=subject.pump, budget_s=_SILENT_S)
    reported = subject.outcome(suspended)
    gate.open()
    let_reruns_end(trial, suspended)
    for pid in stopped:
        processes.kill(pid, signal.SIGCONT)
    if reported is not None:
        trial.quiet(subject.pump)
        expect(
            reported == FAILED and not suspended.finished,
            expected="a task that was reported 'failed' while it was suspended never to go on",
            actual=subject.describe([suspended]),
        )
    else:
        await_outcome(subject, suspended, "a task that was suspended for a while")
        expect(
            (subject.outcome(suspended) == SUCCESS) == suspended.finished,
            expected="a task that was suspended for a while to be reported by how it ended",
            actual=subject.describe([suspended]),
        )
    await_outcome(subject, other, "a task that was running when another one was suspended")
    expect_capacity(trial, subject, 2, "after a task was suspended for a while")
