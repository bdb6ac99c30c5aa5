"""The interface of ``concurrent.futures``: arguments, results and exceptions of calls."""

from __future__ import annotations

import gc
import math
import operator
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from executor_conformance.harness.futures import (
    AnyFuture,
    await_done,
    expect_result,
    result_or_error,
    submit_call,
    submit_probe,
)
from executor_conformance.harness.trial import Trial
from executor_conformance.probes import task as probe_module
from executor_conformance.probes.calls import Incomparable, same, size_of, zeros
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

#: Values that a program could take for something else, by what they are.
_VALUES: dict[str, object] = {
    "zero": 0,
    "an empty list": [],
    "an empty text": "",
    "False": False,
    "a dict with a tuple in it": {1: (2, None)},
    "an exception that was not raised": ValueError("not raised"),
    "an object that can be neither compared nor tested for truth": Incomparable(),
}
#: More than a length of three bytes can express.
_LARGE_BYTES = 24 << 20


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


@must(
    needs=(Capability.CALLS,),
    after=("interface.submit-passes-args-and-kwargs", "faults.an-unpicklable-result-fails-one-task"),
)
def values_arrive_unchanged(trial: Trial) -> None:
    """An argument and a result arrive as they were sent, whatever they are: values that are false, exceptions
    that were not raised, and objects that can be neither compared nor tested for truth.

    Why: callers pass numbers, arrays and objects of their own, and an executor has no reason to look at them.
    Likely causes: a result is compared with a sentinel by ``==`` instead of ``is``; ``if result:`` decides
    whether there is one; ``isinstance(result, Exception)`` decides whether the call raised.
    Origin: lithops-cloud/lithops#1396 (``== None`` on a table); rq/rq#644 (a false result is not saved).
    """
    subject = trial.started(slots=1)
    futures = {}
    for what, value in _VALUES.items():
        futures[what] = submit_call(subject, same, value)
    await_done(subject, {f"a call that returns {what}": future for what, future in futures.items()})
    for what, value in _VALUES.items():
        result = result_or_error(subject, futures[what])
        seen = trial.call("exception()", partial(futures[what].exception, timeout=0), silent=True)
        expect(
            seen is None and type(result) is type(value) and repr(result) == repr(value),
            expected=f"the result {value!r} of a call that returns {what}",
            actual=f"it raised {seen!r:.200}" if seen is not None else repr(result)[:200],
        )


@should(needs=(Capability.CALLS,), after=("parallelism.n-tasks-run-at-once",))
def a_call_runs_though_its_future_is_dropped(trial: Trial) -> None:
    """A submitted call runs even if nobody keeps its future.

    Why: callers that need no result drop the future; the call does its work all the same.
    Likely causes: the queue refers to a future weakly; a future that is freed cancels its call.
    Origin: concurrent.futures.Executor.submit; Dask cancels a task when its last future is released.
    """
    slots = trial.slots(1)
    subject = trial.started(parallelism=slots, slots=slots)
    gate = trial.gate()
    held = trial.probes(slots, gate.step)
    futures = [submit_probe(subject, probe) for probe in held]
    subject.await_started(*held)
    queued = trial.probe()
    submit_probe(subject, queued)
    gc.collect()
    gate.open()
    await_done(subject, {f"{probe}": future for probe, future in zip(held, futures, strict=True)})
    subject.require(
        lambda: queued.finished,
        expected="a call whose future nobody has kept to run",
        actual=lambda: subject.describe([queued]),
    )


@should(needs=(Capability.CALLS,), after=("interface.values-arrive-unchanged",))
def large_values_arrive(trial: Trial) -> None:
    """An argument and a result of 24 MiB arrive, and the executor keeps working.

    Why: arrays and tables are often larger than any buffer that an executor has chosen.
    Likely causes: a message is read into a buffer of fixed size; a length has three bytes; host and worker
    write to each other at the same time, each to a pipe that is full.
    Origin: joblib/loky#143 (an argument too large for a message blocks the executor); noxdafox/pebble#29 (a
    result too large for one ends the worker).
    """
    subject = trial.started(parallelism=2, slots=1)
    sent = submit_call(subject, size_of, b"x" * _LARGE_BYTES)
    received = submit_call(subject, zeros, _LARGE_BYTES)
    both = {"a call with a large argument": sent, "a call with a large result": received}
    await_done(subject, both)
    expect_result(subject, sent, _LARGE_BYTES, "a call with a large argument")
    result = result_or_error(subject, received)
    expect(
        isinstance(result, bytes) and result == bytes(_LARGE_BYTES),
        expected=f"a result of {_LARGE_BYTES} bytes",
        actual=f"{len(result)} bytes" if isinstance(result, bytes) else f"{result!r:.200}",
    )
    later = submit_call(subject, size_of, b"x")
    await_done(subject, {"a call after large ones": later})
    expect_result(subject, later, 1, "a call after large ones")


@should(
    needs=(Capability.CALLS,),
    after=(
        "interface.submit-passes-args-and-kwargs",
        "interface.submit-accepts-every-kind-of-callable",
    ),
)
def exception_type_and_args_are_preserved(trial: Trial) -> None:
    """``Future.exception()`` has the type, the arguments and the text of the exception that the call raised.

    Why: callers distinguish errors by their type, for example to decide what to retry, and log their text.
    Likely causes: exceptions are sent as text; exceptions are wrapped in one of the executor's own; an
    exception is made again from its type and ``args``, which are not all that it has.
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
                type(error) is expected and error.args == here.args and str(error) == str(here),
                expected=f"exception() to return {here!r} ({here})",
                actual=f"{error!r:.200} ({error})",
            )
