"""Calls that are pending when a ``concurrent.futures`` executor is shut down."""

from __future__ import annotations

import concurrent.futures
import gc
import threading

from executor_conformance.harness.futures import AnyFuture, await_done, expect_result, submit_probe
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability, Observation
from executor_conformance.rules import should
from executor_conformance.rules.shutdown.leftovers import expect_workers_gone
from executor_conformance.verdicts import NotApplicable

_QUEUED_CALLS = 16


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
        expect_result(subject, probe, future, what)
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
