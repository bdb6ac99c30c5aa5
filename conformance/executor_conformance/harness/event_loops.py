"""The event loops of this process and the objects on them, found through the garbage collector."""

from __future__ import annotations

import gc
import logging
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


def running_loops() -> int:
    """Number of event loops that run in this process, in any thread."""
    return sum(loop.is_running() for loop in _loops())


def open_loops() -> int:
    """Number of event loops of this process that are not closed."""
    gc.collect()
    return sum(not loop.is_closed() for loop in _loops())


def objects_on_loops() -> int:
    """Number of tasks, futures and coroutines."""
    gc.collect()
    kinds: tuple[type, ...] = (types.CoroutineType,)
    if future := _of_asyncio("Future"):
        kinds += (future,)
    return sum(issubclass(type(thing), kinds) for thing in gc.get_objects())


def _loops() -> Iterator[asyncio.AbstractEventLoop]:
    kind = _of_asyncio("AbstractEventLoop")
    if kind is None:
        return iter(())
    # Not isinstance(): it reads __class__, which raises on some objects.
    return (thing for thing in gc.get_objects() if issubclass(type(thing), kind))


def _of_asyncio(name: str) -> type | None:
    """A class of asyncio; ``None`` if nobody has imported it, so that there are no instances."""
    return getattr(sys.modules.get("asyncio"), name, None)


@contextmanager
def logs_and_warnings() -> Iterator[list[str]]:
    """The texts that are logged or warned about meanwhile, in any thread."""
    texts: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(self.format(record))

    def show(message: Warning | str, *_: object, **__: object) -> None:
        texts.append(str(message))

    listener = Listener()
    root = logging.getLogger()
    root.addHandler(listener)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        try:
            yield texts
        finally:
            root.removeHandler(listener)
