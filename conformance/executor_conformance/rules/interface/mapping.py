"""``map()`` of ``concurrent.futures``: its order, chunks, errors, timeout and concurrency."""

from __future__ import annotations

import concurrent.futures
import math
import threading
from collections.abc import Callable, Iterable
from typing import Any

from executor_conformance.harness.futures import await_done, columns_of, expect_result, submit_probe
from executor_conformance.harness.trial import Trial
from executor_conformance.probes import task as probe_module
from executor_conformance.probes.calls import first, same
from executor_conformance.requirements import Capability
from executor_conformance.rules import must, should
from executor_conformance.verdicts import NotApplicable, expect

#: As a timeout in seconds, for something that cannot happen before the rule opens a gate.
_SHORT_S = 0.02
#: None of these divides the 7 calls; the last one is larger than 7.
_CHUNK_SIZES = (3, 6, 10)
#: What one of three calls raises -> the function, and the arguments of the three.
_CALLS_THAT_RAISE: dict[str, tuple[Callable[[Any], object], list[Any]]] = {
    "ValueError": (math.sqrt, [1.0, -1.0, 1.0]),
    "StopIteration": (first, [[1.0], [], [1.0]]),
}
#: So many calls that the default chunks of other executors have one call each.
_MANY_CALLS = 8


@must(needs=(Capability.CALLS,), after=("interface.submit-passes-args-and-kwargs",))
def map_returns_results_in_order(trial: Trial) -> None:
    """``map()`` returns its results in the order of its arguments, whichever call ends first.  With several
    iterables, it stops at the end of the shortest.

    Why: callers match results to arguments by position; in another order the matches are wrong.
    Likely causes: results are returned in the order in which the calls end; chunks of calls are assembled in
    the order in which they end; a shorter iterable is padded.
    Origin: concurrent.futures.Executor.map.
    """
    executor = trial.started(parallelism=2, slots=1).driver.executor
    pairs, error = _collect(trial, lambda: executor.map(probe_module.echo, "ab", (1, 2, 3)))
    expect(
        pairs == [(("a", 1), {}), (("b", 2), {})],
        expected="the results of map() for 2 and 3 arguments to be those of 2 calls",
        actual=f"{pairs!r:.200}" + (f", and then it raised {error!r:.100}" if error else ""),
    )
    probes = [trial.probe("nap=0.15" if number % 3 == 0 else "nap=0") for number in range(6)]
    results = trial.call(
        "map()",
        lambda: list(executor.map(probe_module.run, *columns_of(probes))),
        allowance_s=trial.budgets.arrival_s,
    )
    expected = [probe.name for probe in probes]
    expect(results == expected, expected=f"the results {expected}", actual=repr(results)[:200])


@must(needs=(Capability.CALLS,), after=("interface.map-returns-results-in-order",))
def map_in_chunks_makes_every_call(trial: Trial) -> None:
    """``map(chunksize=...)`` returns a result for each of its arguments, in their order, even if the last
    chunk is not full.

    Why: the chunk size is about speed, and nobody notices a result that is missing at the end.
    Likely causes: the number of chunks is rounded down; a chunk that is not full is never sent.
    Origin: concurrent.futures.Executor.map.
    """
    executor = trial.started(parallelism=2, slots=1).driver.executor
    arguments = list("abcdefg")
    for size in _CHUNK_SIZES:
        results, error = _collect(trial, lambda: executor.map(same, arguments, chunksize=size))  # noqa: B023
        if isinstance(error, TypeError) and "chunksize" in str(error):
            raise NotApplicable(f"map() has no argument chunksize: {error}")
        expect(
            error is None and results == arguments,
            expected=f"the results {arguments} of map(chunksize={size})",
            actual=f"{results!r:.200}" if error is None else f"it raised {error!r:.200}",
        )


def _collect(
    trial: Trial, call_map: Callable[[], Iterable[object]]
) -> tuple[list[object], BaseException | None]:
    """The results of a ``map()``, and what it raised after them."""
    results: list[object] = []

    def collect() -> BaseException | None:
        try:
            results.extend(call_map())
        except BaseException as error:
            return error
        return None

    error = trial.call("map()", collect, allowance_s=trial.budgets.arrival_s)
    return results, error


@must(needs=(Capability.CALLS,), after=("interface.map-returns-results-in-order",))
def map_raises_what_a_call_raises(trial: Trial) -> None:
    """If a call of ``map()`` raises, so does the iterator, whatever the exception is; it never leaves out a
    result, and never ends early without an error.

    Why: callers take the end of the iterator for the end of the work.
    Likely causes: results that are exceptions are skipped; ``__next__()`` of an iterator lets the
    StopIteration of a call through, which ends every loop over it.
    Origin: concurrent.futures.Executor.map; dask/dask#3558 (StopIteration of a call ended the loop).
    """
    executor = trial.started(parallelism=2, slots=1).driver.executor
    for what, (function, arguments) in _CALLS_THAT_RAISE.items():
        results, error = _collect(trial, lambda: executor.map(function, arguments))  # noqa: B023
        expect(
            error is not None,
            expected=f"map() to raise, as the second of its 3 calls raised {what}",
            actual="it ended without an error",
        )
        expect(
            results in ([], [1.0]),
            expected="map() to return no result but that of the call before the one that raised",
            actual=f"{results!r:.200}, and then it raised {error!r:.100}",
        )


@should(
    needs=(Capability.CALLS,),
    after=(
        "interface.map-returns-results-in-order",
        "interface.submit-works-from-several-threads",
        "parallelism.n-tasks-run-at-once",
    ),
)
def map_runs_calls_at_once(trial: Trial) -> None:
    """Calls of one ``map()`` run at the same time, as many as there are slots.

    Why: nobody uses ``map()`` of an executor for anything else.
    Likely causes: the iterator submits a call only when the result of the one before was taken; all calls are
    put into one chunk by default.
    Origin: concurrent.futures.Executor.map (the iterables are collected immediately, and the calls may be
    made concurrently).
    """
    subject = trial.started(parallelism=2, slots=2)
    executor = subject.driver.executor
    gate = trial.gate()
    probes = trial.probes(_MANY_CALLS, gate.step)
    columns = columns_of(probes)
    results: list[object] = []

    def collect() -> None:
        try:
            results.extend(executor.map(probe_module.run, *columns))
        except BaseException as error:
            results.append(error)

    # In a thread of its own: the first result may not be there before the gate is open.
    caller = threading.Thread(target=collect, daemon=True)
    caller.start()
    subject.require(
        lambda: sum(probe.started for probe in probes) >= 2 or results,
        expected=f"2 of {_MANY_CALLS} calls of one map() to run at the same time",
        actual=lambda: f"{sum(probe.started for probe in probes)} of them started",
    )
    gate.open()
    trial.call("map()", caller.join, allowance_s=trial.budgets.arrival_s)
    expect(
        results == [probe.name for probe in probes],
        expected=f"the results of {_MANY_CALLS} calls of one map()",
        actual=f"{results!r:.200}",
    )


@must(
    needs=(Capability.CALLS,),
    after=(
        "interface.map-returns-results-in-order",
        "interface.a-result-timeout-leaves-the-call-alone",
        "faults.cancelling-a-running-call-harms-no-other",  # the iterator cancels its calls after a timeout
    ),
)
def map_raises_timeout_error(trial: Trial) -> None:
    """The iterator that ``map(timeout=...)`` returns raises TimeoutError if a result is not there in time,
    and the executor keeps working.

    Why: without the timeout one call that hangs blocks the caller forever.
    Likely causes: an executor with a ``map()`` of its own ignores the argument or hands it to the call;
    the cancellation of the remaining calls blocks.
    Origin: concurrent.futures.Executor.map; python/cpython#95166 (the call that was waited for was not
    cancelled); dask/distributed#7751 (a missing timeout).
    """
    subject = trial.started(parallelism=2)
    gate = trial.gate()
    probes = trial.probes(3, gate.step)
    columns = columns_of(probes)

    def first_result() -> object:
        results = subject.driver.executor.map(probe_module.run, *columns, timeout=_SHORT_S)
        try:
            return f"it returned {next(iter(results))!r}"
        except BaseException as error:
            return error

    seen = trial.call(f"map(timeout={_SHORT_S})", first_result, allowance_s=trial.budgets.arrival_s)
    gate.open()
    expect(
        isinstance(seen, concurrent.futures.TimeoutError),
        expected=f"map(timeout={_SHORT_S}) to raise TimeoutError while its calls are running",
        actual=repr(seen)[:200],
    )
    later = trial.probe()
    future = submit_probe(subject, later)
    what = "a call after a timeout of map()"
    await_done(subject, {what: future})
    expect_result(subject, future, later.name, what)
