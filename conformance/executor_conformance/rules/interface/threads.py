"""The threads in which ``submit()`` of ``concurrent.futures`` is called."""

from __future__ import annotations

import sys
import threading
from functools import partial
from typing import Any

from executor_conformance.harness.futures import AnyFuture, await_done, expect_result, submit_probe
from executor_conformance.harness.linux import monotonic
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.probes import task as probe_module
from executor_conformance.requirements import Capability
from executor_conformance.rules import should
from executor_conformance.verdicts import expect

_THREADS = 4
#: Executors that get their first calls from several threads, and the calls of each thread.
_ROUNDS, _CALLS_AT_FIRST = 3, 5
#: The calls of each thread in the last round, if a round takes less time than this.
_CALLS_LATER, _QUICK_S = 60, 0.5
#: Between switches of threads, in seconds; so that they meet in every statement of ``submit()``.
_SWITCH_INTERVAL_S = 1e-6
#: Every tenth argument is larger than a pipe.
_LARGE_ARGUMENT = "x" * 100_000
#: Calls that are submitted one by the other.
_CHAIN = 20


@should(
    needs=(Capability.CALLS,),
    after=("interface.submit-passes-args-and-kwargs", "states.a-result-belongs-to-its-task"),
)
def submit_works_from_several_threads(trial: Trial) -> None:
    """Several threads can call ``submit()`` at the same time, even if the executor has not been used before:
    each submitted function runs, and each future gets its own result.

    Why: programs share one executor between threads, as the standard library's executors allow.
    Likely causes: calls are numbered without a lock; two threads start the workers at the same time; messages
    of two threads mix in one pipe.
    Origin: joblib/loky pull request 13 (joblib needs ``submit()`` to be thread-safe); joblib/loky#458.
    """
    took_s = 0.0
    for number in range(_ROUNDS):
        is_last = number == _ROUNDS - 1
        subject = trial.started(slots=1)
        began = monotonic()
        _submit_from_threads(subject, _CALLS_LATER if is_last and took_s < _QUICK_S else _CALLS_AT_FIRST)
        took_s = monotonic() - began
        subject.end()


def _submit_from_threads(subject: Subject, count: int) -> None:
    """Submit ``count`` calls in each thread, and check their results."""
    executor = subject.driver.executor
    futures: dict[str, tuple[AnyFuture, object]] = {}
    errors: list[BaseException] = []
    all_ready = threading.Barrier(_THREADS)

    def submit_all(thread: int) -> None:
        all_ready.wait()
        for number in range(count):
            argument = (thread, number, _LARGE_ARGUMENT if number % 10 == 9 else "")
            try:
                future = executor.submit(probe_module.echo, argument)
            except BaseException as error:
                errors.append(error)
            else:
                subject.note_future(future)
                futures[f"call {number} of thread {thread}"] = (future, ((argument,), {}))

    threads = [threading.Thread(target=submit_all, args=(number,), daemon=True) for number in range(_THREADS)]

    def run_all() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        subject.trial.call(
            f"submit() in {_THREADS} threads", run_all, allowance_s=subject.trial.budgets.arrival_s
        )
    finally:
        sys.setswitchinterval(interval)
    expect(
        not errors,
        expected=f"submit() to return in {_THREADS} threads at once",
        actual=f"it raised {len(errors)} of {_THREADS * count} times, such as {errors[:1]!r:.200}",
    )
    await_done(subject, {what: future for what, (future, _) in futures.items()})
    for what, (future, expected) in futures.items():
        expect_result(subject, future, expected, what)


@should(
    needs=(Capability.CALLS,),
    after=("interface.done-callbacks-are-called-once", "faults.a-failing-callback-harms-no-call"),
)
def a_done_callback_can_submit(trial: Trial) -> None:
    """A done callback can submit the next call to the same executor, which runs like any other.

    Why: a chain of calls, each of which needs the result of the one before, is what callbacks are for.
    Likely causes: callbacks are called while a lock is held that ``submit()`` needs; the thread that calls
    them is the one that has to start the new call, and waits for it.
    Origin: joblib/loky pull request 13 (tests for calls that a callback submits).
    """
    subject = trial.started(slots=1)
    executor = subject.driver.executor
    chain: list[AnyFuture] = []
    errors: list[BaseException] = []

    def submit_next(_: Any) -> None:
        if len(chain) == _CHAIN:
            return
        try:
            future = executor.submit(probe_module.echo, len(chain))
        except BaseException as error:
            errors.append(error)
            return
        subject.note_future(future)
        chain.append(future)
        future.add_done_callback(submit_next)

    gate = trial.gate()
    first = submit_probe(subject, trial.probe(gate.step))  # it ends only when it has its callback
    trial.call("add_done_callback()", partial(first.add_done_callback, submit_next))
    gate.open()

    def done() -> int:
        return sum(future.done() for future in chain)

    for number in range(_CHAIN):  # the time limit is for the next call, however many there are
        subject.require(
            lambda: errors or done() > number,  # noqa: B023
            expected=f"{_CHAIN} calls to run, each submitted by a done callback of the one before",
            actual=lambda: f"{len(chain)} were submitted, and {done()} are done",
        )
    expect(
        not errors,
        expected="submit() to return in a done callback",
        actual=f"it raised {errors[:1]!r:.200}",
    )
    for number, future in enumerate(chain):
        expect_result(subject, future, ((number,), {}), f"call {number} of a chain")
    subject.end()
