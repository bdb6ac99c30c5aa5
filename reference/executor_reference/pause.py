"""Sleeping, in code that does not know whether it runs on an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Generator


class _Done:
    def __await__(self) -> Generator[None, None, None]:
        return
        yield


def delay(seconds: float) -> Awaitable[None]:
    """Sleep, wherever one is: awaited in a coroutine, called in plain code.

    On a loop it holds up nobody, and has to be awaited: forgotten, it does not sleep, and Python warns of a
    coroutine that was never awaited.  Where no loop runs it has slept when it returns.

    :param seconds: 0 lets others go first.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        time.sleep(seconds)
        return _Done()
    return asyncio.sleep(seconds)
