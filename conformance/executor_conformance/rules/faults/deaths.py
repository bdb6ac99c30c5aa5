"""A worker dies while it runs a task."""

from __future__ import annotations

import signal

from executor_conformance.contract import FAILED, SUCCESS, TERMINAL_STATES
from executor_conformance.harness import processes
from executor_conformance.harness.context import MOST_SLOTS
from executor_conformance.harness.trial import Trial
from executor_conformance.harness.workers import need_separate_processes, workers_of
from executor_conformance.requirements import Capability, Observation
from executor_conformance.rules import must, should
from executor_conformance.rules.faults.killing import (
    await_rerun,
    doomed_probe,
    kill_worker,
    let_reruns_end,
    start_two_tasks,
)
from executor_conformance.rules.faults.recovery import await_failure, await_outcome, expect_capacity
from executor_conformance.verdicts import NotApplicable, expect


@must(needs=(Observation.LOCAL_PROCESSES,))
def sync_survives_a_worker_death(trial: Trial) -> None:
    """After a worker was killed, ``heartbeat()``, ``sync()`` and ``get_event_buffer()`` do not raise.

    Why: the scheduler calls them unguarded; an exception there stops all scheduling.
    Likely causes: an unhandled EOFError from the pipe of the dead worker; the dead worker is asked for a
    result; a broken pool raises from every call.
    Origin: apache/airflow#64476; apache/airflow#47873; apache/airflow#32045 (an error that stops the
    scheduler).
    """
    subject, gate, doomed, other = start_two_tasks(trial)
    kill_worker(trial, doomed, other)
    let_reruns_end(trial, doomed)
    trial.wait_for(lambda: subject.outcome(doomed), pump=subject.pump, patient=True)
    gate.open()
    trial.wait_for(lambda: subject.outcome(other), pump=subject.pump, patient=True)
    for _ in range(10):
        subject.pump()


@must(
    needs=(
        Observation.LOCAL_PROCESSES,
        Capability.RUNS_ONCE,
    )
)
def a_task_is_not_rerun_after_a_worker_death(trial: Trial) -> None:
    """The executor does not rerun a task whose worker was killed.

    Why: the scheduler decides whether to retry, and the task may have done half of its work.
    Likely causes: the task is put back into the queue when its worker dies; the message is acknowledged only
    when the task ends, so the broker delivers it again.
    Origin: Dask reruns the task of a killed worker; apache/airflow#45606; apache/airflow#16829.
    """
    subject, gate, doomed, other = start_two_tasks(trial)
    kill_worker(trial, doomed, other)
    trial.wait_for(lambda: subject.outcome(doomed), pump=subject.pump, patient=True)
    gate.open()
    later = trial.probes(6)
    if subject.rejection(lambda: subject.submit(*later)) is None:
        trial.wait_for(lambda: all(map(subject.outcome, [other, *later])), pump=subject.pump, patient=True)
    subject.quiet()
    expect(
        len(doomed.runs) == 1,
        expected="exactly one run of the task whose worker was killed",
        actual=subject.describe([doomed]),
    )


@must(
    needs=(Observation.LOCAL_PROCESSES,),
    after=(
        "faults.sync-survives-a-worker-death",
        "faults.a-task-is-not-rerun-after-a-worker-death",
        "states.death-by-signal-is-a-failure",
    ),
)
def a_killed_worker_fails_its_task(trial: Trial) -> None:
    """When a worker is killed, its task is reported ``failed`` promptly and exactly once.

    Why: without the event the task counts as running forever and keeps its slot.
    Likely causes: the executor waits for results only, not for the exit of a worker; the worker is replaced
    and its task forgotten; a task without a result is reported as a success.
    Origin: apache/airflow#13542; apache/airflow#28206; Airflow's LocalExecutor never reports the task of a
    killed worker.
    """
    for number in (signal.SIGKILL, signal.SIGSEGV):
        subject, _, doomed, other = start_two_tasks(trial)
        kill_worker(trial, doomed, other, number)
        await_rerun(subject, doomed)
        let_reruns_end(trial, doomed)
        what = f"the task whose worker was killed by {number.name}"
        await_failure(subject, doomed, what)
        subject.quiet()
        terminal = [event for event in subject.events_of(doomed) if event.state in TERMINAL_STATES]
        expect(
            len(terminal) == 1,
            expected=f"exactly one terminal event for {what}",
            actual=subject.describe([doomed]),
        )


@must(
    needs=(Capability.ARGV, Capability.CALLABLE),
    after=(
        "interface.command-kinds-are-accurate",
        "states.death-by-signal-is-a-failure",
        "states.a-nonzero-os-exit-is-a-failure",
        "faults.a-killed-worker-fails-its-task",
        "faults.capacity-is-restored-after-worker-deaths",
    ),
)
def os_exit_in_a_callable_is_a_failure(trial: Trial) -> None:
    """A callable that calls ``os._exit()`` or is killed by a signal is reported ``failed``, as a program is.

    Why: C code crashes in callables as well as in commands, and may take the worker down with it.
    Likely causes: only an exception counts as a failure of a callable; callables and commands run in
    different code paths.
    Origin: the contract; apache/airflow#65833 (exit code lost).
    """
    subject = trial.started(slots=1)
    if not subject.runs_callables_outside_host():
        raise NotApplicable("its callables run in the scheduler's own process (same pid)")
    for step, what in (
        ("_exit=3", "a callable that called os._exit(3)"),
        (f"kill={int(signal.SIGKILL)}", "a callable that was killed by SIGKILL"),
    ):
        call = trial.probe(step)
        subject = trial.started(slots=1)
        subject.submit_callable(call)
        subject.await_terminal(call)
        subject.expect_outcome(call, FAILED, what)


@should(
    needs=(Observation.LOCAL_PROCESSES, Capability.RUNS_ONCE),
    after=("faults.a-killed-worker-fails-its-task",),
)
def a_worker_death_is_reported_with_a_reason(trial: Trial) -> None:
    """The ``failed`` event of a task whose worker was killed has a reason as its info.

    Why: the task's own log does not mention the kill, so this is the only clue.
    Likely causes: the info is always None; the exit status of the worker is ignored.
    Origin: apache/airflow#65833; apache/airflow#43300 (the exit code is lost).
    """
    subject, _, doomed, other = start_two_tasks(trial)
    kill_worker(trial, doomed, other)
    await_outcome(subject, doomed, "the task whose worker was killed")
    expect(
        subject.info(doomed),
        expected="a reason as the info of the terminal event",
        actual=repr(subject.info(doomed)),
    )


@must(needs=(Observation.LOCAL_PROCESSES,), after=("faults.sync-survives-a-worker-death",))
def other_tasks_survive_a_worker_death(trial: Trial) -> None:
    """When a worker is killed, the tasks of the other workers keep running and queued tasks still run.

    Why: one task that uses too much memory must not take down the tasks of all other DAGs.
    Likely causes: one dead worker breaks the whole pool; the dead worker held the lock of the shared queue;
    queued tasks are already bound to a worker.
    Origin: concurrent.futures' BrokenProcessPool; agronholm/apscheduler#362; apache/airflow#71380.
    """
    subject, gate, doomed, other = start_two_tasks(trial)
    need_separate_processes(doomed, other)
    queued = trial.probes(3)
    subject.submit(*queued)
    subject.pump()
    kill_worker(trial, doomed, other)
    let_reruns_end(trial, doomed)
    # A pool that breaks does so when it notices the death, so wait for that.
    trial.wait_for(lambda: subject.outcome(doomed) or subject.outcome(other), pump=subject.pump, patient=True)
    gate.open()
    for probe in (other, *queued):
        was = "running" if probe is other else "queued"
        what = f"{probe}, which was {was} when another task's worker was killed"
        await_outcome(subject, probe, what)
        expect(
            subject.outcome(probe) == SUCCESS and len(probe.runs) == 1,
            expected=f"exactly one run and 'success' for {what}",
            actual=f"{subject.describe([probe])}, with info {subject.info(probe)!r:.160}",
        )


@must(
    needs=(Observation.LOCAL_PROCESSES,),
    after=(
        "faults.a-task-is-not-rerun-after-a-worker-death",
        "faults.a-killed-worker-fails-its-task",
        "faults.a-later-worker-death-is-detected",
        "faults.other-tasks-survive-a-worker-death",
        "interface.bookkeeping-has-the-expected-types",
        "parallelism.slot-counts-are-accurate",
    ),
)
def capacity_is_restored_after_worker_deaths(trial: Trial) -> None:
    """After workers were killed one by one, ``parallelism`` tasks run at once again and the slot counts are
    correct.

    Why: an executor that loses a slot with each death slows down for weeks, then stops.
    Likely causes: the dead worker is not replaced; its task is never removed from ``running``.
    Origin: apache/airflow#36335; apache/airflow#43448; apache/airflow#42932; apache/airflow#35675;
    apache/airflow#36998.
    """
    subject, gate, doomed, other = start_two_tasks(trial)
    need_separate_processes(doomed, other)
    for _ in range(3):
        kill_worker(trial, doomed, other)
        let_reruns_end(trial, doomed)
        await_outcome(subject, doomed, "the task whose worker was killed")
        doomed = doomed_probe(trial, gate)
        subject.submit(doomed)
        subject.require(
            lambda: doomed.started,  # noqa: B023
            expected="the next task to start in the slot of the task whose worker was killed",
            actual=lambda: subject.describe([doomed]),  # noqa: B023
        )
    gate.open()
    let_reruns_end(trial, doomed)
    subject.await_terminal(doomed, other)
    expect_capacity(trial, subject, 2, "after workers were killed")
    subject.pump()
    if subject.has("slots_occupied"):
        occupied = subject.optional("slots_occupied")
        expect(
            occupied == 0,
            expected="slots_occupied to be 0 when every task has ended",
            actual=repr(occupied),
        )
    if subject.has("slots_available") and trial.facts.slots < MOST_SLOTS:
        available, slots = subject.optional("slots_available"), trial.slots(2)
        expect(
            available == slots,
            expected=f"slots_available to be {slots} when every task has ended",
            actual=repr(available),
        )


@must(
    needs=(Observation.LOCAL_PROCESSES,),
    after=(
        "states.death-by-signal-is-a-failure",
        "faults.a-killed-worker-fails-its-task",
        "faults.capacity-is-restored-after-worker-deaths",
    ),
)
def survives_the_death_of_all_workers(trial: Trial) -> None:
    """After all workers were killed at the same time, each of their tasks is reported ``failed`` and the
    executor keeps running tasks.

    Why: the kernel, an operator or a container that stops kills them all together.
    Likely causes: each ``sync()`` handles only one death; no worker is left to read the queue.
    Origin: apache/airflow#13542; the kernel's out-of-memory killer.
    """
    subject, _, doomed, other = start_two_tasks(trial, slots=None)
    queued = trial.probes(2)
    subject.submit(*queued)
    for worker in workers_of(trial, [doomed, other]):
        processes.kill(worker)
    let_reruns_end(trial, doomed, other)
    for probe in (doomed, other):
        what = "a task that was running when all workers were killed"
        await_failure(subject, probe, what)
    for probe in queued:
        await_outcome(subject, probe, "a task that was queued when all workers were killed")
    expect_capacity(trial, subject, 2, "after all workers were killed")
