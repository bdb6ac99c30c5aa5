"""Calls of a ``concurrent.futures`` executor, for rules about its futures themselves."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from executor_conformance.contract import Call
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.subject import Subject
from executor_conformance.verdicts import expect

AnyFuture = concurrent.futures.Future[Any]


def submit_call(
    subject: Subject, function: Callable[..., object] | None, *arguments: object, **keywords: object
) -> AnyFuture:
    """``submit()``: the future that it returned, which the driver does not know."""
    executor = subject.driver.executor
    future: AnyFuture = subject.trial.call(
        Call.EXECUTE_ASYNC,
        lambda: executor.submit(function, *arguments, **keywords),
        backlog=subject.backlog,
    )
    subject.note_future(future)
    return future


def submit_probe(subject: Subject, probe: Probe) -> AnyFuture:
    """``submit()`` of a task of the suite; see :func:`submit_call`."""
    subject.note_gates(probe)
    return submit_call(subject, probe.work.function)


def await_done(subject: Subject, futures: dict[str, AnyFuture]) -> None:
    """Wait until each of these futures is done.

    :param futures: what each belongs to, for messages -> the future.
    """
    for what, future in futures.items():
        subject.require(
            lambda: subject.trial.call("done()", future.done, silent=True),  # noqa: B023
            expected=f"the future of {what} to be done",
            actual=lambda: repr(future)[:200],  # noqa: B023
        )


def result_or_error(subject: Subject, future: AnyFuture) -> object:
    """The result of a future that is done, or the exception in its place."""

    def look() -> object:
        try:
            return future.result(timeout=0)
        except BaseException as error:
            return error

    return subject.trial.call("result()", look, silent=True)


def columns_of(probes: Sequence[Probe]) -> list[tuple[object, ...]]:
    """The arguments of these tasks by position, as ``map()`` takes them."""
    rows = [probe.work.function.args for probe in probes if isinstance(probe.work.function, partial)]
    return list(zip(*rows, strict=True))


def expect_result(subject: Subject, future: AnyFuture, result: object, what: str) -> None:
    """A future that is done must have this result.

    :param what: describes the call, for the message.
    :raises Broken: it has another one, or an exception.
    """
    found = result_or_error(subject, future)
    expect(found == result, expected=f"the result {result!r:.60} of {what}", actual=f"{found!r:.200}")


def raise_on_purpose(_: object) -> None:
    """A done callback that raises."""
    raise RuntimeError("raised by a done callback, on purpose")
