"""CPU time: of submitting and syncing with a large backlog, and of an idle executor."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

from executor_conformance.harness.linux import monotonic, process_time, thread_time
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Observation
from executor_conformance.rules import must, should
from executor_conformance.verdicts import Inconclusive, expect

#: Calls are measured with this many queued tasks.
_BACKLOGS = (100, 1_000, 10_000)
#: Where submitting takes milliseconds, a backlog of this size is enough to decide.
_LEAST_BACKLOG = 2_000
#: Where fewer can be submitted in time, two sizes that are this many times apart decide, if the cost grows by
#: less than the second factor, or by more than the third.
_FEWEST_SIZES_APART, _NO_GROWTH, _CLEAR_GROWTH = 3, 1.25, 2.0
#: The methods that submit a task, by the priority that the suite passes to use them.
_METHODS = {None: "execute_async()", 1: "queue_command()"}
#: Calls are measured for this many seconds, but at least this many calls however long they take.
_CALLS_S, _FEW_CALLS = 2.0, 3
#: The share of a CPU that an idle executor may use.
_IDLE_SHARE = 0.1
#: The task that ``end()`` waits for sleeps this many seconds.
_NAP_S = 0.6


@must(
    after=(
        "states.a-burst-is-reported-completely",
        "states.submit-does-not-block",
        "parallelism.at-most-n-tasks-run-at-once",
    )
)
def submit_cost_is_independent_of_backlog(trial: Trial) -> None:
    """``execute_async()`` and ``queue_command()`` cost no more with 10,000 queued tasks than with a hundred.

    Why: the scheduler submits tasks in its loop; a cost that grows with the backlog stalls it under load.
    Likely causes: a backlog that is sorted at each submission; a backlog that is copied or searched.
    Origin: the contract: the executor owns the backlog, which may have any size.
    """
    for priority in trial.build(slots=1).ways_to_submit:
        subject = _with_full_slots(trial)
        costs = {}
        for size in _BACKLOGS:
            reached = _grow_backlog(subject, size, priority)
            spare = trial.probes(75)
            costs[reached] = _lowest_cost(lambda: subject.submit(spare.pop(), priority=priority))  # noqa: B023
            if reached < size:
                break
        method = _METHODS[priority]
        trial.measurements[f"submission_s by {method}"] = {str(size): cost for size, cost in costs.items()}
        few, many = min(costs), max(costs)
        found = f"{costs[many] * 1e6:.0f} microseconds of CPU time, compared with {costs[few] * 1e6:.0f}"
        expect(
            costs[many] < 5 * costs[few] + 50e-6,
            expected=f"{method} with {many} queued tasks to cost less than five times as much as with {few}",
            actual=found,
        )
        if many < _LEAST_BACKLOG:
            _judge_small_backlog(costs, method, found)


def _judge_small_backlog(costs: Mapping[int, float], method: str, found: str) -> None:
    """Judge a growth by two sizes of the backlog where it could not grow further in time.

    :param costs: size -> CPU time of a submission in seconds.
    :param found: the costs, for messages.
    """
    few, many = min(costs), max(costs)
    growth = costs[many] / costs[few] if many > few else 0.0
    if many >= _FEWEST_SIZES_APART * few and growth < _NO_GROWTH:
        return
    expect(
        growth < _CLEAR_GROWTH,
        expected=f"{method} with {many} queued tasks to cost less than {_CLEAR_GROWTH:.0f} times as much as "
        f"with {few}",
        actual=f"{found}; the backlog could not grow beyond {many} tasks in time",
    )
    raise Inconclusive(f"only {many} of {_LEAST_BACKLOG} tasks could be submitted in time")


@must(
    after=(
        "states.submit-does-not-block",
        "queued_time.submit-cost-is-independent-of-backlog",
        "faults.a-large-backlog-does-not-block-submit",
    )
)
def sync_cost_is_at_most_linear_in_backlog(trial: Trial) -> None:
    """The cost of ``sync()`` grows no faster than the number of queued tasks.

    Why: the scheduler calls it in its loop; a ``sync()`` that compares all tasks with each other stalls it
    under load.
    Likely causes: a list that is searched for each of its own items; a backlog that is sorted by a key which
    itself searches.
    Origin: the contract: the executor owns the backlog, which may have any size.
    """
    for priority in trial.build(slots=1).ways_to_submit:
        subject = _with_full_slots(trial)
        sizes, costs = [], []
        for size in _BACKLOGS[1:]:
            sizes.append(_grow_backlog(subject, size, priority))
            subject.beat()  # work that is done once for each new task does not count
            costs.append(_lowest_cost(subject.beat, times=5))
        if sizes[1] < _LEAST_BACKLOG:
            raise Inconclusive(f"only {sizes[1]} of {_LEAST_BACKLOG} tasks could be submitted in time")
        method = _METHODS[priority]
        trial.measurements[f"sync_s after {method}"] = dict(zip(map(str, sizes), costs, strict=True))
        times = sizes[1] / sizes[0]
        expect(
            costs[1] < 3 * times * costs[0] + 0.01,
            expected=f"sync() with {sizes[1]} tasks queued by {method} to cost about {times:.0f} times as "
            f"much as with {sizes[0]}",
            actual=f"{costs[1] * 1e3:.1f} ms of CPU time, compared with {costs[0] * 1e3:.2f} ms",
        )


def _with_full_slots(trial: Trial) -> Subject:
    """An executor whose only slot stays taken."""
    subject = trial.started(parallelism=1)
    held = trial.probe(trial.gate().step)
    subject.submit(held)
    subject.await_started(held)
    return subject


def _grow_backlog(subject: Subject, size: int, priority: int | None = None) -> int:
    """Submit tasks until there are ``size`` of them or the time is up: how many there are."""
    until = monotonic() + 2 * subject.trial.budgets.arrival_s
    while len(subject.submitted) < size and monotonic() < until:
        subject.submit(subject.trial.probe(), priority=priority)
    return len(subject.submitted)


def _lowest_cost(call: Callable[[], object], times: int = 25) -> float:
    """CPU time of a call in seconds: the lowest of three medians, so that other work on the machine counts
    little.

    :param times: calls per median; fewer are made if they take long.
    """
    medians = []
    for _ in range(3):
        took: list[float] = []
        until = monotonic() + _CALLS_S
        while len(took) < times and (monotonic() < until or len(took) < _FEW_CALLS):
            began = thread_time()
            call()
            took.append(thread_time() - began)
        medians.append(statistics.median(took))
    return round(min(medians), 8)


@should(
    needs=(Observation.VISIBLE_WORKERS,),
    after=("parallelism.n-tasks-run-at-once", "shutdown.end-finishes-running-tasks"),
    turn="background",
)
def idle_costs_no_cpu(trial: Trial) -> None:
    """The executor uses less than a tenth of a CPU while it has no tasks and while all running tasks wait for
    something else, also in ``end()``.

    Why: most tasks of a scheduler wait for a database or a service; an executor that polls for their end
    takes CPU time from tasks that compute.
    Likely causes: a loop that checks for work, or for ended tasks, without sleeping; a poll with a timeout of
    zero; a program that is started every so often to query the state.
    Origin: apache/airflow#13637 and apache/airflow#13777 (a whole CPU used without any task).
    """
    slots = trial.slots(2)
    subject = trial.started(slots)
    subject.run(*trial.probes(2))
    shares = {"it has no tasks": trial.host.idle_cpu_share(_IDLE_SHARE)}
    gate = trial.gate()
    running, waiting = trial.probes(slots, gate.step), trial.probes(2)
    subject.submit(*running, *waiting)
    subject.await_started(*running)
    subject.quiet()
    shares[f"{slots} running tasks sleep and two tasks are queued"] = trial.host.idle_cpu_share(_IDLE_SHARE)
    gate.open()
    subject.await_terminal(*running, *waiting)
    shares["end() waits for a task"] = _share_of_end(trial)
    trial.measurements["cpu_share"] = [round(share, 4) for share in shares.values()]
    for meanwhile, share in shares.items():
        expect(
            share < _IDLE_SHARE,
            expected=f"the executor to use less than {_IDLE_SHARE:.0%} of a CPU while {meanwhile}",
            actual=f"{share:.0%}",
        )


def _share_of_end(trial: Trial) -> float:
    """CPU time of the host per second while ``end()`` waits for a task, less that of an idle ``end()``."""

    def of_end(*steps: str) -> float:
        subject = trial.started(parallelism=2, slots=1)
        subject.run(trial.probe())
        if steps:
            last = trial.probe(*steps)
            subject.submit(last)
            subject.await_started(last)
        began = process_time()
        subject.end()
        subject.drain_all()
        return process_time() - began

    shares = []
    for _ in range(3):
        shares.append((of_end(f"nap={_NAP_S}") - of_end()) / _NAP_S)
        if shares[-1] < _IDLE_SHARE:
            break
    return min(shares)
