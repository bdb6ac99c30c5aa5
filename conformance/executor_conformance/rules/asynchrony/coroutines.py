"""How a single coroutine runs and fails, and how it is kept apart from the others."""

from __future__ import annotations

import functools

from executor_conformance.contract import FAILED, SUCCESS
from executor_conformance.harness.trial import Trial
from executor_conformance.probes.coroutine import context
from executor_conformance.requirements import Capability
from executor_conformance.rules import must
from executor_conformance.rules.asynchrony.async_callables import async_callables
from executor_conformance.verdicts import expect

_BASICS = ("interface.command-kinds-are-accurate", "asynchrony.coroutine-functions-run-to-completion")


@must(
    needs=(Capability.COROUTINE,),
    after=("interface.command-kinds-are-accurate", "states.no-terminal-event-before-the-task-ends"),
)
def coroutine_functions_run_to_completion(trial: Trial) -> None:
    """A coroutine function runs to its last instruction, exactly once, and only then is ``success`` reported.

    Why: a coroutine yields many times before it ends, and each time looks like the end.
    Likely causes: the event is written when the asyncio task is created; the first step is taken for the
    whole coroutine; an object with an asynchronous ``__call__`` is called and never awaited.
    Origin: apache/airflow pull requests 5788 and 6984 (the AsyncExecutor proposal: one interface for both).
    """
    subject = trial.started(slots=1)
    gate = trial.gate()
    held = trial.probe("yield=3", gate.step, "yield=3")
    subject.submit_coroutine(held)
    subject.await_started(held)
    subject.quiet()
    expect(
        subject.outcome(held) is None,
        expected="no terminal event for a coroutine that is still waiting",
        actual=repr(subject.outcome(held)),
    )
    gate.open()
    subject.await_terminal(held)
    subject.expect_outcome(held, SUCCESS, "a coroutine function")
    for what, probe, command in async_callables(trial):
        if subject.rejection(functools.partial(subject.submit_raw, probe.key, command)) is None:
            subject.await_terminal(probe)
            ended = "at least one" if probe.finished else "none"
            expect(
                subject.outcome(probe) != SUCCESS or (probe.finished and len(probe.runs) == 1),
                expected=f"exactly one run, to its end, of {what} that is reported as a success",
                actual=f"{len(probe.runs)} runs, {ended} of them to its end",
            )


_FAILURES = (
    ("raise=on purpose", "raises"),
    ("timeout", "times out"),
    ("cancel", "cancels itself"),
    ("exit=3", "raises SystemExit"),
    ("recurse", "recurses endlessly"),
)


@must(needs=(Capability.COROUTINE,), after=(*_BASICS, "states.an-exception-is-a-failure"))
def a_failed_coroutine_affects_no_other(trial: Trial) -> None:
    """A coroutine that raises, times out, cancels itself or exits is reported ``failed``, and the others keep
    running.

    Why: all coroutines share a loop.  Some of these exceptions propagate through the asyncio task into the
    loop, or look like a cancellation from outside.
    Likely causes: only ``Exception`` is caught, which excludes ``CancelledError`` and ``SystemExit``; tasks
    are gathered, so the first failure cancels the rest; a cancelled task never releases its slot.
    Origin: apache/airflow#64476 (an exception of the payload kills the scheduler); asyncio's Task, which
    raises SystemExit out of the loop.
    """
    subject = trial.started(parallelism=3)
    for step, fails in _FAILURES:
        gate = trial.gate()
        concurrent = trial.probe(gate.step)
        bad = trial.probe("yield=1", step)
        subject.submit_coroutine(concurrent)
        subject.await_started(concurrent)
        subject.submit_coroutine(bad)
        subject.await_terminal(bad)
        subject.expect_outcome(bad, FAILED, f"a coroutine that {fails}")
        gate.open()
        after = trial.probe()
        subject.submit_coroutine(after)
        subject.await_terminal(concurrent, after)
        for good in (concurrent, after):
            subject.expect_outcome(good, SUCCESS, f"a coroutine alongside or after one that {fails}")
    gate = trial.gate()
    full = trial.probes(3, gate.step)
    subject.submit_coroutine(*full)
    subject.require(
        lambda: all(probe.started for probe in full),
        expected="3 coroutines to run at once after others have failed, with parallelism=3",
        actual=lambda: f"{sum(probe.started for probe in full)} started",
    )
    gate.open()
    subject.await_terminal(*full)


@must(needs=(Capability.COROUTINE,), after=_BASICS)
def a_waiting_coroutine_is_not_garbage_collected(trial: Trial) -> None:
    """A waiting coroutine is never garbage collected: the executor keeps a reference to it.

    Why: a loop holds only weak references to its tasks.  A task that waits for something to which nothing
    else refers, such as an answer from a cache, is garbage unless the executor refers to it.  Such tasks
    disappear at random, under load.
    Likely causes: the result of ``asyncio.create_task()`` is discarded; tasks are kept in a ``WeakSet``.
    Origin: the documentation of asyncio.create_task (a task may disappear in mid-execution);
    python/cpython#91887.
    """
    subject = trial.started(parallelism=4)
    probes = trial.probes(4, "yield=1", "alone", "yield=1")
    subject.submit_coroutine(*probes)
    subject.await_terminal(*probes)
    for probe in probes:
        subject.expect_outcome(probe, SUCCESS, "a coroutine that waited during a garbage collection")


@must(
    needs=(Capability.COROUTINE, Capability.ASYNC),
    after=(*_BASICS, "asynchrony.is-async-is-accurate"),
)
def context_variables_do_not_leak(trial: Trial) -> None:
    """A context variable that one coroutine sets keeps its value in all other coroutines and in the host.

    Why: requests, tenants and loggers are kept in context variables, because coroutines share everything
    else.
    Likely causes: coroutines are awaited one after the other in one task; they all run in one context.
    Origin: PEP 567, which gives each task a copy of its context.
    """
    subject = trial.started(parallelism=2, slots=1)
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
        expected="2 coroutines to read 'clean' from the context variable, then the value that they set, and "
        "a third one to read 'clean'",
        actual=f"they read {seen}",
    )
    expect(
        context() == "clean",
        expected="the context variable to be 'clean' in the scheduler process",
        actual=repr(context()),
    )
