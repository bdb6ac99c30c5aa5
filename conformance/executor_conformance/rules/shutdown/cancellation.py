"""Cancelling futures of a ``concurrent.futures`` executor, one by one and at its shutdown."""

from __future__ import annotations

from executor_conformance.harness.futures import submit_probe
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.rules import must, should
from executor_conformance.verdicts import NotApplicable, expect

_QUEUED_CALLS = 16


@must(needs=(Capability.CALLS,), after=("shutdown.end-finishes-running-tasks",))
def a_cancelled_future_never_runs(trial: Trial) -> None:
    """A future whose ``cancel()`` returned true is cancelled at once, and its call never runs.

    Why: the caller acts on the answer: it does the work elsewhere, or relies on the work not being done.
    Likely causes: ``cancel()`` marks the future but leaves the call in the queue; ``cancel()`` always returns
    true.
    Origin: concurrent.futures.Future.cancel.
    """
    subject = trial.started(parallelism=2)
    gate = trial.gate()
    held, queued = trial.probes(2, gate.step), trial.probes(6)
    subject.submit(*held)
    subject.await_started(*held)
    futures = [submit_probe(subject, probe) for probe in queued]
    cancelled = [
        (probe, future)
        for probe, future in zip(queued, futures, strict=True)
        if trial.call("cancel()", future.cancel)
    ]
    if not cancelled:
        raise NotApplicable("none of 6 queued calls could be cancelled")
    for probe, future in cancelled:
        expect(
            trial.call("cancelled()", future.cancelled),
            expected=f"the future of {probe} to be cancelled, because cancel() returned true",
            actual=repr(future),
        )
    gate.open()
    subject.await_terminal(*held)
    trial.quiet()
    subject.end()
    ran = [probe for probe, _ in cancelled if probe.started]
    expect(not ran, expected=f"none of {len(cancelled)} cancelled calls to run", actual=f"{len(ran)} ran")


@should(needs=(Capability.CALLS,), after=("shutdown.a-cancelled-future-never-runs",))
def cancel_futures_cancels_queued_calls(trial: Trial) -> None:
    """``shutdown(cancel_futures=True)`` cancels queued calls and waits for running ones.

    Why: there is no other way to stop such an executor before it has run everything in its queue.
    Likely causes: the argument is accepted and ignored; futures are cancelled without waking up the threads
    that wait for them.
    Origin: concurrent.futures.Executor.shutdown, since Python 3.9 (python/cpython#83530).
    """
    subject = trial.started(parallelism=2)
    executor = subject.driver.executor
    held, queued = trial.probes(2, "nap=0.3"), trial.probes(_QUEUED_CALLS)
    futures = [
        trial.call("submit()", lambda: executor.submit(probe.work.function))  # noqa: B023 - called immediately
        for probe in (*held, *queued)
    ]
    subject.await_started(*held)
    trial.call(
        "shutdown(wait=True, cancel_futures=True)",
        lambda: executor.shutdown(wait=True, cancel_futures=True),
        allowance_s=trial.budgets.stop_s,
    )
    expect(
        all(trial.call("done()", future.done) for future in futures),
        expected="every future to be done when shutdown(wait=True, cancel_futures=True) returns",
        actual=f"{sum(not future.done() for future in futures)} of {len(futures)} are not",
    )
    expect(
        all(probe.finished for probe in held),
        expected=f"{len(held)} running calls to finish",
        actual=f"{sum(probe.finished for probe in held)} finished",
    )
    ran = [probe for probe in queued if probe.started]
    expect(
        len(ran) <= _QUEUED_CALLS // 2,  # a worker may have fetched some of them already
        expected=f"at least half of {_QUEUED_CALLS} queued calls to be cancelled",
        actual=f"{len(ran)} ran",
    )
