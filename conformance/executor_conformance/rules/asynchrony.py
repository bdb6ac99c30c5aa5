"""Coroutine functions as tasks: thousands of them on one event loop, or an honest refusal.

An executor is async if ``is_async`` says so; it takes coroutine functions if ``command_kinds`` has
``"coroutine"``.  Whose event loop they run on is its own affair: the one that runs where it is started, which
has to stay its caller's, or one that it makes, which it has to close.  Every other executor has to keep its
hands off them: a coroutine function that is called returns at once and has done nothing.
"""

from __future__ import annotations

import asyncio
import functools
import statistics
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from executor_conformance import coroutine_probe
from executor_conformance.contract import FAILED, SUCCESS
from executor_conformance.driving import Capability
from executor_conformance.harness import processes
from executor_conformance.harness.linux import monotonic
from executor_conformance.harness.loops import open_loops, overheard, running_loops, things_on_loops
from executor_conformance.harness.memory import held_by_all
from executor_conformance.harness.probes import Gate, Probe
from executor_conformance.harness.trial import Subject, Trial, expect
from executor_conformance.rules import may, must, should
from executor_conformance.verdicts import Broken, NotApplicable, Stalled

Result = TypeVar("Result")

_KINDS = ("interface.command-kinds-tell-the-truth",)
_AWAITED = "asynchrony.coroutine-functions-are-awaited"
_BASICS = (*_KINDS, _AWAITED)
_TERMINATION = (
    "shutdown.terminate-stops-what-runs",
    "shutdown.terminate-reports-what-ran",
    "shutdown.terminate-reports-what-waited",
)
_LEFT_INTACT = "asynchrony.a-running-loop-is-left-intact"
_CANCELS = "asynchrony.terminate-cancels-coroutines"
_IS_ASYNC = (*_BASICS, "asynchrony.is-async-tells-the-truth")
_COROUTINES = (Capability.COROUTINE,)
_ASYNC = (Capability.COROUTINE, Capability.ASYNC)

_THOUSAND, _THOUSANDS = 1_000, 3_000
_SLEEP_S, _LITTLE_MORE_S, _OVERHEAD_FACTOR = 1.0, 1.0, 5
#: A machine that was held up once is not the executor's fault.
_TRIES = 3
_LAG_S, _LAG_FACTOR = 0.02, 10
_COST_OF_WAITING, _THREADS_OF_WAITING = 20_480, 250
#: In a row: a timer that has just gone off is to be seen again before long.
_LOOKS = 8
#: Of a processor.
_IDLE_SHARE = 0.1
#: Loops that share the tasks between them are as good as one.
_MOST_LOOPS = 4


# -- what it says of itself ----------------------------------------------------------------------------------


@must(after=("interface.is-async-is-a-bool", *_KINDS))
def is_async_tells_the_truth(trial: Trial) -> None:
    """An executor whose ``is_async`` is true runs coroutine functions side by side on an event loop; or, if
    it takes none, an event loop runs in the host while it has tasks.

    Why: a scheduler hands thousands of tasks to an executor that says so, and one to each process of another.
    Likely causes: the attribute was inherited or copied; each coroutine function gets a loop of its own.
    Origin: apache/airflow pull request 6984 (AsyncExecutor: properties that tell executors apart).
    """
    if trial.build().optional("is_async") is not True:
        raise NotApplicable("it does not say that it is async")
    before = running_loops()
    subject = trial.started(2 * _MOST_LOOPS)
    gate = trial.gate()
    probes = trial.probes(2 * _MOST_LOOPS, "loop", gate.step)
    if subject.can(Capability.COROUTINE):
        subject.submit_coroutine(*probes)
        subject.until(
            lambda: all(probe.runs and probe.runs[0].notes for probe in probes),
            awaited=f"{len(probes)} coroutine functions to start",
            seen=lambda: subject.story(probes),
        )
        loops = {(probe.runs[0].pid, *probe.runs[0].notes) for probe in probes}
        gate.open()
        expect(
            len(loops) <= _MOST_LOOPS,
            awaited=f"{len(probes)} coroutine functions to share an event loop, or a few",
            seen=f"{len(loops)} loops",
        )
        return
    held = trial.probe(gate.step)
    subject.submit(held)
    subject.await_started(held)
    seen = running_loops() - before
    gate.open()
    subject.await_terminal(held)
    expect(
        seen > 0,
        awaited="coroutine functions to be taken, or an event loop in the host while a task runs",
        seen="it takes none, and there is no such loop",
    )


@should(after=("interface.is-async-is-a-bool", *_KINDS), needs=(Capability.KEYS,))
def what_is_async_says_so(trial: Trial) -> None:
    """An executor that runs coroutine functions has ``"coroutine"`` in ``command_kinds``; and if it runs them
    side by side on one event loop, its ``is_async`` is true.

    Why: what nobody is told of, nobody uses.
    Likely causes: the executor was made async, and its properties were forgotten; there are none.
    Origin: apache/airflow pull request 6984 (AsyncExecutor: properties that tell executors apart).
    """
    subject = trial.started(parallelism=2)
    _leave_family_without_coroutines(trial)
    if subject.can(Capability.ASYNC) and subject.can(Capability.COROUTINE):
        raise NotApplicable("it says both")
    probes = trial.probes(2, "loop", "nap=0.05")
    for probe in probes:
        if subject.refusal(lambda: subject.submit_coroutine(probe)) is not None:  # noqa: B023
            raise NotApplicable("it takes no coroutine function, and says so")
    trial.comes_true(lambda: all(map(subject.outcome, probes)), pump=subject.pump)
    if not all(probe.finished for probe in probes):
        raise NotApplicable("it runs no coroutine function")
    expect(
        subject.can(Capability.COROUTINE),
        awaited="'coroutine' in command_kinds of an executor that runs coroutine functions",
        seen="it is missing",
    )
    runs = [probe.runs[0] for probe in probes]
    shared = len({(run.pid, *run.notes) for run in runs}) == 1
    at_once = runs[1].started_ns < (runs[0].finished_ns or 0) and runs[0].started_ns < (
        runs[1].finished_ns or 0
    )
    expect(
        not (shared and at_once),
        awaited="is_async to be True of an executor that runs coroutine functions on one event loop",
        seen="it is not, and two of them were run at once on the same loop",
    )


@must(after=_KINDS)
def an_unawaited_coroutine_is_no_success(trial: Trial) -> None:
    """An executor that takes no coroutine functions reports none as ``success``, and puts none on the event
    loop of its caller.

    Why: a coroutine function that is called, and not awaited, has done nothing; and what was put on somebody
    else's loop is run by whoever owns that, or never.
    Likely causes: whatever can be called is called; only functions are looked at, not objects with an
    asynchronous ``__call__``; it is taken one step and dropped; the result is handed to
    ``asyncio.ensure_future``.
    Origin: apache/airflow pull requests 5788 and 6984 (the AsyncExecutor proposal: one interface for both).
    """
    _leave_family_without_coroutines(trial)
    _leave_taker_of_coroutines(trial)

    async def on_a_loop() -> None:
        before = asyncio.all_tasks()
        subject = trial.started()
        for what, probe, command in _disguises(trial):
            submission = functools.partial(subject.submit_raw, probe.key, command)
            if subject.refusal(submission) is None:
                await trial.comes_true_on_loop(lambda: subject.outcome(probe), subject.pump)  # noqa: B023
            strange = asyncio.all_tasks() - before
            expect(
                not strange,
                awaited=f"{what} to stay off the caller's event loop",
                seen=f"{len(strange)} tasks more are on it",
            )
            expect(
                subject.outcome(probe) != SUCCESS or probe.finished,
                awaited=f"{what} to be refused or to fail",
                seen="it was reported as success and never ran",
            )

    _run(on_a_loop())


@should(after=("asynchrony.an-unawaited-coroutine-is-no-success",))
def a_coroutine_function_is_refused_at_once(trial: Trial) -> None:
    """An executor that takes no coroutine functions refuses one with an error when it is submitted.

    Why: the mistake is in the caller's line, and a failed task long after tells of another.
    Likely causes: the command is looked at in the worker only; only its being callable is.
    Origin: apache/airflow pull requests 5788 and 6984 (the AsyncExecutor proposal: one interface for both).
    """
    _leave_family_without_coroutines(trial)
    _leave_taker_of_coroutines(trial)
    subject = trial.started()
    probe = trial.probe()
    refusal = subject.refusal(lambda: subject.submit_coroutine(probe))
    expect(
        refusal is not None or subject.comes_to_run(probe),
        awaited="a coroutine function to be refused with an error",
        seen="it was accepted",
    )


def _leave_family_without_coroutines(trial: Trial) -> None:
    reason = trial.target.adapter.lacks.get(Capability.COROUTINE)
    if reason is not None:
        raise NotApplicable(reason)


def _leave_taker_of_coroutines(trial: Trial) -> None:
    if trial.build().can(Capability.COROUTINE):
        raise NotApplicable("it takes coroutine functions")


def _disguises(trial: Trial) -> list[tuple[str, Probe, object]]:
    """Coroutine functions, as plain and as hidden as callers have them."""
    steps = ("yield=2", "nap=0.01")  # so that its first step is not its last
    plain, hidden = trial.probes(2, *steps)
    return [
        ("a coroutine function", plain, plain.work.coroutine),
        (
            "an object with an asynchronous __call__",
            hidden,
            coroutine_probe.Method(trial.journal.path, hidden.name, steps),
        ),
    ]


# -- one coroutine -------------------------------------------------------------------------------------------


@must(needs=_COROUTINES, after=(*_KINDS, "states.no-terminal-event-before-the-end"))
def coroutine_functions_are_awaited(trial: Trial) -> None:
    """A coroutine function runs to its last instruction, once, and ``success`` is reported after that.

    Why: a coroutine gives way many times before it is done, and each time looks like an end.
    Likely causes: the event is written when the task was made; the first step is taken for all; an object
    with an asynchronous ``__call__`` is called and never awaited.
    Origin: apache/airflow pull requests 5788 and 6984 (the AsyncExecutor proposal: one interface for both).
    """
    subject = trial.started()
    gate = trial.gate()
    held = trial.probe("yield=3", gate.step, "yield=3")
    subject.submit_coroutine(held)
    subject.await_started(held)
    subject.quiet()
    expect(
        subject.outcome(held) is None,
        awaited="no terminal event of a coroutine that waits",
        seen=f"{subject.outcome(held)!r}",
    )
    gate.open()
    subject.await_terminal(held)
    subject.expect_outcome(held, SUCCESS, "a coroutine function")
    for what, probe, command in _disguises(trial):
        if subject.refusal(functools.partial(subject.submit_raw, probe.key, command)) is None:
            subject.await_terminal(probe)
            expect(
                subject.outcome(probe) != SUCCESS or (probe.finished and len(probe.runs) == 1),
                awaited=f"{what} that is reported as success to have run once, to its end",
                seen=f"{len(probe.runs)} runs, of which ended: {probe.finished}",
            )


@must(needs=_COROUTINES, after=(*_BASICS, "states.an-exception-is-a-failure"))
def a_broken_coroutine_fails_alone(trial: Trial) -> None:
    """A coroutine that raises, times out, cancels itself or exits is reported ``failed``, and the others go
    on.

    Why: all of them share a loop, and some of these leave a loop by way of the task, or pass for a
    cancellation by somebody else.
    Likely causes: only ``Exception`` is caught, and ``CancelledError`` and ``SystemExit`` are none; tasks are
    gathered, so that the first failure cancels the rest; a cancelled one never gives its slot back.
    Origin: apache/airflow#64476 (an exception of the payload kills the scheduler); asyncio's Task, which
    raises SystemExit out of the loop.
    """
    subject = trial.started(parallelism=3)
    for step in ("raise=on purpose", "timeout", "cancel", "exit=3", "recurse"):
        gate = trial.gate()
        beside = trial.probe(gate.step)
        bad = trial.probe("yield=1", step)
        subject.submit_coroutine(beside)
        subject.await_started(beside)
        subject.submit_coroutine(bad)
        subject.await_terminal(bad)
        subject.expect_outcome(bad, FAILED, f"a coroutine that ends by {step}")
        gate.open()
        after = trial.probe()
        subject.submit_coroutine(after)
        subject.await_terminal(beside, after)
        for good in (beside, after):
            subject.expect_outcome(good, SUCCESS, f"a coroutine beside or after one that ends by {step}")
    gate = trial.gate()
    full = trial.probes(3, gate.step)
    subject.submit_coroutine(*full)
    subject.until(
        lambda: all(probe.started for probe in full),
        awaited="3 coroutines at once after others have failed, with parallelism=3",
        seen=lambda: f"{sum(probe.started for probe in full)}",
    )
    gate.open()
    subject.await_terminal(*full)


@must(needs=_COROUTINES, after=_BASICS)
def a_waiting_coroutine_is_held(trial: Trial) -> None:
    """A coroutine that waits is held by the executor: no garbage collection takes it away.

    Why: a loop refers weakly to its tasks; one that waits for what only itself refers to, such as an answer
    that a cache hands out, is garbage unless somebody holds it, and disappears now and then, under load.
    Likely causes: the result of ``asyncio.create_task()`` is thrown away; tasks are in a ``WeakSet``.
    Origin: the documentation of asyncio.create_task (a task may disappear in mid-execution);
    python/cpython#91887.
    """
    subject = trial.started(parallelism=4)
    probes = trial.probes(4, "yield=1", "alone", "yield=1")
    subject.submit_coroutine(*probes)
    subject.await_terminal(*probes)
    for probe in probes:
        subject.expect_outcome(probe, SUCCESS, "a coroutine that waited while garbage was collected")


@must(needs=_ASYNC, after=_IS_ASYNC)
def context_variables_stay_apart(trial: Trial) -> None:
    """What a coroutine sets in a context variable no other coroutine sees, nor the host.

    Why: requests, tenants and loggers are kept there, because it is the one thing that coroutines do not
    share.
    Likely causes: coroutines are awaited one after the other in one task; they are run in one context.
    Origin: PEP 567, which gives each task a copy of its context.
    """
    subject = trial.started(parallelism=2)
    pair = [
        trial.probe("look-context", f"context={name}", "yield=5", "nap=0.01", "look-context")
        for name in ("one", "two")
    ]
    subject.submit_coroutine(*pair)
    subject.await_terminal(*pair)
    late = trial.probe("look-context")
    subject.submit_coroutine(late)
    subject.await_terminal(late)
    seen = [probe.runs[0].notes for probe in (*pair, late) if probe.runs]
    expect(
        seen == [["clean", "one"], ["clean", "two"], ["clean"]],
        awaited="each of 2 coroutines to find the variable clean and then what it has set, and a third one "
        "to find it clean",
        seen=f"{seen}",
    )
    expect(
        coroutine_probe.context() == "clean",
        awaited="the variable to stay as it was in the host",
        seen=coroutine_probe.context(),
    )


# -- many ----------------------------------------------------------------------------------------------------


@must(needs=_COROUTINES, after=(*_BASICS, "parallelism.never-more-than-n", "parallelism.n-is-reached"))
def parallelism_bounds_coroutines(trial: Trial) -> None:
    """Of coroutine functions, too, as many run at once as ``parallelism`` says, and no more.

    Why: each may hold a connection, and whoever is at the other end was promised a number.
    Likely causes: a task of the loop is made at once for each submission; the bound is that of the threads.
    Origin: the contract (parallelism is the number of tasks that may run at once).
    """
    subject = trial.started(parallelism=3)
    gate = trial.gate()
    probes = trial.probes(9, gate.step)
    subject.submit_coroutine(*probes)
    trial.comes_true(lambda: sum(probe.started for probe in probes) >= 3, pump=subject.pump)
    subject.quiet()
    seen = sum(probe.started for probe in probes)
    expect(seen == 3, awaited="3 coroutines at once of 9, with parallelism=3", seen=f"{seen} at once")
    gate.open()
    subject.await_terminal(*probes)


@must(needs=_ASYNC, after=(*_IS_ASYNC, "asynchrony.parallelism-bounds-coroutines"))
def a_thousand_wait_at_once(trial: Trial) -> None:
    """With ``parallelism=1000``, a thousand coroutines wait at the same time.

    Why: this is what an async executor is for: jobs that run elsewhere, and are only watched from here.
    Likely causes: there is a thread for each task, of a bounded number; a second bound beside parallelism.
    Origin: the AsyncExecutor proposal (1000s of batch jobs are launched and monitored on one core).
    """
    subject, gate, probes = _waiting(trial, _THOUSAND)
    gate.open()
    subject.await_terminal(*probes)
    bad = [probe for probe in probes if subject.outcome(probe) != SUCCESS]
    expect(not bad, awaited=f"{_THOUSAND} successes", seen=subject.story(bad))


@must(needs=_ASYNC, after=(*_IS_ASYNC, "asynchrony.a-thousand-wait-at-once"))
def sleeping_together_costs_one_sleep(trial: Trial) -> None:
    """A thousand coroutines that sleep for one second are over in little more than one second.

    Why: waiting costs nothing, so that one core is enough for thousands.
    Likely causes: a pause between two submissions or two collections; tasks are awaited one after the other;
    what takes long is given up and run once more.
    Origin: the AsyncExecutor proposal (1000s of batch jobs are launched and monitored on one core).
    """
    for _ in range(_TRIES):
        plain = trial.probes(_THOUSAND, f"nap={_SLEEP_S}")
        asyncio.run(_gather(plain))
        without = _span_s(plain)
        subject = trial.started(_THOUSAND)
        probes = trial.probes(_THOUSAND, f"nap={_SLEEP_S}")
        subject.submit_coroutine(*probes)
        subject.await_terminal(*probes)
        bad = [probe for probe in probes if subject.outcome(probe) != SUCCESS or len(probe.runs) != 1]
        expect(not bad, awaited="a sleep to be run once, to its end", seen=subject.story(bad[:3]))
        took = _span_s(probes)
        allowed = _LITTLE_MORE_S + _OVERHEAD_FACTOR * (without - _SLEEP_S) + _SLEEP_S
        trial.measurements.update(took_s=round(took, 3), without_executor_s=round(without, 3))
        if took < allowed:
            return
        subject.end()
    raise Broken(
        awaited=f"{_THOUSAND} sleeps of {_SLEEP_S:.0f} s to take less than {allowed:.1f} s together",
        seen=f"{took:.1f} s; without an executor, on a plain loop, {without:.1f} s",
    )


@must(needs=_ASYNC, after=(*_IS_ASYNC, "asynchrony.a-thousand-wait-at-once"))
def thousands_do_not_slow_the_loop(trial: Trial) -> None:
    """Beside three thousand coroutines that wait, another one is woken nearly as soon as without them.

    Why: what the executor does all the while for each task that waits, it takes from those that do not.
    Likely causes: a loop asks all tasks in turn whether they are done; each has a timer of its own.
    Origin: the AsyncExecutor proposal (1000s of batch jobs are launched and monitored on one core).
    """
    alone = trial.started(parallelism=2)
    without = _lag_s(trial, alone)
    alone.end()
    subject, gate, probes = _waiting(trial, _THOUSANDS, spare=1)
    beside = _lag_s(trial, subject)
    gate.open()
    subject.await_terminal(*probes)
    trial.measurements.update(lag_without_s=without, lag_beside_s=beside)
    allowed = max(_LAG_S * trial.budgets.scale, _LAG_FACTOR * without)
    expect(
        beside < allowed,
        awaited=f"less than {allowed * 1e3:.0f} ms of delay beside {_THOUSANDS} tasks that wait",
        seen=f"{beside * 1e3:.1f} ms, and {without * 1e3:.1f} ms without them (medians)",
    )


@should(
    needs=_ASYNC,
    after=(
        *_IS_ASYNC,
        "asynchrony.thousands-do-not-slow-the-loop",
        "queued_time.waiting-takes-no-processor",
    ),
)
def thousands_that_wait_take_no_processor(trial: Trial) -> None:
    """While three thousand coroutines wait and nobody calls the executor, it takes less than a tenth of a
    processor.

    Why: jobs that run for hours are waited for that long, and the processor has others to serve.
    Likely causes: each task has a timer that looks whether it is done; a loop asks all tasks in turn.
    Origin: the AsyncExecutor proposal (1000s of batch jobs are launched and monitored on one core).
    """
    _, gate, _ = _waiting(trial, _THOUSANDS)
    share = trial.processor_share_at_rest(_IDLE_SHARE)
    gate.open()
    trial.measurements["processor_share"] = round(share, 4)
    expect(
        share < _IDLE_SHARE,
        awaited=f"less than {_IDLE_SHARE:.0%} of a processor while {_THOUSANDS} coroutines wait",
        seen=f"{share:.1%}",
    )


@must(needs=_ASYNC, after=(*_IS_ASYNC, "asynchrony.a-thousand-wait-at-once"))
def a_waiting_coroutine_costs_little_memory(trial: Trial) -> None:
    """A coroutine that waits costs less than 20 KiB of memory, and no thread.

    Why: of a hundred thousand that is the memory of a machine.
    Likely causes: a thread for each task; a connection or a buffer of its own that nobody uses yet.
    Origin: the AsyncExecutor proposal (1000s of batch jobs are launched and monitored on one core).
    """
    warm = trial.started(_THOUSAND)
    first = trial.probes(50)
    warm.submit_coroutine(*first)
    warm.await_terminal(*first)
    warm.end()
    probes = trial.probes(_THOUSAND, (gate := trial.gate()).step)
    subject = trial.started(_THOUSAND)
    before, threads_before = held_by_all(trial.relatives()), processes.thread_count()
    _submit_and_await(subject, probes)
    cost = (held_by_all(trial.relatives()) - before) / _THOUSAND
    threads = processes.thread_count() - threads_before
    gate.open()
    subject.await_terminal(*probes)
    trial.measurements["bytes_a_task"] = round(cost)
    expect(
        cost < _COST_OF_WAITING,
        awaited=f"less than {_COST_OF_WAITING / 1024:.0f} KiB for each of {_THOUSAND} coroutines that wait",
        seen=f"{cost / 1024:.1f} KiB",
    )
    expect(
        threads < _THREADS_OF_WAITING,
        awaited=f"no thread for each of {_THOUSAND} coroutines that wait",
        seen=f"{threads} threads more",
    )


@must(needs=_ASYNC, after=_IS_ASYNC)
def nothing_of_a_coroutine_stays(trial: Trial) -> None:
    """When the event of a coroutine has been taken, no task, future or coroutine of it is left.

    Why: a loop goes round for months, and what is left on it is looked after in each round.
    Likely causes: tasks are kept in a list that is never emptied; a helper task for each task is not awaited;
    futures are kept for their results.
    Origin: the documentation of asyncio.create_task (keep a reference, and discard it when it is done).
    """
    subject = trial.started(parallelism=20)

    def run(count: int) -> int:
        probes = trial.probes(count, "yield=2")
        subject.submit_coroutine(*probes)
        subject.await_terminal(*probes)
        subject.forget()
        subject.quiet()
        return things_on_loops()

    first = run(60)
    more = run(60) - first
    if more > 30:  # once more: what grows then is no cache
        more = min(more, run(60) - first - more)
    trial.measurements["things_left"] = more
    expect(more <= 30, awaited="nothing to be left of 60 coroutines that have ended", seen=f"{more} objects")


@must(needs=_ASYNC, after=_IS_ASYNC)
def a_blocking_coroutine_ends_nobody(trial: Trial) -> None:
    """While a coroutine blocks the event loop the others wait, and go on when it is over.

    Why: sooner or later a task calls what blocks; then everybody is late, and nobody may be lost.
    Likely causes: a watchdog gives up the loop and all that is on it; deadlines are counted while nobody
    could keep them.
    Origin: apache/airflow#71380 (one bad job stalls the rest).
    """
    subject = trial.started(parallelism=8)
    gate = trial.gate()
    waiting = trial.probes(3, gate.step)
    subject.submit_coroutine(*waiting)
    subject.await_started(*waiting)
    blocking = trial.probe("block=1.0")
    behind = trial.probes(3, "nap=0.01")
    subject.submit_coroutine(blocking, *behind)
    subject.await_started(blocking)
    trial.comes_true(lambda: blocking.finished, pump=subject.pump)
    subject.quiet()
    gate.open()
    probes = [blocking, *waiting, *behind]
    subject.await_terminal(*probes)
    for probe in probes:
        subject.expect_outcome(probe, SUCCESS, "a coroutine that blocks, or one beside it")


@must(needs=_ASYNC, after=_IS_ASYNC)
def what_blocks_by_nature_blocks_no_loop(trial: Trial) -> None:
    """While a command or a callable runs, where the executor takes them, coroutines go on beside it.

    Why: a program and a plain call cannot give way, so they have to be waited for elsewhere than on the loop.
    Likely causes: a callable is called by the loop itself; ``subprocess.run`` in a coroutine.
    Origin: the AsyncExecutor proposal (blocking work goes to threads or processes); apache/airflow#71380.
    """
    subject = trial.started(parallelism=4)
    forms = (
        ("command", Capability.ARGV, subject.submit),
        ("callable", Capability.CALLABLE, subject.submit_callable),
    )
    taken = [(what, submit) for what, capability, submit in forms if subject.can(capability)]
    if not taken:
        raise NotApplicable("it takes coroutine functions only")
    for what, submit in taken:
        gate = trial.gate()
        blocking, beside = trial.probe(gate.step), trial.probe("yield=3", "nap=0.01")
        submit(blocking)
        subject.await_started(blocking)
        subject.submit_coroutine(beside)
        went_on = trial.comes_true(lambda: beside.finished, pump=subject.pump)  # noqa: B023
        gate.open()
        expect(
            went_on, awaited=f"a coroutine to go on beside a {what} that waits", seen=subject.story([beside])
        )
        subject.await_terminal(blocking, beside)


@may(
    needs=(*_ASYNC, Capability.KEYS),  # without a key it has no name
    after=(*_IS_ASYNC, "asynchrony.a-blocking-coroutine-ends-nobody"),
)
def a_blocking_coroutine_is_named(trial: Trial) -> None:
    """A coroutine that blocks the event loop for a second is named in a log message or a warning.

    Why: from outside it looks as if all tasks were slow.
    Likely causes: nobody looks at the loop from another thread; what is seen there is told to nobody.
    Origin: asyncio's debug mode, which tells of slow callbacks after they have ended; apache/airflow#71380.
    """
    subject = trial.started(parallelism=2)
    blocking = trial.probe("block=1.0")
    with overheard() as heard:
        subject.submit_coroutine(blocking)
        subject.await_terminal(blocking)
        task_id = blocking.key.task_id
        trial.comes_true(lambda: any(task_id in text for text in heard), budget_s=trial.budgets.quiet_s)
    expect(
        any(task_id in text for text in heard),
        awaited=f"a log message or warning with {task_id} in it",
        seen=f"{len(heard)} messages" + (f", the last of them {heard[-1]:.160}" if heard else ""),
    )


# -- the end -------------------------------------------------------------------------------------------------


@must(needs=_COROUTINES, after=(*_BASICS, "shutdown.accepted-work-is-finished"))
def the_end_waits_for_coroutines(trial: Trial) -> None:
    """``end()`` returns when every coroutine that was accepted has come to its end, also those that waited
    for a slot.

    Why: what was accepted is finished, on whatever it runs.
    Likely causes: the loop is stopped while tasks are on it; its thread is a daemon that nobody joins; only
    what has started is awaited, or for a second only.
    Origin: the contract (end() finishes what was accepted); asyncio.run, which cancels what is left.
    """
    subject = trial.started(parallelism=2)
    # One takes longer than the second that is granted to those who are in a hurry.
    probes = [trial.probe("nap=1.5"), *trial.probes(5, "yield=2", "nap=0.03")]
    subject.submit_coroutine(*probes)
    subject.end()
    ended = sum(probe.finished for probe in probes)
    expect(ended == 6, awaited="6 coroutines to have ended before end() returns", seen=f"{ended} had")
    subject.drain_all()
    for probe in probes:
        subject.expect_outcome(probe, SUCCESS, "a coroutine that end() waited for")


@must(
    needs=(*_COROUTINES, Capability.TERMINATE),
    after=(*_BASICS, *_TERMINATION, "asynchrony.parallelism-bounds-coroutines"),
)
def terminate_cancels_coroutines(trial: Trial) -> None:
    """``terminate()`` cancels the coroutines that run, so that they can clean up, starts none of those that
    wait, and reports all of them ``failed``.

    Why: a cancelled coroutine can close what it has opened; one that is only forgotten cannot.
    Likely causes: the loop is stopped and its tasks are left where they are, or in the middle of their
    ``finally``; what waits is forgotten, or takes the slots of those that were cancelled.
    Origin: the contract (terminate() stops now); asyncio.run, which cancels what is left.
    """
    subject = trial.started(parallelism=2)
    gate = trial.gate()
    running, waiting = trial.probes(2, gate.step), trial.probes(2, gate.step)
    subject.submit_coroutine(*running)
    subject.await_started(*running)
    subject.submit_coroutine(*waiting)
    subject.terminate()
    subject.drain_all()
    for probe in (*running, *waiting):
        subject.expect_outcome(probe, FAILED, "a coroutine that was terminated")
    in_host = [probe for probe in running if probe.runs[0].pid == trial.host]
    trial.comes_true(lambda: _noted(in_host, "cleaned up") == len(in_host))
    cancelled, cleaned_up = _noted(in_host, "cancelled"), _noted(in_host, "cleaned up")
    gate.open()
    trial.quiet()
    late = [probe for probe in (*running, *waiting) if probe.finished]
    expect(not late, awaited="nothing of them to go on", seen=f"{len(late)} of 4 did")
    begun = [probe for probe in waiting if probe.started]
    expect(not begun, awaited="nothing that waited to be started", seen=f"{len(begun)} of 2 were")
    expect(
        cancelled == cleaned_up == len(in_host),
        awaited=f"{len(in_host)} coroutines to be cancelled, and to wait for 10 ms while they clean up",
        seen=f"{cancelled} were cancelled, and {cleaned_up} went on after they had waited",
    )


def _noted(probes: Sequence[Probe], note: str) -> int:
    return sum(note in probe.runs[0].notes for probe in probes)


@should(needs=(*_COROUTINES, Capability.TERMINATE), after=(*_BASICS, _CANCELS))
def a_stubborn_coroutine_holds_up_nothing(trial: Trial) -> None:
    """``terminate()`` returns although a coroutine swallows its cancellation, and reports it ``failed``.

    Why: it is one ``except`` too many in a library, and would keep a scheduler from ever stopping.
    Likely causes: cancelled tasks are gathered without a time limit; the thread of the loop is joined without
    one.
    Origin: bpo-32751 (asyncio.wait_for waits for what it has cancelled, however long that takes).
    """
    subject = trial.started()
    gate = trial.gate()
    stubborn = trial.probe(f"shrug={gate.path}")
    subject.submit_coroutine(stubborn)
    subject.await_started(stubborn)
    subject.terminate()
    subject.drain_all()
    gate.open()
    subject.expect_outcome(stubborn, FAILED, "a coroutine that swallows its cancellation")


@must(needs=_COROUTINES, after=(*_BASICS, "asynchrony.the-end-waits-for-coroutines"))
def asynchronous_generators_are_closed(trial: Trial) -> None:
    """An asynchronous generator that a coroutine has left unfinished is closed when ``end()`` returns.

    Why: what stands in its ``finally`` needs the loop: connections, locks, files of others.
    Likely causes: the loop is closed without ``shutdown_asyncgens()``; it is only stopped.
    Origin: PEP 525 (finalization needs the event loop).
    """
    subject = trial.started()
    probe = trial.probe("generator")
    subject.submit_coroutine(probe)
    subject.await_terminal(probe)
    subject.end()
    notes = probe.runs[0].notes
    expect(
        notes == ["generator closed"],
        awaited="its finally to have run once",
        seen=f"{len(notes)} times",
    )


@must(needs=_ASYNC, after=(*_IS_ASYNC, "shutdown.every-worker-exits"))
def a_loop_of_its_own_is_closed(trial: Trial) -> None:
    """Where no event loop runs, the executor makes one, and closes it at the end.

    Why: an open loop is a selector and two sockets, and with a thread that is still in it, a hang at exit.
    Likely causes: the loop is stopped and not closed; the thread is not joined.
    Origin: the AsyncExecutor proposal (join a running loop, or make one); CPython's ResourceWarning for
    unclosed loops.
    """
    for end in (Subject.end, Subject.terminate):
        if end is Subject.terminate and not trial.build().can(Capability.TERMINATE):
            return
        before, threads = open_loops(), processes.thread_count()
        subject = trial.started()
        probes = trial.probes(3, "yield=1")
        subject.submit_coroutine(*probes)
        subject.await_terminal(*probes)
        end(subject)
        subject.drain_all()
        trial.comes_true(lambda: processes.thread_count() <= threads)  # noqa: B023
        left = open_loops() - before
        more = processes.thread_count() - threads
        expect(
            left <= 0 and more <= 0,
            awaited=f"no loop and no thread more than before, after {end.__name__}()",
            seen=f"{left} loops that are not closed, {more} threads",
        )


# -- on the loop of the caller -------------------------------------------------------------------------------


@must(needs=_ASYNC, after=(*_IS_ASYNC, "asynchrony.nothing-of-a-coroutine-stays"))
def a_running_loop_is_left_intact(trial: Trial) -> None:
    """Started inside a running event loop, the executor runs its tasks there or on a loop of its own, blocks
    the running one in no call while tasks wait, and leaves it running and empty.

    Why: the loop is that of an application, with other things on it; it goes on when the executor has ended.
    Likely causes: run_until_complete() on a loop that runs; the loop is stopped or closed like one's own; all
    its tasks are cancelled at the end, its generators closed, its threads shut down; a timer sets itself
    anew; a call waits for a task which waits for the loop.
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
        await _on_loop(subject, lambda: ticks[0] > seen + 3, "the caller's own task to go on", held)
        gate.open()
        await _await_terminal(subject, [*held, *queued])
        last = trial.probes(3, "nap=0.02")
        subject.submit_coroutine(*last)
        subject.end()
        await _await_terminal(subject, last)
        for probe in (*held, *queued, *last):
            subject.expect_outcome(probe, SUCCESS, "a coroutine on its caller's loop")
        expect(not ticking.done(), awaited="the caller's own task to go on", seen="it was cancelled")

        def strange() -> set[asyncio.Task[Any]]:
            return asyncio.all_tasks() - before - {ticking}

        await trial.comes_true_on_loop(lambda: not strange())
        expect(
            not strange(), awaited="no task of the executor on the loop", seen=f"{len(strange())} are left"
        )
        expect(
            await _next_of(numbers) == 2,
            awaited="an asynchronous generator of the caller's to go on",
            seen="it was closed",
        )
        await loop.run_in_executor(None, int)  # which raises if the loop's own threads were shut down
        expect(
            _settings_of(loop) == settings,
            awaited="the loop's exception handler, task factory and debug mode as they were",
            seen="another one",
        )
        ticking.cancel()
        looks: list[bool] = []

        def calm() -> bool:
            looks.append(_timers_of(loop) <= timers)
            return all(looks[-_LOOKS:]) and len(looks) >= _LOOKS

        expect(
            await trial.comes_true_on_loop(calm),
            awaited="no timer of the executor on the loop",
            seen="some are left",
        )

    _run(on_a_loop())


@must(
    needs=(*_ASYNC, Capability.TERMINATE),
    after=(
        *_IS_ASYNC,
        "asynchrony.a-running-loop-is-left-intact",
        _CANCELS,
        "lifecycle.two-executors-share-a-process",
    ),
)
def two_executors_share_a_loop(trial: Trial) -> None:
    """Of two executors that were started inside one event loop, the end of one does nothing to the other.

    Why: an application has an executor for each of its backends.
    Likely causes: ``asyncio.all_tasks()`` is cancelled; state is kept on the class or the loop.
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
        expect(not early, awaited="the other executor's tasks to go on", seen=other.story(early))
        gate.open()
        await _await_terminal(other, kept)
        other.end()
        one.expect_outcome(lost, FAILED, "a coroutine that was terminated")
        third.expect_outcome(ended, SUCCESS, "a coroutine on its caller's loop")
        for probe in kept:
            other.expect_outcome(probe, SUCCESS, "a coroutine of another executor on the loop")

    _run(on_a_loop())


@must(needs=_ASYNC, after=(*_IS_ASYNC, _LEFT_INTACT))
def a_result_wakes_its_loop(trial: Trial) -> None:
    """Who awaits the asyncio future of a task, on an event loop that has nothing else to do, goes on when the
    task ends.

    Why: the loop sleeps until something wakes it; on a busy one nobody notices, and on a quiet one it hangs.
    Likely causes: the result is set from another thread, without ``call_soon_threadsafe()``; the future is
    that of another loop.
    Origin: the documentation of asyncio.Future (it is not thread-safe).
    """

    async def on_a_loop() -> None:
        subject = trial.started(parallelism=2)
        late = 0
        for _ in range(_TRIES):
            probe = trial.probe("nap=0.02")
            subject.submit_coroutine(probe)
            future = subject.driver.future(probe.key)
            if future is None:
                raise NotApplicable("it returns no future of asyncio")
            began = monotonic()
            await asyncio.wait({future}, timeout=trial.budgets.arrival_s)
            late += monotonic() - began >= trial.budgets.arrival_s
            await _await_terminal(subject, [probe])
        subject.end()
        expect(
            late < 2,  # one may be the machine's
            awaited="the caller to go on when its task has ended",
            seen=f"{late} of {_TRIES} times it went on with its loop's next timer, after "
            f"{trial.budgets.arrival_s:.0f} s",
        )

    _run(on_a_loop())


def _run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run the caller's loop; what the executor does to it is the executor's fault."""
    try:
        return asyncio.run(main)
    except (asyncio.CancelledError, RuntimeError) as error:
        raise Broken(
            awaited="the caller's event loop to go on",
            seen=f"it ended with {type(error).__name__}: {error}",
        ) from error


async def _on_loop(
    subject: Subject, condition: Callable[[], object], awaited: str, probes: Sequence[Probe]
) -> None:
    if not await subject.trial.comes_true_on_loop(condition, subject.pump):
        raise Stalled(awaited=f"{awaited}, while the caller's loop runs", seen=subject.story(probes))


async def _await_terminal(subject: Subject, probes: Sequence[Probe]) -> None:
    def all_ended() -> bool:
        return all(map(subject.outcome, probes))

    await _on_loop(subject, all_ended, f"a terminal event of {len(probes)} tasks", probes)


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
    """How many will go off, where the loop lets that be seen."""
    return sum(not timer.cancelled() for timer in getattr(loop, "_scheduled", ()))


def _settings_of(loop: asyncio.AbstractEventLoop) -> tuple[object, ...]:
    return loop.get_exception_handler(), loop.get_task_factory(), loop.get_debug()


# -- measures ------------------------------------------------------------------------------------------------


def _waiting(trial: Trial, count: int, spare: int = 0) -> tuple[Subject, Gate, list[Probe]]:
    """So many coroutines at a gate, all of them started."""
    subject = trial.started(count + spare)
    gate = trial.gate()
    probes = trial.probes(count, gate.step)
    _submit_and_await(subject, probes)
    return subject, gate, probes


def _submit_and_await(subject: Subject, probes: Sequence[Probe]) -> None:
    subject.submit_coroutine(*probes)
    subject.until(
        lambda: all(probe.started for probe in probes),
        awaited=f"{len(probes)} coroutines to wait at once",
        seen=lambda: f"{sum(probe.started for probe in probes)} do",
        budget_s=3 * subject.trial.budgets.arrival_s,
    )


async def _gather(probes: Sequence[Probe]) -> None:
    await asyncio.gather(*(probe.work.coroutine() for probe in probes if probe.work.coroutine))


def _span_s(probes: Sequence[Probe]) -> float:
    """From the first start to the last end, in seconds."""
    runs = [probe.runs[0] for probe in probes]
    return (max(run.finished_ns or 0 for run in runs) - min(run.started_ns for run in runs)) / 1e9


def _lag_s(trial: Trial, subject: Subject) -> float:
    """The median of how late a coroutine's naps end, in seconds."""
    canary = trial.probe("lag=60")
    subject.submit_coroutine(canary)
    subject.await_terminal(canary)
    subject.expect_outcome(canary, SUCCESS, "a coroutine that takes naps")
    expect(
        len(canary.runs) == 1, awaited="one run of a coroutine that takes naps", seen=subject.story([canary])
    )
    return statistics.median(map(int, canary.runs[0].notes[0].split())) / 1e6
