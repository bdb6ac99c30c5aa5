"""What a probe needs of asyncio's event loop."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from collections.abc import Callable

from executor_conformance.probes.event_loop import Library, is_open


class _Waiters:
    """All that wait at one gate on one loop share a file descriptor: there may be thousands."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str) -> None:
        self._loop = loop
        self._waiting: set[asyncio.Future[None]] = set()
        self._place = (loop, path)
        # Without a writer this is neither readable nor at its end; an open gate holds a byte.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        loop.add_reader(self._descriptor, self._look)

    async def wait(self) -> None:
        future = self._loop.create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)
            if not self._waiting:
                self._close()

    def _look(self) -> None:
        if not is_open(self._descriptor):  # the host that could open it has died
            self._loop.remove_reader(self._descriptor)
            return
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._loop.remove_reader(self._descriptor)
        self._forget()

    def _forget(self) -> None:
        if _GATES.get(self._place) is self:
            del _GATES[self._place]

    def _close(self) -> None:
        if self._descriptor >= 0:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
            self._forget()


_GATES: dict[tuple[asyncio.AbstractEventLoop, str], _Waiters] = {}


class _Asyncio(Library):
    Cancelled = asyncio.CancelledError

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def wait_at(self, gate: str, opened: Callable[[], None] = lambda: None) -> None:
        loop = asyncio.get_running_loop()
        waiters = _GATES.get((loop, gate))
        if waiters is None:
            waiters = _GATES[loop, gate] = _Waiters(loop, gate)
        opened()
        await waiters.wait()

    async def wait_alone(self) -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(_collect_and_wake, weakref.ref(future))
        await future

    async def cancel_oneself(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async def time_out(self, seconds: float) -> None:
        await asyncio.wait_for(asyncio.get_running_loop().create_future(), seconds)

    def loop(self) -> int:
        return id(asyncio.get_running_loop())


def _collect_and_wake(waiting: weakref.ref[asyncio.Future[None]]) -> None:
    gc.collect()
    future = waiting()
    if future is not None and not future.done():
        future.set_result(None)


ASYNCIO = _Asyncio()
