"""The suite's own task as a coroutine function: it waits without blocking its event loop.

It runs on asyncio and on trio.

:func:`run` takes the steps of :mod:`executor_conformance.probes.steps`, and waits at a gate or takes a nap by
giving way to others.  A cancellation is recorded as the note ``cancelled``, and as ``cleaned up`` when it has
waited for a moment after that.  It has some steps of its own:

====================== ==============================================================================
``block=SECONDS``   sleep without yielding
``yield=N``         yield to other tasks N times
``alone``           wait, after a garbage collection, for an object that nothing else refers to
``shrug=PATH``      wait at the gate PATH, and ignore cancellation
``cancel``          cancel itself
``timeout``         wait for a short while in vain, and raise ``TimeoutError``
``context=TEXT``    set a context variable
``look-context``    record the value of the context variable
``generator``       leave an asynchronous generator unfinished, which records its end as a note
``loop``            record ids of its event loop and of its thread
``lag=N``           take N naps of 10 ms, and record how late each ended, in microseconds, without the time
                    for which its thread had to wait for a processor
====================== ==============================================================================
"""

from __future__ import annotations

import contextvars
import functools
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

from executor_conformance.probes.event_loop import Library
from executor_conformance.probes.steps import ENDINGS, STEPS, WAITING, note
from executor_conformance.probes.task import begin
from executor_conformance.probes.transport import record

_VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("executor_conformance", default="clean")
_NAP_S = 0.01


async def run(journal: str, probe: str, steps: Sequence[str] = ()) -> object:
    """Run the steps as the task ``probe``; returns as :func:`executor_conformance.probes.task.run` does."""
    run_id = begin(journal, probe)
    try:
        result: object = probe
        for step in steps:
            name, _, value = step.partition("=")
            if name == "return":
                result = b"r" * int(value)
            elif name in _STEPS:
                await _STEPS[name](journal, probe, run_id, value)
            elif name in _ENDINGS or name in ENDINGS:
                record(journal, "finish", probe, run_id)
                if name in ENDINGS:
                    ENDINGS[name](value)
                await _ENDINGS[name]()
            else:
                STEPS[name](journal, probe, run_id, value)
    except library().Cancelled:
        note(journal, probe, run_id, "cancelled")
        await _clean_up(journal, probe, run_id)
        raise
    record(journal, "finish", probe, run_id)
    return result


class Method:
    """The same as a callable object: a coroutine function that inspect does not recognize as one."""

    def __init__(self, journal: str, probe: str, steps: Sequence[str] = ()) -> None:
        self._arguments = (journal, probe, steps)

    async def __call__(self) -> object:
        return await run(*self._arguments)


def context() -> str:
    """The value of the context variable here."""
    return _VARIABLE.get()


async def _clean_up(journal: str, probe: str, run_id: str) -> None:
    try:
        await library().sleep(_NAP_S)
    except GeneratorExit:  # it was abandoned, and is being closed
        raise
    except library().Cancelled:  # some libraries cancel an unshielded task again and again
        pass
    note(journal, probe, run_id, "cleaned up")


async def _gate(journal: str, probe: str, run_id: str, value: str) -> None:
    await library().wait_at(value)


async def _wait(journal: str, probe: str, run_id: str, value: str) -> None:
    await library().wait_at(value, lambda: note(journal, probe, run_id, WAITING))


async def _nap(journal: str, probe: str, run_id: str, value: str) -> None:
    await library().sleep(float(value))


async def _block(journal: str, probe: str, run_id: str, value: str) -> None:
    time.sleep(float(value))


async def _yield(journal: str, probe: str, run_id: str, value: str) -> None:
    for _ in range(int(value)):
        await library().sleep(0)


async def _alone(journal: str, probe: str, run_id: str, value: str) -> None:
    await library().wait_alone()


async def _shrug(journal: str, probe: str, run_id: str, value: str) -> None:
    while True:
        try:
            return await library().wait_at(value)
        except library().Cancelled:
            note(journal, probe, run_id, "shrugged")


async def _set_context(journal: str, probe: str, run_id: str, value: str) -> None:
    _VARIABLE.set(value)


async def _look_context(journal: str, probe: str, run_id: str, value: str) -> None:
    note(journal, probe, run_id, _VARIABLE.get())


async def _generator(journal: str, probe: str, run_id: str, value: str) -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            note(journal, probe, run_id, "generator closed")

    generator = numbers()
    _UNFINISHED.append(generator)
    await generator.__anext__()


_UNFINISHED: list[AsyncIterator[int]] = []


async def _loop(journal: str, probe: str, run_id: str, value: str) -> None:
    note(journal, probe, run_id, f"{library().loop()} {threading.get_ident()}")


async def _lag(journal: str, probe: str, run_id: str, value: str) -> None:
    late = []
    for _ in range(int(value)):
        began, waited_s = time.monotonic(), _waited_for_processor_s()
        await library().sleep(_NAP_S)
        late_s = time.monotonic() - began - _NAP_S - (_waited_for_processor_s() - waited_s)
        late.append(max(0, int(1e6 * late_s)))
    note(journal, probe, run_id, " ".join(map(str, late)))


def _waited_for_processor_s() -> float:
    """How long this thread could have run but had no processor, so far; 0 where the kernel does not count."""
    try:
        with open("/proc/thread-self/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except OSError:
        return 0.0


_Step = Callable[[str, str, str, str], Coroutine[Any, Any, None]]
_STEPS: dict[str, _Step] = {
    "gate": _gate,
    "wait": _wait,
    "nap": _nap,
    "block": _block,
    "yield": _yield,
    "alone": _alone,
    "shrug": _shrug,
    "context": _set_context,
    "look-context": _look_context,
    "generator": _generator,
    "loop": _loop,
    "lag": _lag,
}


async def _end_by_cancelling() -> None:
    await library().cancel_oneself()


async def _end_by_timeout() -> None:
    await library().time_out(_NAP_S)


_ENDINGS = {"cancel": _end_by_cancelling, "timeout": _end_by_timeout}


def library() -> Library:
    """The library whose loop runs this coroutine."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        from executor_conformance.probes.trio_loop import Trio

        return Trio(trio)
    return _asyncio()


@functools.cache  # an unfinished coroutine needs it even when the interpreter exits
def _asyncio() -> Library:
    # asyncio takes several MB, of which every fork of a host would copy the page tables.
    from executor_conformance.probes.asyncio_loop import ASYNCIO

    return ASYNCIO
