"""Queued time by other submit paths, after idling, in unlimited mode, of retries and of batches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from executor_conformance.harness.linux import monotonic, monotonic_ns, sleep
from executor_conformance.harness.timing import distribution
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.rules import must, should
from executor_conformance.rules.queued_time.median import expect_median_within
from executor_conformance.rules.queued_time.sampling import (
    OVERHEAD_COSTS,
    OVERHEAD_S,
    Conditions,
    budget_s,
    start_cost_s,
)
from executor_conformance.verdicts import NotApplicable, expect

#: The executor idles for this many seconds, up to this many times.  That is longer than most timeouts with
#: which workers wait for work, and more than one slot is used afterwards.
_IDLE_S, _IDLE_PERIODS = 5.0, 3
#: The scheduler's loop of the idle executor runs once in this many seconds.
_PUMP_EVERY_S = 0.1
#: This many tasks are submitted at once, in up to this many batches.
_BATCH, _BATCHES = 8, 6
#: The budget of a batch has this many times the cost of all its processes in it.
_BATCH_COSTS = 3
#: The scheduler's loop runs this often while a batch starts, in seconds.
_BETWEEN_PUMPS_S = 0.001


@must(
    after=(
        "queued_time.median-queued-time-is-within-budget",
        "interface.command-kinds-are-accurate",
        "parallelism.higher-priority-first",
    )
)
def every_submit_path_is_as_fast(trial: Trial) -> None:
    """Tasks submitted by ``queue_command()``, and commands of every kind that the executor takes, reach their
    first instruction within the same budget as any other task.

    Why: each scheduler uses only some of these paths, and gains nothing if only the others are fast.
    Likely causes: a kind of command that goes through a queue which is checked only by a timer; tasks from
    ``queue_command()`` that are handled in a later round than those from ``execute_async()``.
    Origin: apache/airflow#28120; the contract: both calls, and all kinds, share slots and promises.
    """
    _, *others = trial.build(slots=1).ways
    if not others:
        raise NotApplicable("the executor has one method to submit tasks, and takes one kind of command")
    for path in others:
        expect_median_within(
            trial,
            partial(budget_s, trial),
            f"a task submitted {'by' if path.endswith('()') else 'as'} {path}",
            Conditions(path=path),
        )


@should(
    after=(
        "parallelism.n-tasks-run-at-once",
        "queued_time.tail-queued-time-is-within-budget",
        "queued_time.queued-time-shows-no-polling-interval",
    ),
    turn="background",
)
def no_delay_after_idling(trial: Trial) -> None:
    """Tasks that are submitted after five idle seconds wait no longer than others, in every slot.

    Why: most executors are idle most of the time, and a task after a quiet night is no less urgent.
    Likely causes: workers that check for work less often while they are idle; idle workers that are stopped,
    and replaced one after the other or by a timer.
    Origin: celery/celery#4062 and celery/celery#4921 (after minutes without a task the next one waits).
    """
    subject = trial.started(parallelism=2, slots=2)
    subject.run(*trial.probes(2))
    waited: list[float] = []
    for _ in range(_IDLE_PERIODS):
        until = monotonic() + _IDLE_S
        while monotonic() < until:
            subject.pump()
            sleep(_PUMP_EVERY_S)
        pair = trial.probes(2)
        submitted = monotonic_ns()
        subject.submit(*pair)
        subject.await_started(*pair)
        waited.append((max(probe.runs[0].started_ns for probe in pair) - submitted) / 1e9)
        subject.await_terminal(*pair)
        budget = budget_s(trial, pair[0], max(trial.slowdown(), 1.0))
        if waited[-1] < budget:
            break
    subject.end()
    what = f"two tasks to start within {budget:.3f} s after {_IDLE_S:.0f} s without any task"
    _expect_started_within(trial, budget, waited, what)


@must(
    after=(
        "queued_time.median-queued-time-is-within-budget",
        "queued_time.a-partly-busy-executor-is-as-fast",
        "states.submit-does-not-block",
        "parallelism.unlimited-mode-has-no-hidden-limit",
    )
)
def unlimited_mode_is_as_fast(trial: Trial) -> None:
    """A task in unlimited mode (parallelism 0) reaches its first instruction within the same budget as with a
    limit, on an idle executor and while another task runs.

    Why: users choose unlimited mode so that no task has to wait.
    Likely causes: a separate loop for unlimited mode, which sleeps; workers that are started for each task,
    while the limited mode has them ready.
    Origin: Airflow 2's UnlimitedParallelism, which is a separate code path; commit 4839a5b is about both.
    """
    for while_one_runs in (False, True):
        expect_median_within(
            trial,
            partial(budget_s, trial),
            f"a task submitted in unlimited mode{' while another one runs' * while_one_runs}",
            Conditions(limited=False, while_one_runs=while_one_runs),
        )


@must(
    needs=(Capability.KEYS,),
    after=(
        "queued_time.median-queued-time-is-within-budget",
        "queued_time.tail-queued-time-is-within-budget",
        "states.a-retry-runs-under-its-own-key",
    ),
)
def a_retry_is_as_fast(trial: Trial) -> None:
    """A retry that is submitted after the failure has been drained reaches its first instruction within the
    same budget as any other task.

    Why: the scheduler decides when to retry, and has already waited as long as the user configured.
    Likely causes: a key that is held back until a timer finds that the first try was cleaned up; retry delays
    of the executor's own.
    Origin: apache/airflow#28586 and apache/airflow#21316 (for seconds, Airflow 2 holds back a key that it
    believes to be still running).
    """
    expect_median_within(trial, partial(budget_s, trial), "a retry", Conditions(are_retries=True))


@should(
    after=(
        "parallelism.n-tasks-run-at-once",
        "queued_time.a-partly-busy-executor-is-as-fast",
        "queued_time.tail-queued-time-is-within-budget",
        "queued_time.overhead-beyond-process-start-is-small",
    )
)
def a_batch_of_tasks_starts_together(trial: Trial) -> None:
    """The last of eight tasks that are submitted at once to eight free slots reaches its first instruction
    within the queued-time budget of one task plus three times what eight such processes cost on the machine.

    Why: schedulers submit whole batches; slots that fill one after the other are not available at first.
    Likely causes: a pause between two starts, to spare the machine; one worker woken up per round of a loop
    that sleeps; starts that each wait until the previous worker is ready.
    Origin: apache/datafusion-ballista#544 (10 ms per launch is a second for a hundred launches).
    """
    subject = trial.started(parallelism=_BATCH)
    subject.run(*trial.probes(_BATCH))  # the executor may prepare workers with its first tasks
    waited: list[float] = []
    for _ in range(_BATCHES):
        subject.quiet()
        gate = trial.gate()
        probes = trial.probes(_BATCH, gate.step)
        submitted = monotonic_ns()
        subject.submit(*probes)
        until = monotonic() + trial.budgets.arrival_s
        while not all(probe.started for probe in probes) and monotonic() < until:
            subject.pump()  # some executors start one task in each round
            sleep(_BETWEEN_PUMPS_S)
        subject.await_started(*probes)
        waited.append((max(probe.runs[0].started_ns for probe in probes) - submitted) / 1e9)
        gate.open()
        subject.await_terminal(*probes)
        cost_s = start_cost_s(trial, probes[0])
        budget = trial.extension() * (OVERHEAD_S + (OVERHEAD_COSTS + _BATCH_COSTS * _BATCH) * cost_s)
        if waited[-1] < budget:
            break
    subject.end()
    _expect_started_within(trial, budget, waited, f"{_BATCH} tasks to start within {budget:.3f} s")


def _expect_started_within(trial: Trial, budget_s: float, waited: Sequence[float], expected: str) -> None:
    """Check that the last attempt took less than its budget."""
    trial.measurements["queued_time"] = distribution(waited)
    expect(
        waited[-1] < budget_s,
        expected=expected,
        actual=f"at least {min(waited):.3f} s in {len(waited)} attempts",
    )
