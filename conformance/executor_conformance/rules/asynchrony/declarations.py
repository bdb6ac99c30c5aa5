"""Declared support for coroutine functions, and executors without it."""

from __future__ import annotations

import asyncio
import functools

from executor_conformance.contract import SUCCESS
from executor_conformance.harness.event_loops import running_loops
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.rules import must, should
from executor_conformance.rules.asynchrony.async_callables import async_callables
from executor_conformance.rules.asynchrony.running import run_on_a_loop
from executor_conformance.verdicts import NotApplicable, expect

_KINDS = ("interface.command-kinds-are-accurate",)
#: Event loops that the tasks of an async executor may be spread over.
_MOST_LOOPS = 4


@must(after=("interface.is-async-is-a-bool", *_KINDS))
def is_async_is_accurate(trial: Trial) -> None:
    """An executor whose ``is_async`` is true runs coroutine functions concurrently on an event loop. If it
    accepts no coroutine functions, it still runs an event loop in the host while it has tasks.

    Why: a scheduler hands thousands of tasks to an async executor, and one task per process to any other.
    Likely causes: the attribute was inherited or copied; each coroutine function gets its own loop.
    Origin: apache/airflow pull request 6984 (AsyncExecutor: properties that distinguish executors).
    """
    if trial.build(slots=1).optional("is_async") is not True:
        raise NotApplicable("its is_async is not True")
    before = running_loops()
    subject = trial.started(2 * _MOST_LOOPS)
    gate = trial.gate()
    probes = trial.probes(2 * _MOST_LOOPS, "loop", gate.step)
    if subject.can(Capability.COROUTINE):
        subject.submit_coroutine(*probes)
        subject.require(
            lambda: all(probe.runs and probe.runs[0].notes for probe in probes),
            expected=f"{len(probes)} coroutine functions to start",
            actual=lambda: subject.describe(probes),
        )
        loops = {(probe.runs[0].pid, *probe.runs[0].notes) for probe in probes}
        gate.open()
        expect(
            len(loops) <= _MOST_LOOPS,
            expected=f"{len(probes)} coroutine functions to share at most {_MOST_LOOPS} event loops",
            actual=f"they run on {len(loops)} event loops",
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
        expected="coroutine functions to be accepted, or an event loop in the scheduler process while a task "
        "runs",
        actual="it accepts none, and there is no such event loop",
    )


@should(after=("interface.is-async-is-a-bool", *_KINDS), needs=(Capability.KEYS,))
def async_support_is_declared(trial: Trial) -> None:
    """An executor that runs coroutine functions has ``"coroutine"`` in its ``command_kinds``.  If it runs
    them concurrently on one event loop, its ``is_async`` is true.

    Why: schedulers do not use what is not declared.
    Likely causes: the executor was made async without updating its attributes; it has no such attributes.
    Origin: apache/airflow pull request 6984 (AsyncExecutor: properties that distinguish executors).
    """
    subject = trial.started(parallelism=2, slots=1)
    _skip_family_without_coroutines(trial)
    if subject.can(Capability.ASYNC, Capability.COROUTINE):
        raise NotApplicable("it declares both")
    probes = trial.probes(2, "loop", "nap=0.05")
    for probe in probes:
        if subject.rejection(lambda: subject.submit_coroutine(probe)) is not None:  # noqa: B023
            raise NotApplicable("it rejects coroutine functions")
    trial.wait_for(lambda: all(map(subject.outcome, probes)), pump=subject.pump)
    if not all(probe.finished for probe in probes):
        raise NotApplicable("it does not run coroutine functions")
    expect(
        subject.can(Capability.COROUTINE),
        expected="'coroutine' in command_kinds, because the executor runs coroutine functions",
        actual="it is missing",
    )
    runs = [probe.runs[0] for probe in probes]
    shared = len({(run.pid, *run.notes) for run in runs}) == 1
    at_once = runs[1].started_ns < (runs[0].finished_ns or 0) and runs[0].started_ns < (
        runs[1].finished_ns or 0
    )
    expect(
        not (shared and at_once),
        expected="is_async to be True, because two coroutine functions ran at once on the same event loop",
        actual="it is not",
    )


@must(after=_KINDS)
def an_unawaited_coroutine_never_succeeds(trial: Trial) -> None:
    """An executor that does not accept coroutine functions reports none as ``success``, and puts none on its
    caller's event loop.

    Why: a coroutine function that is called but not awaited has done nothing.  One that is put on the
    caller's loop runs whenever that loop runs, or never.
    Likely causes: the executor calls anything callable; its check covers functions only, not objects with an
    asynchronous ``__call__``; it advances the coroutine by one step and drops it; it passes the coroutine to
    ``asyncio.ensure_future``.
    Origin: apache/airflow pull requests 5788 and 6984 (the AsyncExecutor proposal: one interface for both).
    """
    _skip_family_without_coroutines(trial)
    _skip_executor_with_coroutines(trial)

    async def on_a_loop() -> None:
        before = asyncio.all_tasks()
        subject = trial.started(slots=1)
        for what, probe, command in async_callables(trial):
            submission = functools.partial(subject.submit_raw, probe.key, command)
            if subject.rejection(submission) is None:
                await trial.wait_for_on_loop(lambda: subject.outcome(probe), subject.pump)  # noqa: B023
            added = asyncio.all_tasks() - before
            expect(
                not added,
                expected=f"{what} not to be put on the caller's event loop",
                actual=f"the loop has {len(added)} more tasks",
            )
            expect(
                subject.outcome(probe) != SUCCESS or probe.finished,
                expected=f"{what} to be rejected or to fail",
                actual="it was reported as a success without having run to its end",
            )

    run_on_a_loop(on_a_loop())


@should(after=("asynchrony.an-unawaited-coroutine-never-succeeds",))
def an_unsupported_coroutine_is_rejected_at_submit(trial: Trial) -> None:
    """An executor that does not accept coroutine functions rejects one with an error when it is submitted.

    Why: the mistake is in the line that submits; a task that fails much later points somewhere else.
    Likely causes: only the worker inspects the command; the executor only checks that it is callable.
    Origin: apache/airflow pull requests 5788 and 6984 (the AsyncExecutor proposal: one interface for both).
    """
    _skip_family_without_coroutines(trial)
    _skip_executor_with_coroutines(trial)
    subject = trial.started(slots=1)
    probe = trial.probe()
    rejection = subject.rejection(lambda: subject.submit_coroutine(probe))
    expect(
        rejection is not None or subject.succeeds(probe),
        expected="a coroutine function to be rejected with an error",
        actual="it was accepted",
    )


def _skip_family_without_coroutines(trial: Trial) -> None:
    reason = trial.target.lacks.get(Capability.COROUTINE)
    if reason is not None:
        raise NotApplicable(reason)


def _skip_executor_with_coroutines(trial: Trial) -> None:
    if trial.build(slots=1).can(Capability.COROUTINE):
        raise NotApplicable("it accepts coroutine functions")
