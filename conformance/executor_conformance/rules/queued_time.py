"""How long a task waits for its first instruction although there is a slot for it.

Queued time runs from the call of ``execute_async()`` to the first instruction of the task, by one monotonic
clock.  Whether the task was forked or has a new interpreter is seen in its memory, and decides what it may
cost: 0.1 s or 1.5 s, or 25 times what a fork or an interpreter costs on this machine, whichever is more.
A median is decided sample by sample until the word is wrong once in 10,000 (see ``harness/timing.py``); a
machine that became slow meanwhile is given that much more, or the rule stays inconclusive.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

from executor_conformance.harness.linux import monotonic, monotonic_ns, thread_time
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.timing import ShareAbove, distribution, quantile
from executor_conformance.harness.trial import Subject, Trial, expect
from executor_conformance.rules import must, should
from executor_conformance.verdicts import Inconclusive, NotApplicable

#: The field's own figures (Airflow: 1.5 s with a new interpreter for each task, 0.1 s with a fork).
_FORKED_S, _INTERPRETER_S = 0.1, 1.5
#: Times the machine's own cost; both have to be exceeded.
_TIMES, _TIMES_TIGHT = 25, 6
_TIGHT_S = 0.005
_WARM_UP, _MOST = 3, 120
_LATENCY_S = 1.0


def _is_forked(trial: Trial, probe: Probe) -> bool:
    return probe.runs[0].host_marker == trial.host


def _start_cost_s(trial: Trial, probe: Probe) -> float:
    """What it costs this machine to start the process of such a task, in seconds."""
    forked = _is_forked(trial, probe)
    return (trial.facts.fork_s or trial.budgets.fork_s) if forked else trial.budgets.interpreter_s


def _one(subject: Subject) -> tuple[Probe, float]:
    """Run a task on an idle executor: it, and its queued time in seconds."""
    probe = subject.trial.probe()
    submitted = monotonic_ns()
    subject.submit(probe)
    subject.await_terminal(probe)
    subject.await_started(probe)  # an event may come before its task, which is another rule's affair
    return probe, max(probe.runs[0].started_ns - submitted, 0) / 1e9


def _samples(subject: Subject, count: int) -> Iterator[tuple[Probe, float]]:
    """Tasks one after the other, each on an idle executor; ends with the time that a rule has."""
    until = monotonic() + 2 * subject.trial.budgets.arrival_s
    for number in range(_WARM_UP + count):
        sample = _one(subject)
        if number >= _WARM_UP:
            yield sample
            if monotonic() > until:
                return


def _expect_median_within(trial: Trial, budget_s: Callable[[Probe], float], what: str) -> None:
    """Decide whether the median queued time is within a budget, and put the distribution down."""
    allowed = 1.0
    while True:
        subject = trial.started(parallelism=2)
        decision: ShareAbove | None = None
        for probe, seconds in _samples(subject, _MOST):
            if decision is None:
                decision = ShareAbove(allowed * budget_s(probe))
            decision.add(seconds)
            if decision.is_above is not None:
                break
        assert decision is not None
        trial.measurements["queued_time"] = distribution(decision.samples)
        trial.measurements["budget_s"] = round(decision.budget_s, 6)
        subject.end()
        if decision.is_above is False:
            return
        slowdown = trial.slowdown()
        if slowdown > allowed * 1.5:
            allowed = slowdown
            continue
        median = statistics.median(decision.samples)
        if decision.is_above is None:
            raise Inconclusive(
                f"after {len(decision.samples)} tasks the median ({median:.4f} s) is too near to the budget "
                f"of {decision.budget_s:.4f} s to be sure"
            )
        expect(
            False,
            awaited=f"{what} within {decision.budget_s:.4f} s (median)",
            seen=f"{median:.4f} s in the median of {len(decision.samples)} tasks, "
            f"{quantile(decision.samples, 0.95):.4f} s in the 95th percentile",
        )


@must()
def the_first_instruction_comes_soon(trial: Trial) -> None:
    """On an idle executor a task reaches its first instruction within 0.1 s, with a new interpreter in 1.5 s.

    Why: a pipeline of short tasks spends its time waiting for slots that are free.
    Likely causes: tasks are handed over by a loop that sleeps; a new interpreter imports the world before the
    task; the executor forks a large process.
    Origin: Airflow's LocalExecutor took 1.5 s with a new interpreter and 0.1 s with a fork (commit 4839a5b).
    """

    def budget(probe: Probe) -> float:
        absolute = _FORKED_S if _is_forked(trial, probe) else _INTERPRETER_S
        return max(absolute, _TIMES * _start_cost_s(trial, probe))

    _expect_median_within(trial, budget, "the first instruction of a task")


@should(after=("queued_time.the-first-instruction-comes-soon",))
def a_task_costs_little_more_than_its_process(trial: Trial) -> None:
    """Queued time is within 5 ms and six times what the machine needs for such a process.

    Why: what is beyond that is the executor's own.
    Likely causes: a polling interval; a new connection or import for each task; several processes for one.
    Origin: Airflow's commit 4839a5b, by which queued time fell from 1.5 s to 0.1 s.
    """
    _expect_median_within(
        trial,
        lambda probe: _TIGHT_S + _TIMES_TIGHT * _start_cost_s(trial, probe),
        "the first instruction of a task",
    )


@should(after=("queued_time.the-first-instruction-comes-soon",))
def the_end_of_a_task_is_told_within_a_second(trial: Trial) -> None:
    """The terminal event is in the buffer within a second of the task's end.

    Why: what depends on the task cannot start before; a thousand tasks in a row make it a quarter of an hour.
    Likely causes: results are polled for; a heartbeat interval is waited out before the end is looked at.
    Origin: Airflow 3's supervisor tells the end of some tasks 5 s late (its heartbeat interval).
    """
    subject = trial.started(parallelism=2)
    latencies = []
    for probe, _ in _samples(subject, 40):
        event = next(event for event in subject.events_of(probe) if event.state in ("success", "failed"))
        finished = probe.runs[0].finished_ns
        if finished is not None:
            latencies.append(max(event.at_ns - finished, 0) / 1e9)
    if not latencies:
        raise NotApplicable("no task was seen to end")
    trial.measurements["latency"] = distribution(latencies)
    budget = _LATENCY_S * trial.budgets.scale
    late = [latency for latency in latencies if latency > budget]
    expect(
        len(late) < 2,
        awaited=f"the event of each task within {budget:.1f} s of its end",
        seen=f"{len(late)} of {len(latencies)} were later, the latest by {max(latencies):.2f} s",
    )


@must()
def a_submission_costs_the_same_however_many_wait(trial: Trial) -> None:
    """``execute_async()`` costs as much with 10,000 tasks waiting as with ten.

    Why: the scheduler submits in its loop; a cost that grows with the backlog stops it when it matters most.
    Likely causes: the backlog is sorted, copied or searched at each submission; a list is taken from the front.
    Origin: the contract: the backlog is the executor's, and may be any.
    """
    subject = trial.started(parallelism=1)
    gate = trial.gate()
    held = trial.probe(gate.step)
    subject.submit(held)
    subject.await_started(held)
    costs = []
    for size in (100, 1000, 10_000):
        while len(subject.submitted) < size:
            subject.submit(trial.shell_probe(0))
        costs.append(_cheapest(lambda: subject.submit(trial.shell_probe(0))))
    trial.measurements["submission_s"] = [round(cost, 7) for cost in costs]
    subject.terminate()
    expect(
        costs[-1] < 10 * costs[0] + 0.0005,
        awaited="a submission beside 10,000 waiting tasks to cost less than ten times one beside 100",
        seen=f"{costs[-1] * 1e6:.0f} microseconds of processor time, and {costs[0] * 1e6:.0f}",
    )


def _cheapest(call: Callable[[], object], times: int = 25) -> float:
    """Processor time of a call in seconds, the median of several: what others do meanwhile does not count."""
    took = []
    for _ in range(times):
        began = thread_time()
        call()
        took.append(thread_time() - began)
    return statistics.median(took)
