"""The futures that ``submit()`` returns: callbacks, timeouts, and waiting for several of them."""

from __future__ import annotations

import concurrent.futures
import os
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

from executor_conformance.harness.context import EVENTS
from executor_conformance.harness.futures import (
    AnyFuture,
    await_done,
    expect_result,
    raise_on_purpose,
    submit_probe,
)
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.probes import steps
from executor_conformance.requirements import Capability
from executor_conformance.rules import must, should
from executor_conformance.verdicts import expect

#: As a timeout in seconds, for something that cannot happen before the rule opens a gate.
_SHORT_S = 0.02
_CALLBACKS = 3


@must(needs=(Capability.CALLS,), after=("interface.submit-passes-args-and-kwargs",))
def done_callbacks_are_called_once(trial: Trial) -> None:
    """Each done callback is called exactly once, with its future, in the process that added it and in the
    order in which they were added, whether the call returns, raises or is cancelled.

    Why: callers start the next step in a callback; one that is not called stops the work, and one that is
    called twice does it twice.
    Likely causes: callbacks are called for results only; the cancellation and the result both call them; the
    list of callbacks is copied to the worker with the call.
    Origin: concurrent.futures.Future.add_done_callback; ros2/rclpy#460 (callbacks that were dropped);
    agronholm/pythonfutures#86 (called again for each result).
    """
    subject = trial.started(parallelism=2)
    gate = trial.gate()
    held = [trial.probe(gate.step), trial.probe(gate.step, "raise=on purpose")]
    futures = {
        f"a call that {what}": submit_probe(subject, probe)
        for what, probe in zip(("returned", "raised"), held, strict=True)
    }
    subject.await_started(*held)
    queued = [submit_probe(subject, probe) for probe in trial.probes(6)]
    calls: dict[str, list[tuple[int, object, int]]] = {}
    for what, future in (*futures.items(), *((f"queued call {n}", each) for n, each in enumerate(queued))):
        calls[what] = []
        for number in range(_CALLBACKS):
            _add_callback(subject, future, partial(_note_call, calls[what], number))
    for number, future in enumerate(queued):
        what = f"a call that was cancelled ({number})"
        if trial.call("cancel()", future.cancel):
            calls[what] = calls.pop(f"queued call {number}")
            futures[what] = future
        else:
            futures[f"queued call {number}"] = future
    gate.open()
    await_done(subject, futures)
    trial.wait_for(
        lambda: all(len(seen) >= _CALLBACKS for seen in calls.values()), pump=subject.pump, patient=True
    )
    subject.quiet()
    for what, future in futures.items():
        seen = calls[what]
        numbers = [number for number, _, _ in seen]
        expect(
            numbers == list(range(_CALLBACKS)),
            expected=f"{_CALLBACKS} callbacks of {what} to be called once each, in order",
            actual=f"callbacks were called in the order {numbers}" if numbers else "none was called",
        )
        strange = [argument for _, argument, _ in seen if argument is not future]
        expect(
            not strange,
            expected=f"callbacks of {what} to get its future as their argument",
            actual=repr(strange[:1])[:200],
        )
        pids = {pid for _, _, pid in seen}
        expect(
            pids == {trial.host.pid},
            expected="callbacks to be called in the process that added them",
            actual=f"called in process {sorted(pids)}; the scheduler process is {trial.host.pid}",
        )


def _note_call(seen: list[tuple[int, object, int]], number: int, argument: object) -> None:
    seen.append((number, argument, os.getpid()))


def _add_callback(subject: Subject, future: AnyFuture, callback: Callable[[Any], object]) -> None:
    subject.trial.call("add_done_callback()", lambda: future.add_done_callback(callback))


@must(needs=(Capability.CALLS,), after=("interface.done-callbacks-are-called-once",))
def a_callback_added_late_is_called(trial: Trial) -> None:
    """A callback that is added to a future that is done is called at once, and an ``Exception`` that it
    raises does not leave ``add_done_callback()``.

    Why: a fast call is often done before its caller can add the callback.
    Likely causes: callbacks are called only when the result arrives; the late call has no ``try``.
    Origin: concurrent.futures.Future.add_done_callback; python/cpython#77291 (the exception reaches the
    caller); personalrobotics/prpy pull request 365 (late callbacks were dropped).
    """
    subject = trial.started(slots=1)
    futures = {
        "a call that returned": submit_probe(subject, trial.probe()),
        "a call that raised": submit_probe(subject, trial.probe("raise=on purpose")),
    }
    await_done(subject, futures)
    for what, future in futures.items():
        seen: list[object] = []
        _add_callback(subject, future, seen.append)
        subject.require(
            lambda: seen,  # noqa: B023
            expected=f"a callback that was added after {what} to be called",
            actual=lambda: "it was not called",
        )
        _add_callback(subject, future, raise_on_purpose)
        subject.quiet()
        expect(
            len(seen) == 1 and seen[0] is future,
            expected=f"a callback that was added after {what} to be called once, with the future",
            actual=f"{len(seen)} calls: {seen[:2]!r:.160}",
        )


@must(needs=(Capability.CALLS,), after=("interface.submit-passes-args-and-kwargs",))
def wait_and_as_completed_work(trial: Trial) -> None:
    """``concurrent.futures.wait()`` and ``as_completed()`` work on the futures that ``submit()`` returns.

    Why: code that is written for any executor waits with these functions.
    Likely causes: the futures only resemble those of concurrent.futures; a result is set without notifying
    the threads that wait for it; a future learns that it is done only when it is asked for its result.
    Origin: concurrent.futures.wait and as_completed; dask/distributed#548 (AttributeError: _condition);
    cooperative-computing-lab/cctools#3835; finos/opengris-scaler#24 and pull request 981.
    """
    subject = trial.started(parallelism=2)
    limit_s = trial.budgets.arrival_s + trial.patience.second_s(EVENTS)
    gate = trial.gate()
    held, quick = trial.probe(gate.step), trial.probe("nap=0.05")
    first, second = submit_probe(subject, held), submit_probe(subject, quick)
    done, not_done = trial.call(
        "concurrent.futures.wait(FIRST_COMPLETED)",
        lambda: concurrent.futures.wait([first, second], limit_s, concurrent.futures.FIRST_COMPLETED),
        allowance_s=2 * limit_s,
    )
    expect(
        done == {second} and not_done == {first},
        expected="wait(FIRST_COMPLETED) to return when one of two calls has ended",
        actual=f"done within {limit_s:.1f} s: {done or 'none'}, not done: {not_done or 'none'}"[:300],
    )
    futures = [first, *(submit_probe(subject, trial.probe("nap=0.05")) for _ in range(3))]
    futures.append(submit_probe(subject, trial.probe("raise=on purpose")))
    gate.open()
    done, not_done = trial.call(
        "concurrent.futures.wait()",
        lambda: concurrent.futures.wait(futures, limit_s),
        allowance_s=2 * limit_s,
    )
    expect(
        done == set(futures),
        expected=f"wait() to return {len(futures)} futures within {limit_s:.1f} s",
        actual=f"{len(not_done)} are not done: {list(not_done)[:2]!r:.200}",
    )
    futures = [submit_probe(subject, trial.probe("nap=0.05")) for _ in range(4)]
    completed: list[AnyFuture] = []

    def collect() -> None:
        try:
            completed.extend(concurrent.futures.as_completed(futures, limit_s))
        except concurrent.futures.TimeoutError:
            pass  # what is missing is reported below

    trial.call("concurrent.futures.as_completed()", collect, allowance_s=2 * limit_s)
    expect(
        len(completed) == len(futures) and set(completed) == set(futures),
        expected=f"as_completed() to yield each of {len(futures)} futures once within {limit_s:.1f} s",
        actual=f"it yielded {len(completed)}",
    )


@must(needs=(Capability.CALLS,), after=("interface.submit-passes-args-and-kwargs",))
def a_result_timeout_leaves_the_call_alone(trial: Trial) -> None:
    """``result()`` and ``exception()`` raise TimeoutError when their timeout has passed.  The call goes on,
    and its result arrives later.

    Why: callers wait with a timeout so that they can do something else meanwhile, and come back.
    Likely causes: the timeout is not accepted, or is ignored; the exception has another type; the call is
    cancelled.
    Origin: concurrent.futures.Future.result; joblib/joblib#337 (Dask's result() had no timeout);
    rohanpm/more-executors pull request 53.
    """
    subject = trial.started(slots=1)
    gate = trial.gate()
    probe = trial.probe(gate.step)
    future = submit_probe(subject, probe)
    subject.await_started(probe)
    for name, wait in (("result()", future.result), ("exception()", future.exception)):

        def look() -> object:
            try:
                return f"it returned {wait(timeout=_SHORT_S)!r}"  # noqa: B023
            except BaseException as error:
                return error

        seen = trial.call(name, look)
        expect(
            isinstance(seen, concurrent.futures.TimeoutError),
            expected=f"{name} of a running call to raise TimeoutError when its timeout has passed",
            actual=repr(seen)[:200],
        )
    expect(
        not trial.call("done()", future.done),
        expected="the call to be still running after a timeout of result()",
        actual=repr(future)[:200],
    )
    gate.open()
    await_done(subject, {"a call after a timeout of result()": future})
    what = "a call after a timeout of result()"
    expect_result(subject, future, probe.name, what)
    expect(len(probe.runs) == 1, expected=f"one run of {what}", actual=f"{len(probe.runs)} runs")


@should(needs=(Capability.CALLS,), after=("interface.exception-type-and-args-are-preserved",))
def an_exception_shows_where_it_was_raised(trial: Trial) -> None:
    """The traceback of ``Future.exception()``, or that of its cause, names the function that raised.

    Why: without it, the caller knows that something failed, but not where.
    Likely causes: pickling drops the traceback, and nothing is sent in its place; the exception is raised
    again in the host.
    Origin: agronholm/pythonfutures#26; noxdafox/pebble pull request 17; celery/billiard pull request 368;
    mpi4py/mpi4py#204; dask/distributed#216.
    """
    subject = trial.started(slots=1)
    future = submit_probe(subject, trial.probe("raise=on purpose"))
    await_done(subject, {"a call that raised": future})
    error = trial.call("exception()", lambda: future.exception(timeout=0))
    text = "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else repr(error)
    function = steps.ENDINGS["raise"].__name__
    expect(
        function in text,
        expected=f"the traceback of exception() to name {function}(), which raised it",
        actual=f"it ends in: {text[-200:]!r}",
    )
