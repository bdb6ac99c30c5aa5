"""Sleeping, in code that may or may not run on an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Generator


class _Done:
    def __await__(self) -> Generator[None, None, None]:
        return
        yield


def delay(seconds: float) -> Awaitable[None]:
    """Sleep, with or without a running event loop.

    In a coroutine, await the result; other tasks run meanwhile.  Without the ``await`` it does not sleep, and
    Python warns that a coroutine was never awaited.  Where no loop runs, ``delay()`` blocks and returns after
    the sleep; its result may be awaited, but need not be.

    :param seconds: how long to sleep; 0 only lets other tasks run.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        time.sleep(seconds)
        return _Done()
    return asyncio.sleep(seconds)
