"""Calls that are pending when a ``concurrent.futures`` executor is shut down."""

from __future__ import annotations

import concurrent.futures
import gc
import threading
from typing import Any

from executor_conformance.harness.futures import AnyFuture, await_done, expect_result, submit_probe
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability, Observation
from executor_conformance.rules import must, should
from executor_conformance.rules.shutdown.leftovers import expect_workers_gone
from executor_conformance.verdicts import NotApplicable, expect

_QUEUED_CALLS = 16
_CALLS_IN_WITH = 4


@should(
    needs=(Capability.CALLS,),
    after=(
        "shutdown.cancel-futures-cancels-queued-calls",
        "shutdown.shutdown-without-wait-finishes-calls",
        "interface.wait-and-as-completed-work",
    ),
)
def cancelled_futures_wake_up_waiters(trial: Trial) -> None:
    """``as_completed()`` yields the futures that ``shutdown(cancel_futures=True)`` has cancelled.

    Why: a thread that waits for all futures waits forever, although nothing is left to do.
    Likely causes: the executor cancels futures without ``set_running_or_notify_cancel()``; it drops queued
    calls and never completes their futures.
    Origin: concurrent.futures.as_completed; python/cpython#87893; python/cpython#136655;
    dask/distributed pull request 1438.
    """
    subject = trial.started(parallelism=2)
    executor = subject.driver.executor
    gate = trial.gate()
    held, quick, queued = trial.probes(2, gate.step), trial.probe(), trial.probes(_QUEUED_CALLS)
    futures = [submit_probe(subject, probe) for probe in (quick, *held, *queued)]
    yielded: list[AnyFuture] = []

    def collect() -> None:
        yielded.extend(concurrent.futures.as_completed(futures))

    subject.await_started(*held)
    waiter = threading.Thread(target=collect, daemon=True)
    waiter.start()
    trial.call(
        "shutdown(wait=False, cancel_futures=True)",
        lambda: executor.shutdown(wait=False, cancel_futures=True),
    )
    gate.open()
    await_done(subject, {f"call {number + 1}": future for number, future in enumerate(futures)})
    cancelled = sum(trial.call("cancelled()", future.cancelled, silent=True) for future in futures)
    if not cancelled:
        raise NotApplicable(f"none of {_QUEUED_CALLS} queued calls was cancelled")
    subject.require(
        lambda: not waiter.is_alive(),
        expected=f"as_completed() to yield {len(futures)} futures after shutdown(cancel_futures=True)",
        actual=lambda: f"it still waits, although each of them is done and {cancelled} are cancelled",
        # Nothing but a thread has to wake up, and a late one would be woken up by nothing.
        budget_s=trial.budgets.arrival_s / 2,
    )


@must(
    needs=(Capability.CALLS,),
    after=(
        "shutdown.end-finishes-running-tasks",
        "shutdown.end-finishes-queued-tasks",
        "lifecycle.submit-after-end-is-rejected",
    ),
)
def a_with_statement_ends_the_executor(trial: Trial) -> None:
    """``with executor:`` waits for the calls that were submitted in it, and shuts the executor down.  An
    exception that leaves it is passed on.

    Why: it is the usual way to use an executor, and after the statement has waited for the calls, nobody
    looks at their results.
    Likely causes: ``__exit__()`` calls ``shutdown(wait=False)``, or cancels queued calls even if there is no
    exception; it returns a true value; ``__enter__()`` returns ``None``.
    Origin: concurrent.futures.Executor; pyiron/executorlib#94 (calls are not finished);
    openforcefield/openff-bespokefit#101; kitzeslab/opensoundscape pull request 40.
    """
    for error in (None, ArithmeticError("on purpose")):
        subject = trial.started(parallelism=2, slots=1)
        executor = subject.driver.executor
        if not hasattr(type(executor), "__exit__"):
            raise NotApplicable("the executor is no context manager")
        futures = _submit_in_with_statement(trial, subject, error)
        done = sum(future.done() for future in futures)
        how = "an exception" if error else "its end"
        expect(
            done == len(futures),
            expected=f"a with statement that is left by {how} to wait for its {len(futures)} calls",
            actual=f"{done} of them were done",
        )
        cancelled = sum(future.cancelled() for future in futures)
        expect(
            error is not None or not cancelled,
            expected="a with statement to cancel no call, as there was no exception",
            actual=f"{cancelled} of {len(futures)} were cancelled",
        )
        late = trial.probe()
        expect(
            subject.rejection(lambda: submit_probe(subject, late)) is not None,  # noqa: B023
            expected="submit() to be rejected after a with statement",
            actual="it was accepted",
        )


def _submit_in_with_statement(trial: Trial, subject: Subject, error: Exception | None) -> list[AnyFuture]:
    """Submit calls in a with statement, and leave it by ``error``, if there is one."""
    executor = subject.driver.executor
    probes = trial.probes(_CALLS_IN_WITH, "nap=0.1")
    futures: list[AnyFuture] = []
    entered: list[Any] = []
    left_by: list[Exception | None] = [None]

    def use() -> None:
        try:
            with executor as within:
                entered.append(within)
                for probe in probes if hasattr(within, "submit") else ():
                    assert probe.work.function is not None
                    futures.append(within.submit(probe.work.function))
                if error is not None:
                    raise error
        except Exception as raised:
            left_by[0] = raised

    trial.call("with executor", use, allowance_s=trial.budgets.stop_s)
    expect(
        all(hasattr(within, "submit") for within in entered),
        expected="__enter__() to return the executor, or what submits calls to it",
        actual=f"it returned {entered!r:.200}",
    )
    expect(
        left_by[0] is error,
        expected=f"{error!r} to leave the with statement" if error else "the with statement to raise nothing",
        actual=f"{left_by[0]!r:.200}",
    )
    return futures


@should(
    needs=(Capability.CALLS, Observation.VISIBLE_WORKERS),
    after=("shutdown.end-finishes-running-tasks", "shutdown.end-leaves-no-worker"),
)
def shutdown_without_wait_finishes_calls(trial: Trial) -> None:
    """``shutdown(wait=False)`` returns at once.  All pending calls are executed afterwards, and then no
    worker is left.

    Why: the caller keeps the futures and still expects their results.
    Likely causes: workers exit at the shutdown although calls are queued; a worker that ends is not replaced
    after the shutdown; the thread that feeds the workers stops.
    Origin: concurrent.futures.Executor.shutdown; python/cpython#119592 and pull request 152978 (calls that
    are never executed); python/cpython#83285; python/cpython#132969.
    """
    subject = trial.started(parallelism=2)
    executor = subject.driver.executor
    gate = trial.gate()
    held, queued = trial.probes(2, gate.step), trial.probes(_QUEUED_CALLS)
    futures = [submit_probe(subject, probe) for probe in (*held, *queued)]
    subject.await_started(*held)
    trial.call("shutdown(wait=False)", lambda: executor.shutdown(wait=False))
    gate.open()
    for probe, future in zip((*held, *queued), futures, strict=True):
        what = f"a call that was {'running' if probe in held else 'queued'} at shutdown(wait=False)"
        await_done(subject, {what: future})
        expect_result(subject, future, probe.name, what)
    expect_workers_gone(trial, "shutdown(wait=False) and the end of all calls")


@should(needs=(Capability.CALLS,), after=("shutdown.shutdown-without-wait-finishes-calls",))
def futures_outlive_their_executor(trial: Trial) -> None:
    """Every future is done in the end if its executor is garbage-collected while calls are pending.

    Why: a function that creates an executor, submits calls and returns the futures is easily written, and
    its caller waits forever.
    Likely causes: workers, or the thread that replaces them, reach the executor by a weak reference and stop
    when it is gone; a finalizer stops the workers and forgets the queue.
    Origin: python/cpython#152967; rohanpm/more-executors pull request 117; pyiron/executorlib#213.
    """
    if trial.context.build is not None:
        raise NotApplicable("a hook builds the executor, and may keep a reference to it")
    gate = trial.gate()
    held, queued = trial.probes(2, gate.step), trial.probes(_QUEUED_CALLS)

    def submit_all() -> dict[str, AnyFuture]:
        subject = trial.started(parallelism=2)
        futures = {f"call {probe.name}": submit_probe(subject, probe) for probe in (*held, *queued)}
        subject.await_started(*held)
        trial.built.clear()
        return futures

    futures = submit_all()
    gc.collect()
    gate.open()
    for what, future in futures.items():
        trial.require(
            future.done,
            expected=f"the future of {what} to be done after its executor was garbage-collected",
            actual=lambda: f"{sum(each.done() for each in futures.values())} of {len(futures)} are done",
        )
