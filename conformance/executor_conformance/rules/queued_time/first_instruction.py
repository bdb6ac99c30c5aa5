"""Queued time on an idle executor and on a partly busy one, with forked tasks and with new interpreters."""

from __future__ import annotations

import statistics
from functools import partial

from executor_conformance.harness.timing import SequentialTest, distribution
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.rules import must, should
from executor_conformance.rules.queued_time.median import expect_median_within
from executor_conformance.rules.queued_time.sampling import (
    WARM_UP,
    Conditions,
    budget_s,
    is_forked,
    queued_times,
    run_one,
)
from executor_conformance.verdicts import Inconclusive, NotApplicable, expect

#: A task is late if it waits longer than this many times the budget of the median.
_TAIL = 3
#: The tail is measured in several stretches of up to this many tasks, but only once some of them were late.
_STRETCHES, _TASKS_IN_A_STRETCH = 4, 250
#: The comparison of forked tasks and tasks in a new interpreter takes at most this many pairs.
_MOST_PAIRS = 60


@must()
def median_queued_time_is_within_budget(trial: Trial) -> None:
    """The median queued time on an idle executor is at most 0.1 s if tasks are forked and 1.5 s if each gets
    a new interpreter, or 25 times what such a process costs on the machine, whichever is more.

    Why: otherwise a pipeline of short tasks spends most of its time waiting while slots are free.
    Likely causes: a loop that sleeps before it hands tasks to workers; a new interpreter that imports large
    modules before it runs the task; a fork of a large process.
    Origin: Airflow's LocalExecutor took 1.5 s with a new interpreter and 0.1 s with a fork (commit 4839a5b).
    """
    expect_median_within(trial, partial(budget_s, trial), "a task")


@must(after=("queued_time.median-queued-time-is-within-budget", "parallelism.n-tasks-run-at-once"))
def a_partly_busy_executor_is_as_fast(trial: Trial) -> None:
    """A task that is submitted to a free slot while another task runs reaches its first instruction within
    the budget of an idle executor.

    Why: executors are rarely idle in production; a budget that only idle ones keep is of little use.
    Likely causes: a busy executor that checks for new tasks less often; new tasks that are picked up only
    between two blocking checks of the running ones.
    Origin: apache/airflow#28120 (tasks stay queued while slots are free).
    """
    expect_median_within(
        trial,
        partial(budget_s, trial),
        "a task submitted while another one runs",
        Conditions(while_one_runs=True),
    )


@must(after=("queued_time.median-queued-time-is-within-budget",))
def tail_queued_time_is_within_budget(trial: Trial) -> None:
    """At most one task in fifty waits longer than three times the budget of the median.

    Why: a batch of tasks ends only with its slowest task, and its users see no reason for the delay.
    Likely causes: a worker that is replaced every so often while tasks wait for it; a lost wake-up that only
    a timeout makes up for; a retry after a refused connection.
    Origin: Airflow 3's supervisor delays some tasks in a hundred by a whole heartbeat interval.
    """
    for _ in range(2):
        tail = _measure_tail(trial)
        trial.measurements["queued_time"] = distribution(tail.samples)
        trial.measurements["budget_s"] = round(tail.budget_s, 6)
        # A slow executor yields too few samples to decide; if none of them was late, it passes.
        if tail.is_above is False or not tail.above:
            return
    if tail.is_above is None:
        raise Inconclusive(f"{tail.above} of {len(tail.samples)} tasks were late, too few to decide")
    expect(
        False,
        expected=f"at most one task in fifty to wait longer than {tail.budget_s:.3f} s",
        actual=f"{tail.above} of {len(tail.samples)} did; longest {max(tail.samples):.3f} s, median "
        f"{statistics.median(tail.samples):.4f} s",
    )


def _measure_tail(trial: Trial) -> SequentialTest:
    subject = trial.started(parallelism=2, slots=1)
    tail: SequentialTest | None = None
    for _ in range(_STRETCHES):
        for probe, seconds in queued_times(subject, _TASKS_IN_A_STRETCH):
            tail = tail or SequentialTest(_TAIL * budget_s(trial, probe), low=0.02, high=0.1, error=1e-3)
            # A task is not late if the machine has slowed down as much.
            is_late = seconds > tail.budget_s and seconds > _TAIL * budget_s(trial, probe, trial.slowdown())
            tail.add(seconds if is_late else min(seconds, tail.budget_s))
            if tail.is_above is not None:
                break
        if tail is None or tail.is_above is not None or not tail.above:
            break
    subject.end()
    assert tail is not None
    return tail


@should(
    needs=(Capability.ARGV,),
    after=(
        "interface.arbitrary-programs-run-as-given",
        "queued_time.median-queued-time-is-within-budget",
    ),
)
def forking_is_faster_than_a_new_interpreter(trial: Trial) -> None:
    """Forked tasks start sooner than tasks in a new interpreter, if the executor runs both.

    Why: a faster start is the reason to fork; without it, the risks of forking are taken for nothing.
    Likely causes: a forked child that imports everything again; a new interpreter that is started in addition
    to the fork; a fork of a large process.
    Origin: Airflow forks its tasks since commit 4839a5b, which reduced queued time from 1.5 s to 0.1 s.
    """
    subject = trial.started(parallelism=2, slots=1)
    decision = SequentialTest(0.0)
    forked_s, interpreter_s = [], []
    for number in range(WARM_UP + _MOST_PAIRS):
        forked, first = run_one(subject)
        if not is_forked(trial, forked):
            raise NotApplicable("tasks are not forked; they run in new interpreters")
        other, second = run_one(subject, trial.probe_as_program())
        if is_forked(trial, other):
            raise NotApplicable("no command makes the executor start a new interpreter")
        if number >= WARM_UP:
            forked_s.append(first)
            interpreter_s.append(second)
            decision.add(first - second)
            if decision.is_above is not None:
                break
    subject.end()
    trial.measurements["forked"] = distribution(forked_s)
    trial.measurements["interpreter"] = distribution(interpreter_s)
    if decision.is_above is None:
        raise Inconclusive("neither forked tasks nor tasks in a new interpreter were faster most of the time")
    expect(
        not decision.is_above,
        expected="a forked task to start sooner than one in a new interpreter",
        actual=f"median {statistics.median(forked_s) * 1e3:.1f} ms with a fork, "
        f"{statistics.median(interpreter_s) * 1e3:.1f} ms with a new interpreter",
    )
