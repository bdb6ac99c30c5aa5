"""What happens after a task ends: the next one starts, and the end is reported."""

from __future__ import annotations

import itertools
import statistics

from executor_conformance.harness.timing import SequentialTest, distribution
from executor_conformance.harness.trial import Trial
from executor_conformance.rules import must, should
from executor_conformance.rules.queued_time.sampling import (
    FAILING,
    Conditions,
    budget_s,
    queued_times,
)
from executor_conformance.verdicts import Inconclusive, NotApplicable, expect

#: A terminal event may come this many seconds after the end of its task.
_LATENCY_S = 1.0


@must(
    after=(
        "queued_time.median-queued-time-is-within-budget",
        "parallelism.at-most-n-tasks-run-at-once",
        "parallelism.no-slot-is-idle-while-tasks-wait",
    )
)
def a_freed_slot_is_refilled_within_budget(trial: Trial) -> None:
    """The next queued task reaches its first instruction within the budget of an idle executor after a task
    ends and frees its slot.

    Why: the slots of a busy scheduler are nearly always taken, so each pause between two tasks is lost for
    good.
    Likely causes: queued tasks that are checked only by a timer; a slot that is freed late after a task has
    ended; a slot that is freed late after a failure.
    Origin: apache/airflow#19769; apache/airflow#28120 (tasks stay queued while slots are free).
    """
    for _ in range(2):
        subject = trial.started(parallelism=1)
        first = trial.probe()
        others = [trial.probe(*(FAILING if number % 2 else ())) for number in range(40)]
        subject.run(first)  # the executor may prepare workers with its first task
        subject.submit(*others)
        budget = budget_s(trial, first, max(trial.slowdown(), 1.0))
        subject.await_terminal(*others)
        subject.await_started(*others)
        failures = {probe.name for probe in others[1::2]}
        runs = sorted((probe.runs[0] for probe in others), key=lambda run: run.started_ns)
        gaps = {"a success": SequentialTest(budget), "a failure": SequentialTest(budget)}
        for before, after in itertools.pairwise(runs):
            what = "a failure" if before.probe in failures else "a success"
            gaps[what].add(max(after.started_ns - (before.finished_ns or after.started_ns), 0) / 1e9)
        subject.end()
        trial.measurements["gap"] = distribution([gap for some in gaps.values() for gap in some.samples])
        if all(some.is_above is False for some in gaps.values()):
            return
    for what, some in gaps.items():
        expect(
            not some.is_above,
            expected=f"the next queued task to start within {budget:.3f} s of {what} (median)",
            actual=f"median {statistics.median(some.samples):.3f} s of {len(some.samples)} tasks",
        )
    late = sum(some.above for some in gaps.values())
    raise Inconclusive(f"{late} of {len(runs)} tasks started late, too few to decide")


@should(after=("states.no-terminal-event-before-the-task-ends", "states.exactly-one-terminal-event"))
def a_task_end_is_reported_within_a_second(trial: Trial) -> None:
    """The terminal event is in the event buffer within a second of the task's end, whether it succeeded or
    failed.

    Why: dependent tasks cannot start before; a second for each of a thousand tasks in a row adds up to a
    quarter of an hour.
    Likely causes: results that are polled for; ends that are noticed only after a heartbeat interval.
    Origin: Airflow 3's supervisor reports the end of some tasks 5 s late (its heartbeat interval).
    """
    subject = trial.started(parallelism=2, slots=1)
    latencies: list[float] = []
    late: list[float] = []
    for _ in range(2):
        successes, failures = queued_times(subject, 20), queued_times(subject, 20, Conditions(FAILING))
        for probe, _ in itertools.chain.from_iterable(zip(successes, failures, strict=False)):
            event = next(event for event in subject.events_of(probe) if event.state in ("success", "failed"))
            finished = probe.runs[0].finished_ns
            if finished is not None:
                latency = max(event.at_ns - finished, 0) / 1e9
                latencies.append(latency)
                if latency > _LATENCY_S and latency > _LATENCY_S * trial.extension():
                    late.append(latency)
        if len(late) != 1:  # a single late event may be due to the machine
            break
    if not latencies:
        raise NotApplicable("no task was seen to end")
    trial.measurements["latency"] = distribution(latencies)
    expect(
        len(late) < 2,
        expected=f"each terminal event within {_LATENCY_S:.0f} s of the end of its task",
        actual=f"{len(late)} of {len(latencies)} came later, the latest after {max(latencies):.2f} s",
    )
