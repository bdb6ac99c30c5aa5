"""The interface of ``concurrent.futures``: arguments, results and exceptions of calls."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable
from typing import Any

from executor_conformance.harness.futures import (
    AnyFuture,
    await_done,
    columns_of,
    expect_result,
    result_or_error,
    submit_call,
)
from executor_conformance.harness.trial import Trial
from executor_conformance.probes import task as probe_module
from executor_conformance.requirements import Capability
from executor_conformance.rules import must, should
from executor_conformance.verdicts import expect

#: Description of a callable -> the callable, its arguments and its result.
_CALLABLES: dict[str, tuple[Callable[..., Any], tuple[object, ...], object]] = {
    "a builtin function": (abs, (-1,), 1),
    "a builtin function that has no signature": (max, (1, 2), 2),
    "a class": (int, ("3",), 3),
    "a bound method": ("a b".split, (), ["a", "b"]),
    "an object with a __call__()": (operator.itemgetter(1), ("xyz",), "y"),
}


@must(needs=(Capability.CALLS,))
def submit_passes_args_and_kwargs(trial: Trial) -> None:
    """``submit(function, ...)`` calls the function with all its positional and keyword arguments.

    Why: a call without one of its arguments is a different call, and a default value hides that.
    Likely causes: keyword arguments are not passed on; arguments are bound when the call runs, not when it is
    submitted; text is encoded as UTF-8.
    Origin: concurrent.futures.Executor.submit(fn, /, *args, **kwargs); WeblateOrg/weblate#5041 (text that
    cannot be encoded as UTF-8).
    """
    name_of_a_file = os.fsdecode(b"not UTF-8: \xff")
    _expect_arguments_to_arrive(trial, ("one", 2, [3], name_of_a_file), {"four": 4, "five": None})


@must(needs=(Capability.CALLS,), after=("interface.submit-passes-args-and-kwargs",))
def submit_accepts_every_kind_of_callable(trial: Trial) -> None:
    """``submit()`` accepts every callable, not only functions: builtins, classes, bound methods and objects
    with a ``__call__()``.

    Why: all of them are callables, and in other executors they work.
    Likely causes: ``submit()`` inspects the signature, which many builtins do not have; it uses an attribute
    that only functions have, such as ``__name__`` or ``__code__``.
    Origin: concurrent.futures.Executor.submit(fn, /, *args, **kwargs); executorlib 1.11.0 rejects
    ``time.sleep``; natcap/taskgraph#83 (``__name__``).
    """
    subject = trial.started(parallelism=2, slots=1)
    futures: dict[str, AnyFuture] = {}
    for what, (function, arguments, _) in _CALLABLES.items():
        rejection = subject.rejection(
            lambda: futures.update({what: submit_call(subject, function, *arguments)})  # noqa: B023
        )
        expect(
            rejection is None,
            expected=f"submit() to accept {what} ({function!r:.60})",
            actual=f"it raised {rejection!r:.200}",
        )
    await_done(subject, futures)
    for what, (_, _, result) in _CALLABLES.items():
        expect_result(subject, futures[what], result, what)


@should(needs=(Capability.CALLS,), after=("interface.submit-passes-args-and-kwargs",))
def submit_reserves_no_keyword_arguments(trial: Trial) -> None:
    """``submit()`` passes every keyword argument to the call and keeps none for itself.

    Why: a function that has a parameter of that name silently gets its default value.
    Likely causes: options for the executor are keyword arguments of ``submit()``, where those of the call
    belong; the first parameter is not positional-only, so no keyword argument can have its name.
    Origin: concurrent.futures.Executor.submit(fn, /, *args, **kwargs); Dask's ClientExecutor takes ``key``
    and ``priority``.
    """
    names = ("fn", "key", "priority", "queue", "timeout", "retries", "resources", "pure", "workers")
    _expect_arguments_to_arrive(trial, (), {name: name for name in names})


def _expect_arguments_to_arrive(
    trial: Trial, arguments: tuple[object, ...], keywords: dict[str, Any]
) -> None:
    subject = trial.started(slots=1)
    future = submit_call(subject, probe_module.echo, *arguments, **keywords)
    await_done(subject, {"a call": future})
    result = result_or_error(subject, future)
    expect(
        result == (arguments, keywords),
        expected=f"the call to receive the args and kwargs {(arguments, keywords)}",
        actual=repr(result)[:300],
    )


@must(needs=(Capability.CALLS,), after=("interface.submit-passes-args-and-kwargs",))
def map_returns_results_in_order(trial: Trial) -> None:
    """``map()`` returns its results in the order of its arguments, whichever call ends first.

    Why: callers match results to arguments by position; in another order the matches are wrong.
    Likely causes: results are returned in the order in which the calls end; chunks of calls are assembled in
    the order in which they end.
    Origin: concurrent.futures.Executor.map.
    """
    executor = trial.started(parallelism=2, slots=1).driver.executor
    probes = [trial.probe("nap=0.15" if number % 3 == 0 else "nap=0") for number in range(6)]
    results = trial.call(
        "map()",
        lambda: list(executor.map(probe_module.run, *columns_of(probes))),
        allowance_s=trial.budgets.arrival_s,
    )
    expected = [probe.name for probe in probes]
    expect(results == expected, expected=f"the results {expected}", actual=repr(results)[:200])


@should(
    needs=(Capability.CALLS,),
    after=(
        "interface.submit-passes-args-and-kwargs",
        "interface.submit-accepts-every-kind-of-callable",
    ),
)
def exception_type_and_args_are_preserved(trial: Trial) -> None:
    """``Future.exception()`` has the type and the arguments of the exception that the call raised.

    Why: callers distinguish errors by their type, for example to decide what to retry.
    Likely causes: exceptions are sent as text; exceptions are wrapped in one of the executor's own.
    Origin: concurrent.futures.Future.exception.
    """
    subject = trial.started(slots=1)
    calls: tuple[tuple[Callable[..., object], tuple[object, ...], type[Exception]], ...] = (
        (math.sqrt, (-1,), ValueError),
        (operator.getitem, ({}, "missing"), KeyError),
        (os.stat, (os.path.join(trial.scratch, "missing"),), FileNotFoundError),
    )
    for call, arguments, expected in calls:
        future = submit_call(subject, call, *arguments)
        await_done(subject, {"a call that raises": future})
        error = trial.call("exception()", lambda: future.exception(timeout=0))  # noqa: B023
        try:
            call(*arguments)
        except expected as here:
            expect(
                type(error) is expected and error.args == here.args,
                expected=f"exception() to return {here!r}",
                actual=repr(error)[:200],
            )
