"""The executor is started on an event loop that belongs to its caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from executor_conformance.contract import FAILED, SUCCESS
from executor_conformance.harness.linux import monotonic
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.rules import must
from executor_conformance.rules.asynchrony.running import run_on_a_loop
from executor_conformance.verdicts import NotApplicable, Stalled, expect

_IS_ASYNC = (
    "interface.command-kinds-are-accurate",
    "asynchrony.coroutine-functions-run-to-completion",
    "asynchrony.is-async-is-accurate",
)
_ASYNC = (Capability.COROUTINE, Capability.ASYNC)

#: How many checks in a row must find no timer: one that has just gone off is scheduled again shortly after.
_CHECKS_FOR_TIMERS = 8
#: How many tasks are awaited one by one.
_AWAITED_TASKS = 3


@must(needs=_ASYNC, after=(*_IS_ASYNC, "asynchrony.no-object-leak-per-coroutine"))
def a_running_loop_is_left_intact(trial: Trial) -> None:
    """An executor that is started inside a running event loop runs its tasks there or on a loop of its own.
    No call blocks the running loop while tasks wait, and when the executor has ended, the loop is still
    running, with nothing of the executor's on it.

    Why: the loop belongs to an application, has other work, and keeps running when the executor has ended.
    Likely causes: ``run_until_complete()`` on a running loop; the loop is stopped or closed as if it were the
    executor's own; at the end, all its tasks are cancelled, its generators closed, or its threads shut down;
    a timer schedules itself again and again; a call waits for a task that waits for the loop.
    Origin: the AsyncExecutor proposal (join a running loop, or make one).
    """

    async def on_a_loop() -> None:
        loop = asyncio.get_running_loop()
        before = asyncio.all_tasks()
        settings = _settings_of(loop)
        timers = _timers_of(loop)
        numbers = _numbers()
        await numbers.__anext__()
        subject = trial.started(parallelism=4)
        ticking = loop.create_task(_tick(ticks := [0]))
        gate = trial.gate()
        held, queued = trial.probes(4, gate.step), trial.probes(2, "nap=0.01")
        subject.submit_coroutine(*held)
        await _on_loop(subject, lambda: all(p.started for p in held), "4 tasks to start", held)
        subject.submit_coroutine(*queued)
        seen = ticks[0]
        await _on_loop(subject, lambda: ticks[0] > seen + 3, "the caller's own task to keep running", held)
        gate.open()
        await _await_terminal(subject, [*held, *queued])
        last = trial.probes(3, "nap=0.02")
        subject.submit_coroutine(*last)
        subject.end()
        await _await_terminal(subject, last)
        for probe in (*held, *queued, *last):
            subject.expect_outcome(probe, SUCCESS, "a coroutine of an executor on its caller's loop")
        expect(
            not ticking.done(), expected="the caller's own task to keep running", actual="it was cancelled"
        )

        def leftovers() -> set[asyncio.Task[Any]]:
            return asyncio.all_tasks() - before - {ticking}

        await trial.wait_for_on_loop(lambda: not leftovers(), patient=True)
        expect(
            not leftovers(),
            expected="no task of the executor on its caller's loop after end()",
            actual=f"{len(leftovers())} left",
        )
        expect(
            await _next_of(numbers) == 2,
            expected="an asynchronous generator of the caller to stay open",
            actual="it was closed",
        )
        await loop.run_in_executor(None, int)  # raises if the threads of the loop were shut down
        expect(
            _settings_of(loop) == settings,
            expected="the caller's loop to keep its exception handler, task factory and debug mode",
            actual="at least one of them was replaced",
        )
        ticking.cancel()
        checks: list[bool] = []

        def has_no_more_timers() -> bool:
            checks.append(_timers_of(loop) <= timers)
            return all(checks[-_CHECKS_FOR_TIMERS:]) and len(checks) >= _CHECKS_FOR_TIMERS

        expect(
            await trial.wait_for_on_loop(has_no_more_timers, patient=True),
            expected="no timer of the executor on its caller's loop after end()",
            actual="at least one is left",
        )

    run_on_a_loop(on_a_loop())


@must(
    needs=(*_ASYNC, Capability.TERMINATE),
    after=(
        *_IS_ASYNC,
        "asynchrony.a-running-loop-is-left-intact",
        "asynchrony.terminate-cancels-coroutines",
        "lifecycle.two-executors-coexist-in-one-process",
    ),
)
def two_executors_coexist_on_one_loop(trial: Trial) -> None:
    """When two executors were started inside one event loop, the end of one does not affect the other.

    Why: an application has an executor for each of its backends.
    Likely causes: everything in ``asyncio.all_tasks()`` is cancelled; state is kept on the class or the loop.
    Origin: the contract (a process may have several executors); asyncio.all_tasks().
    """

    async def on_a_loop() -> None:
        one, other, third = (trial.started(parallelism=2) for _ in range(3))
        gate = trial.gate()
        lost, kept, ended = trial.probe(gate.step), trial.probes(3, gate.step), trial.probe()
        one.submit_coroutine(lost)
        other.submit_coroutine(*kept[:2])
        third.submit_coroutine(ended)
        await _on_loop(one, lambda: lost.started, "a task to start", [lost])
        await _on_loop(other, lambda: all(p.started for p in kept[:2]), "2 tasks to start", kept)
        other.submit_coroutine(kept[2])
        one.terminate()
        await _await_terminal(one, [lost])
        await _await_terminal(third, [ended])
        third.end()
        await asyncio.sleep(trial.budgets.quiet_s)
        other.pump()
        early = [probe for probe in kept if other.outcome(probe)]
        expect(
            not early,
            expected="the tasks of the other executor to keep running",
            actual=other.describe(early),
        )
        gate.open()
        await _await_terminal(other, kept)
        other.end()
        one.expect_outcome(lost, FAILED, "a coroutine that was running at terminate()")
        third.expect_outcome(ended, SUCCESS, "a coroutine of an executor on its caller's loop")
        for probe in kept:
            other.expect_outcome(probe, SUCCESS, "a coroutine of another executor on the same loop")

    run_on_a_loop(on_a_loop())


@must(needs=_ASYNC, after=(*_IS_ASYNC, "asynchrony.a-running-loop-is-left-intact"))
def a_result_wakes_an_idle_loop(trial: Trial) -> None:
    """A caller that awaits the asyncio future of a task continues when the task ends, even if its event loop
    has nothing else to do.

    Why: the loop sleeps until something wakes it.  On a busy loop nobody notices; on a quiet one the caller
    hangs.
    Likely causes: the result is set from another thread without ``call_soon_threadsafe()``; the future
    belongs to another loop.
    Origin: the documentation of asyncio.Future (it is not thread-safe).
    """

    async def on_a_loop() -> None:
        subject = trial.started(parallelism=2)
        late = 0
        for _ in range(_AWAITED_TASKS):
            probe = trial.probe("nap=0.02")
            subject.submit_coroutine(probe)
            future = subject.driver.future(probe.key)
            if future is None:
                raise NotApplicable("it returns no asyncio future")
            began = monotonic()
            await asyncio.wait({future}, timeout=trial.budgets.arrival_s)
            late += monotonic() - began >= trial.budgets.arrival_s
            await _await_terminal(subject, [probe])
        subject.end()
        expect(
            late < 2,  # a single late one may be the machine's fault
            expected="the caller to continue when its task has ended",
            actual=f"{late} of {_AWAITED_TASKS} times it continued only when the next timer of its loop went "
            f"off, after {trial.budgets.arrival_s:.0f} s",
        )

    run_on_a_loop(on_a_loop())


async def _on_loop(
    subject: Subject, condition: Callable[[], object], expected: str, probes: Sequence[Probe]
) -> None:
    if not await subject.trial.wait_for_on_loop(condition, subject.pump, patient=True):
        raise Stalled(expected=f"{expected} while the caller's loop runs", actual=subject.describe(probes))


async def _await_terminal(subject: Subject, probes: Sequence[Probe]) -> None:
    def all_ended() -> bool:
        return all(map(subject.outcome, probes))

    await _on_loop(subject, all_ended, f"terminal events for {len(probes)} tasks", probes)


async def _tick(ticks: list[int]) -> None:
    while True:
        await asyncio.sleep(0.001)
        ticks[0] += 1


async def _numbers() -> AsyncGenerator[int, None]:
    yield 1
    yield 2


async def _next_of(numbers: AsyncGenerator[int, None]) -> int | None:
    try:
        return await numbers.__anext__()
    except StopAsyncIteration:
        return None
    finally:
        await numbers.aclose()


def _timers_of(loop: asyncio.AbstractEventLoop) -> int:
    """How many timers are scheduled; 0 for a loop that does not show them."""
    return sum(not timer.cancelled() for timer in getattr(loop, "_scheduled", ()))


def _settings_of(loop: asyncio.AbstractEventLoop) -> tuple[object, ...]:
    return loop.get_exception_handler(), loop.get_task_factory(), loop.get_debug()
