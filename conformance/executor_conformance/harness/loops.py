"""The event loops of this process, and what is on them, as the garbage collector knows them."""

from __future__ import annotations

import asyncio
import gc
import logging
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def running_loops() -> int:
    """How many event loops run in this process, in whatever thread."""
    return sum(loop.is_running() for loop in _loops())


def open_loops() -> int:
    """How many event loops of this process have not been closed."""
    gc.collect()
    return sum(not loop.is_closed() for loop in _loops())


def things_on_loops() -> int:
    """How many tasks, futures and coroutines there are."""
    gc.collect()
    return sum(issubclass(type(thing), (asyncio.Future, types.CoroutineType)) for thing in gc.get_objects())


def _loops() -> Iterator[asyncio.AbstractEventLoop]:
    # Not isinstance(): it asks objects for their __class__, and there are such as answer with an error.
    return (thing for thing in gc.get_objects() if issubclass(type(thing), asyncio.AbstractEventLoop))


@contextmanager
def overheard() -> Iterator[list[str]]:
    """What is logged or warned of meanwhile, in any thread."""
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(self.format(record))

    def show(message: Warning | str, *_: object, **__: object) -> None:
        heard.append(str(message))

    listener = Listener()
    root = logging.getLogger()
    root.addHandler(listener)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        try:
            yield heard
        finally:
            root.removeHandler(listener)
