"""Thousands of coroutines at once, and what each of them costs."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence

from executor_conformance.contract import SUCCESS
from executor_conformance.harness import processes
from executor_conformance.harness.event_loops import objects_on_loops
from executor_conformance.harness.memory import held_by_all
from executor_conformance.harness.probes import Gate, Probe
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability, Observation
from executor_conformance.rules import must, should
from executor_conformance.verdicts import Broken, expect

_BASICS = ("interface.command-kinds-are-accurate", "asynchrony.coroutine-functions-run-to-completion")
_IS_ASYNC = (*_BASICS, "asynchrony.is-async-is-accurate")
_ASYNC = (Capability.COROUTINE, Capability.ASYNC)

#: How many coroutines wait at once in most rules, and in those that measure what they cost the others.
_COUNT, _LARGE_COUNT = 1_000, 3_000

#: Concurrent sleeps may take as long as one of them, plus these seconds, plus this many times the overhead
#: that they have on a plain event loop.
_SLEEP_S, _OVERHEAD_S, _OVERHEAD_FACTOR = 1.0, 1.0, 5
#: The sleeps are repeated up to this many times, because one slow attempt may be the fault of a busy machine.
#: What the executor's threads had to wait for a processor is not counted either.
_ATTEMPTS = 3
#: A wake-up may be late by this many seconds, or by this many times the delay on a loop without other tasks.
_LAG_S, _LAG_FACTOR = 0.02, 10
#: Limits for the coroutines that wait: bytes for each of them, and threads for all of them together.
_BYTES_PER_COROUTINE, _THREADS = 20_480, 250
#: The share of a CPU that an executor may use while it only waits.
_IDLE_SHARE = 0.1


@must(
    needs=(Capability.COROUTINE,),
    after=(*_BASICS, "parallelism.at-most-n-tasks-run-at-once", "parallelism.n-tasks-run-at-once"),
)
def parallelism_applies_to_coroutines(trial: Trial) -> None:
    """As many coroutine functions run at once as ``parallelism`` allows, and no more.

    Why: each may hold a connection, and the other end relies on the limit.
    Likely causes: each submission creates an asyncio task immediately; only threads are limited.
    Origin: the contract (parallelism is the number of tasks that may run at once).
    """
    subject = trial.started(parallelism=3)
    gate = trial.gate()
    probes = trial.probes(9, gate.step)
    subject.submit_coroutine(*probes)
    trial.wait_for(lambda: sum(probe.started for probe in probes) >= 3, pump=subject.pump, patient=True)
    subject.quiet()
    seen = sum(probe.started for probe in probes)
    expect(seen == 3, expected="3 of 9 coroutines to run at once, with parallelism=3", actual=f"{seen} ran")
    gate.open()
    subject.await_terminal(*probes)


@must(needs=_ASYNC, after=(*_IS_ASYNC, "asynchrony.parallelism-applies-to-coroutines"))
def a_thousand_coroutines_run_at_once(trial: Trial) -> None:
    """With ``parallelism=1000``, a thousand coroutines wait at the same time.

    Why: this is what an async executor is for: jobs that run elsewhere and are only monitored from here.
    Likely causes: each task takes a thread from a bounded pool; there is a second limit besides parallelism.
    Origin: the AsyncExecutor proposal (1000s of batch jobs are launched and monitored on one core).
    """
    subject, gate, probes = _waiting(trial, _COUNT)
    gate.open()
    subject.await_terminal(*probes)
    bad = [probe for probe in probes if subject.outcome(probe) != SUCCESS]
    expect(
        not bad,
        expected=f"'success' for all of {_COUNT} coroutines",
        actual=f"not for {len(bad)} of them: {subject.describe(bad)}",
    )


@must(needs=_ASYNC, after=(*_IS_ASYNC, "asynchrony.a-thousand-coroutines-run-at-once"))
def concurrent_sleeps_overlap(trial: Trial) -> None:
    """A thousand coroutines that each sleep for one second take little more than one second together.

    Why: waiting costs nothing, so one core is enough for thousands of tasks.
    Likely causes: a pause between two submissions or two collections; tasks are awaited one after the other;
    a task that takes long is cancelled and run again.
    Origin: the AsyncExecutor proposal (1000s of batch jobs are launched and monitored on one core).
    """
    for _ in range(_ATTEMPTS):
        plain = trial.probes(_COUNT, f"nap={_SLEEP_S}")
        asyncio.run(_gather(plain))
        without_s = _span_s(plain)
        subject = trial.started(_COUNT)
        probes = trial.probes(_COUNT, f"nap={_SLEEP_S}")
        waited_s = trial.host.waited_for_processors_s()
        subject.submit_coroutine(*probes)
        subject.await_terminal(*probes)
        waited_s = max(0.0, trial.host.waited_for_processors_s() - waited_s)
        bad = [probe for probe in probes if subject.outcome(probe) != SUCCESS or len(probe.runs) != 1]
        expect(
            not bad,
            expected="each sleep to run exactly once, to its end",
            actual=subject.describe(bad[:3]),
        )
        took_s = _span_s(probes)
        allowed_s = _OVERHEAD_S + _OVERHEAD_FACTOR * (without_s - _SLEEP_S) + _SLEEP_S
        trial.measurements.update(
            took_s=round(took_s, 3),
            waited_for_processors_s=round(waited_s, 3),
            without_executor_s=round(without_s, 3),
        )
        if took_s - waited_s < allowed_s:
            return
        subject.end()
    raise Broken(
        expected=f"{_COUNT} concurrent sleeps of {_SLEEP_S:.0f} s to take less than {allowed_s:.1f} s",
        actual=f"{took_s:.1f} s, of which {waited_s:.1f} s without a processor; on a plain event loop, "
        f"without the executor, {without_s:.1f} s",
    )


@must(needs=_ASYNC, after=(*_IS_ASYNC, "asynchrony.a-thousand-coroutines-run-at-once"))
def waiting_coroutines_do_not_slow_the_loop(trial: Trial) -> None:
    """While three thousand coroutines wait, another one wakes up nearly as soon as without them.

    Why: all work that the executor keeps doing for each waiting task delays the tasks that do not wait.
    Likely causes: a loop asks all tasks in turn whether they are done; each task has its own timer.
    Origin: the AsyncExecutor proposal (1000s of batch jobs are launched and monitored on one core).
    """
    alone = trial.started(parallelism=2)
    without_s = _lag_s(trial, alone)
    alone.end()
    subject, gate, probes = _waiting(trial, _LARGE_COUNT, spare=1)
    with_waiting_s = _lag_s(trial, subject)
    gate.open()
    subject.await_terminal(*probes)
    trial.measurements.update(lag_without_s=without_s, lag_with_waiting_s=with_waiting_s)
    allowed_s = max(_LAG_S * trial.budgets.scale, _LAG_FACTOR * without_s)
    expect(
        with_waiting_s < allowed_s,
        expected=f"a wake-up less than {allowed_s * 1e3:.0f} ms late while {_LARGE_COUNT} coroutines wait",
        actual=f"{with_waiting_s * 1e3:.1f} ms, and {without_s * 1e3:.1f} ms without them (medians)",
    )


@should(
    needs=(Observation.VISIBLE_WORKERS, *_ASYNC),
    after=(
        *_IS_ASYNC,
        "asynchrony.waiting-coroutines-do-not-slow-the-loop",
        "queued_time.idle-costs-no-cpu",
    ),
)
def waiting_coroutines_cost_no_cpu(trial: Trial) -> None:
    """While three thousand coroutines wait and the executor is not called, it uses less than a tenth of
    a CPU.

    Why: a job elsewhere may take hours, and the CPU has other work in the meantime.
    Likely causes: each task has a timer that checks whether it is done; a loop asks all tasks in turn.
    Origin: the AsyncExecutor proposal (1000s of batch jobs are launched and monitored on one core).
    """
    _, gate, _ = _waiting(trial, _LARGE_COUNT)
    share = trial.host.idle_cpu_share(_IDLE_SHARE)
    gate.open()
    trial.measurements["processor_share"] = round(share, 4)
    expect(
        share < _IDLE_SHARE,
        expected=f"less than {_IDLE_SHARE:.0%} of a CPU while {_LARGE_COUNT} coroutines wait",
        actual=f"{share:.1%}",
    )


@must(
    needs=(Observation.VISIBLE_WORKERS, *_ASYNC),
    after=(*_IS_ASYNC, "asynchrony.a-thousand-coroutines-run-at-once"),
    turn="alone",
)
def waiting_coroutines_cost_little_memory(trial: Trial) -> None:
    """A waiting coroutine costs less than 20 KiB of memory and no thread.

    Why: a hundred thousand coroutines that cost more would fill the memory of a machine.
    Likely causes: a thread for each task; a connection or a buffer for each task, long before it is used.
    Origin: the AsyncExecutor proposal (1000s of batch jobs are launched and monitored on one core).
    """
    warm = trial.started(_COUNT)
    first = trial.probes(50)
    warm.submit_coroutine(*first)
    warm.await_terminal(*first)
    warm.end()
    probes = trial.probes(_COUNT, (gate := trial.gate()).step)
    subject = trial.started(_COUNT)
    before, threads_before = held_by_all(trial.host.relatives()), processes.thread_count()
    _submit_and_await(subject, probes)
    cost = (held_by_all(trial.host.relatives()) - before) / _COUNT
    threads = processes.thread_count() - threads_before
    gate.open()
    subject.await_terminal(*probes)
    trial.measurements["bytes_a_task"] = round(cost)
    expect(
        cost < _BYTES_PER_COROUTINE,
        expected=f"less than {_BYTES_PER_COROUTINE / 1024:.0f} KiB for each of {_COUNT} waiting coroutines",
        actual=f"{cost / 1024:.1f} KiB",
    )
    expect(
        threads < _THREADS,
        expected=f"no thread for each of {_COUNT} waiting coroutines",
        actual=f"{threads} more threads",
    )


@must(needs=_ASYNC, after=_IS_ASYNC)
def no_object_leak_per_coroutine(trial: Trial) -> None:
    """Once the event of a coroutine has been drained, no task, future or coroutine object of it is left.

    Why: a loop runs for months, and everything left on it costs time in each iteration.
    Likely causes: tasks are kept in a list that is never emptied; a helper asyncio task is created for each
    coroutine and never removed; futures are kept for their results.
    Origin: the documentation of asyncio.create_task (keep a reference, and discard it when it is done).
    """
    subject = trial.started(parallelism=20)

    def run(count: int) -> int:
        probes = trial.probes(count, "yield=2")
        subject.submit_coroutine(*probes)
        subject.await_terminal(*probes)
        subject.forget()
        subject.quiet()
        return objects_on_loops()

    first = run(60)
    more = run(60) - first
    if more > 30:  # a cache does not grow by as much again
        more = min(more, run(60) - first - more)
    trial.measurements["objects_left"] = more
    expect(
        more <= 30,
        expected="no task, future or coroutine object to be left of 60 coroutines that have ended",
        actual=f"{more} more objects than before them",
    )


def _waiting(trial: Trial, count: int, spare: int = 0) -> tuple[Subject, Gate, list[Probe]]:
    """``count`` coroutines that have started and wait at a gate.

    :param spare: how many slots of the executor stay free.
    """
    subject = trial.started(count + spare)
    gate = trial.gate()
    probes = trial.probes(count, gate.step)
    _submit_and_await(subject, probes)
    return subject, gate, probes


def _submit_and_await(subject: Subject, probes: Sequence[Probe]) -> None:
    subject.submit_coroutine(*probes)
    subject.require(
        lambda: all(probe.started for probe in probes),
        expected=f"{len(probes)} coroutines to wait at once",
        actual=lambda: f"{sum(probe.started for probe in probes)} do",
        budget_s=3 * subject.trial.budgets.arrival_s,
        patient=True,
    )


async def _gather(probes: Sequence[Probe]) -> None:
    await asyncio.gather(*(probe.work.coroutine() for probe in probes if probe.work.coroutine))


def _span_s(probes: Sequence[Probe]) -> float:
    """From the first start to the last end, in seconds."""
    runs = [probe.runs[0] for probe in probes]
    return (max(run.finished_ns or 0 for run in runs) - min(run.started_ns for run in runs)) / 1e9


def _lag_s(trial: Trial, subject: Subject) -> float:
    """How late a coroutine wakes up from a nap: the median, in seconds."""
    napping = trial.probe("lag=60")
    subject.submit_coroutine(napping)
    subject.await_terminal(napping)
    subject.expect_outcome(napping, SUCCESS, "a coroutine that sleeps 60 times")
    expect(
        len(napping.runs) == 1,
        expected="exactly one run of a coroutine that sleeps 60 times",
        actual=subject.describe([napping]),
    )
    return statistics.median(map(int, napping.runs[0].notes[0].split())) / 1e6
