"""Stopping after a crash: a worker was killed, ``end()`` was never called, or the host was killed."""

from __future__ import annotations

import os

from executor_conformance.contract import Call
from executor_conformance.harness import processes
from executor_conformance.harness.new_interpreter import run_a_task_and_exit
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.harness.workers import idle_processes
from executor_conformance.requirements import Capability, Observation
from executor_conformance.rules import must
from executor_conformance.rules.shutdown.leftovers import (
    describe_living,
    expect_workers_gone,
    living_processes,
)
from executor_conformance.verdicts import expect

#: The exit status of a host that exits by itself.
_STATUS = 23


@must(
    needs=(Observation.LOCAL_PROCESSES,),
    after=("shutdown.end-leaves-no-worker", "shutdown.events-during-end-are-delivered"),
)
def end_returns_after_a_worker_death(trial: Trial) -> None:
    """``end()`` returns and leaves no process behind even after any one of the workers was killed.

    Why: the kernel kills workers when memory runs out; a scheduler that cannot be stopped afterwards has to
    be killed, too.
    Likely causes: ``end()`` waits for the dead worker to take its poison pill; the dead worker held the lock
    of a shared queue; a message that the dead worker had half written blocks the readers.
    Origin: apache/airflow#14085; apache/airflow#18989; Airflow's LocalExecutor waits forever for the lock of
    its queue.
    """
    end = trial.target.adapter.name_of(Call.END)
    position = 0
    while True:
        subject = trial.started(parallelism=2, slots=2)
        found = idle_processes(subject)
        idle = [*found.helpers, *found.workers]
        if not idle:  # no worker outlives its task here, so a busy one is killed
            if position == 0:
                _kill_busy_worker_and_end(trial, subject)
            return
        if position >= len(idle):
            subject.end()
            return
        processes.kill(idle[position])
        position += 1
        trial.quiet()
        subject.end()
        expect_workers_gone(trial, f"{end} with a dead worker")


def _kill_busy_worker_and_end(trial: Trial, subject: Subject) -> None:
    held = trial.probe(trial.gate().step)
    subject.submit(held)
    subject.await_started(held)
    processes.kill(held.runs[0].pid)
    subject.end()
    end = trial.target.adapter.name_of(Call.END)
    expect_workers_gone(trial, f"{end} with a killed task")


@must()
def interpreter_exit_does_not_hang(trial: Trial) -> None:
    """The interpreter exits even if ``end()`` was never called; idle workers do not keep it alive.

    Why: schedulers crash, and one that hangs at exit is not restarted.
    Likely causes: a thread or child process that is not a daemon is joined at exit; the feeder thread of a
    queue waits to write data that no process reads.
    Origin: apache/airflow#41992; Airflow 3.3's LocalExecutor never exits without end().
    """
    run_a_task_and_exit(trial)


@must(after=("shutdown.interpreter-exit-does-not-hang",), turn="background")
def the_exit_status_of_the_host_is_kept(trial: Trial) -> None:
    """If the host exits without ``end()``, its exit status is its own, and all its exit functions run.

    Why: supervisors restart a scheduler, or do not, by its exit status; exit functions write logs and remove
    pid files.
    Likely causes: an exit function calls ``os._exit()``, so as not to wait for a thread; an exit function
    sends a signal to the process group.
    Origin: desihub/desispec#1037 (the status was 1 after sys.exit(0), with a pool); markqvist/Reticulum#822
    (an exit by ``os._exit()``).
    """
    left = os.path.join(trial.scratch, "left")
    status = run_a_task_and_exit(trial, status=_STATUS, left=left)
    expect(
        status == _STATUS,
        expected=f"the exit status {_STATUS} of a host that calls sys.exit({_STATUS})",
        actual=str(status),
    )
    expect(
        os.path.exists(left),
        expected="an exit function to run that the host registered before it imported the executor",
        actual="it did not run",
    )


@must(
    needs=(
        Capability.OWN_WORKERS,
        Observation.LOCAL_PROCESSES,
    )
)
def no_process_outlives_a_killed_host(trial: Trial) -> None:
    """No worker and no task outlives a host that is killed with SIGKILL.

    Why: the restarted scheduler runs the tasks again while the orphaned ones are still running.
    Likely causes: workers wait on a queue that they hold open themselves; no parent-death signal, and no
    check that the parent is alive; tasks run in sessions of their own, which nothing kills.
    Origin: apache/airflow#880; apache/airflow#1157; Airflow's LocalExecutor leaves all of them.
    """
    gate = trial.gate()
    busy = trial.probe(gate.step)

    def work() -> None:
        subject = trial.started(parallelism=2, slots=1)
        subject.run(trial.probe())
        subject.submit(busy)
        subject.await_started(busy)

    host, _ = trial.host.in_another_host(work)
    trial.host.kill_own(host)
    trial.require(
        # One scan can miss a process whose parent exits during the scan.
        lambda: not living_processes(trial) and not living_processes(trial),
        expected="workers and tasks of a killed scheduler process to be gone",
        actual=lambda: describe_living(trial),
        budget_s=trial.budgets.arrival_s * 2,
        patient=True,
    )
