"""A loaded executor: it blocks no call of the scheduler, and loses no event."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

from executor_conformance.contract import FAILED, SUCCESS, Call
from executor_conformance.harness.linux import duration_s, monotonic
from executor_conformance.harness.probes import SLOW_TASK_S, Probe
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.rules import must
from executor_conformance.rules.states.counting import expect_one_terminal_event_each
from executor_conformance.verdicts import Stalled, expect

#: The events of this many tasks of a burst are taken before the rule waits for all of its tasks to end.
_TAKEN_EARLY = 40
#: How many tasks start and end while one runs: at most, and at least if they take more than so many seconds.
_OTHERS, _FEWEST_OTHERS, _FEWEST_SLOW_ONES, _OTHERS_S = 300, 40, 10, 3.0
#: How many of them are submitted at a time.
_BATCH = 10


@must(after=("states.no-terminal-event-before-the-task-ends",))
def submit_does_not_block(trial: Trial) -> None:
    """Submitting a task returns immediately while all slots are taken; the executor keeps the task until a
    slot is free.

    Why: the scheduler submits tasks in the same loop in which it learns that tasks have ended. While that
    loop is blocked, it frees no slot, sees no event and serves no other executor.
    Likely causes: a semaphore or a bounded queue limits the number of tasks in flight; the task runs in the
    caller; the call waits until a worker has taken the task.
    Origin: apache/airflow#70526 (the scheduler is blocked while it hands over a task); bounded-pool-executor
    0.0.3, where submitting waits for a slot.
    """
    slots = trial.slots(2)
    subject = trial.started(slots)
    gate = trial.gate()
    held = trial.probes(slots, gate.step)
    queued = trial.probes(4)
    subject.submit(*held)
    subject.await_started(*held)
    shortest = min(duration_s(partial(subject.submit, probe)) for probe in queued)
    expect(
        shortest < trial.budgets.block_s,
        expected=f"{trial.target.adapter.name_of(Call.EXECUTE_ASYNC)} to return within "
        f"{trial.budgets.block_s:.1f} s while {slots} of {slots} slots are taken",
        actual=f"{shortest:.2f} s in the fastest of {len(queued)} calls",
    )
    gate.open()
    subject.await_terminal(*held, *queued)


@must(after=("states.no-terminal-event-before-the-task-ends", "states.submit-does-not-block"))
def sync_does_not_block(trial: Trial) -> None:
    """``sync()``, ``heartbeat()`` and ``get_event_buffer()`` return immediately while tasks are running and
    queued.

    Why: one loop serves all tasks of all DAGs; if it waits for one task, it delays all others.
    Likely causes: ``sync()`` joins a worker, or waits for a result; a lock is held while a task runs; tasks
    run in the caller.
    Origin: apache/airflow#71380; apache/airflow#37979; Airflow's SequentialExecutor blocks in heartbeat().
    """
    slots = trial.slots(2)
    subject = trial.started(slots)
    gate = trial.gate()
    held = trial.probes(slots, gate.step)
    queued = trial.probes(3)
    subject.submit(*held, *queued)
    subject.await_started(*held)
    calls: list[tuple[Call, Callable[[], object]]] = [
        (Call.SYNC, subject.sync),
        (subject.driver.pump_call, subject.beat),
        (Call.GET_EVENT_BUFFER, subject.drain),
    ]
    for kind, call in calls:
        shortest = min(duration_s(call) for _ in range(4))
        expect(
            shortest < trial.budgets.block_s,
            expected=f"{trial.target.adapter.name_of(kind)} to return within {trial.budgets.block_s:.1f} s "
            f"while {len(held)} tasks are running",
            actual=f"{shortest:.2f} s in the fastest of 4 calls",
        )
    expect(
        not any(subject.outcome(probe) for probe in held),
        expected="these tasks to be still running",
        actual=subject.describe(held),
    )
    gate.open()
    subject.await_terminal(*held, *queued)


@must(
    after=(
        "interface.argv-is-passed-unchanged",
        "interface.arbitrary-programs-run-as-given",
        "states.exit-status-decides-the-outcome",
        "states.no-terminal-event-before-the-task-ends",
        "states.only-legal-transitions",
        "parallelism.at-most-n-tasks-run-at-once",
    )
)
def a_burst_is_reported_completely(trial: Trial) -> None:
    """Hundreds of short tasks submitted at once all run once and are all reported once, with the right
    outcome, even if most of them end before any event is taken.

    Why: races between submitting, running and collecting tasks show up under load.
    Likely causes: events are kept in a structure that two threads change, or in one that keeps only the
    latest few; a result that arrives while another one is handled is dropped; a writer does not wait when
    its pipe is full.
    Origin: apache/airflow#69975; apache/airflow#19769; apache/airflow#28120.
    """
    # About four seconds of work for a slow executor, and never fewer than 200 tasks.
    subject = trial.started(parallelism=4, slots=1)
    task_s = max(trial.facts.first_task_s, 0.002)
    probes = _burst(subject, count=200 if task_s > 0.05 else 300, by_shell=task_s > SLOW_TASK_S)
    subject.submit(*probes)
    subject.await_terminal(*probes[:_TAKEN_EARLY])
    with contextlib.suppress(Stalled):  # an executor may wait until its events have been taken
        subject.await_finished(*probes)
    subject.await_terminal(*probes)
    subject.quiet()
    expect_one_terminal_event_each(subject, probes)
    for number, probe in enumerate(probes):
        subject.expect_outcome(probe, FAILED if number % 7 == 3 else SUCCESS, f"task {number} of the burst")
        expect(
            len(probe.runs) == 1,
            expected=f"task {number} of the burst to run once",
            actual=f"it ran {len(probe.runs)} times",
        )
    trial.measurements["tasks"] = len(probes)


def _burst(subject: Subject, count: int, by_shell: bool) -> list[Probe]:
    trial = subject.trial
    probes = []
    for number in range(count):
        probe = trial.probe(*(("raise=on purpose",) if number % 7 == 3 else ()))
        if by_shell and subject.can(Capability.ARGV) and number % 8:
            # Where each Python task costs a new interpreter, a shell records most of the runs instead.
            probe = trial.shell_probe(exit_status=int(number % 7 == 3))
        probes.append(probe)
    return probes


@must(after=("states.a-burst-is-reported-completely", "parallelism.no-slot-is-idle-while-tasks-wait"))
def a_long_task_outlives_hundreds_of_others(trial: Trial) -> None:
    """A task that runs while 300 others start and end is not disturbed: it runs once, and its own outcome is
    reported when it ends.

    If 300 tasks take longer than three seconds, fewer are run: at least 40, or at least 10 if tasks are slow.

    Why: a task that takes hours shares its executor with thousands that take seconds.
    Likely causes: a table of running tasks that keeps the latest few hundred; ids of tasks that wrap around;
    a worker that is recycled by its age while it still runs a task.
    Origin: celery/celery#5935 (a task that runs for long is delivered to another worker, too).
    """
    subject = trial.started(parallelism=2, slots=2)
    gate = trial.gate()
    long = trial.probe(gate.step)
    subject.submit(long)
    subject.await_started(long)
    fewest = _FEWEST_SLOW_ONES if trial.facts.first_task_s > SLOW_TASK_S else _FEWEST_OTHERS
    began, count = monotonic(), 0
    while count < _OTHERS and (count < fewest or monotonic() - began < _OTHERS_S):
        batch = trial.probes(_BATCH)
        subject.run(*batch)
        count += len(batch)
    trial.measurements["tasks"] = count
    expect(
        not subject.outcome(long),
        expected=f"no terminal event for a task that still runs after {count} others",
        actual=subject.describe([long]),
    )
    gate.open()
    subject.require(
        lambda: subject.outcome(long),
        expected=f"a terminal event for a task that ran while {count} others ended",
        actual=lambda: subject.describe([long]),
    )
    subject.expect_outcome(long, SUCCESS, f"a task that ran while {count} others ended")
    expect(
        len(long.runs) == 1,
        expected=f"a task that ran while {count} others ended to run once",
        actual=f"it ran {len(long.runs)} times",
    )
