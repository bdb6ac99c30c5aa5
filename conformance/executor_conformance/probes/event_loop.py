"""What a probe needs of the event loop that it runs on, asyncio's or trio's."""

from __future__ import annotations

import abc
import array
import asyncio
import fcntl
import gc
import os
import sys
import termios
import weakref
from typing import Any


class Library(abc.ABC):
    """What a probe needs of an event loop.

    ``Cancelled`` is the exception that cancels a task.
    """

    Cancelled: type[BaseException]

    @abc.abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Sleep; other tasks go on meanwhile."""

    @abc.abstractmethod
    async def wait_at(self, gate: str) -> None:
        """Wait until the gate is open."""

    @abc.abstractmethod
    async def wait_alone(self) -> None:
        """Wait for an object that only the waiting task refers to; it is ready after a garbage collection."""

    @abc.abstractmethod
    async def cancel_oneself(self) -> None:
        """Cancel the current task."""

    @abc.abstractmethod
    async def time_out(self, seconds: float) -> None:
        """Wait in vain, and raise the library's timeout error."""

    @abc.abstractmethod
    def loop(self) -> int:
        """An id of this loop."""


def library() -> Library:
    """The library whose loop runs this coroutine."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return _Trio(trio)
    return _ASYNCIO


def _is_open(descriptor: int) -> bool:
    """Whether a gate is open: it holds a byte, which is never read."""
    waiting = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, waiting)
    return waiting[0] > 0


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
        if not _is_open(self._descriptor):  # the host that could open it has died
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

    async def wait_at(self, gate: str) -> None:
        loop = asyncio.get_running_loop()
        waiters = _GATES.get((loop, gate))
        if waiters is None:
            waiters = _GATES[loop, gate] = _Waiters(loop, gate)
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


_ASYNCIO = _Asyncio()


class _Trio(Library):
    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self.Cancelled = trio.Cancelled

    async def sleep(self, seconds: float) -> None:
        await self._trio.sleep(seconds)

    async def wait_at(self, gate: str) -> None:
        descriptor = os.open(gate, os.O_RDONLY | os.O_NONBLOCK)
        try:
            await self._trio.lowlevel.wait_readable(descriptor)
            if not _is_open(descriptor):
                await self._trio.sleep_forever()
        finally:
            os.close(descriptor)

    async def wait_alone(self) -> None:
        gc.collect()  # trio's nursery refers to its tasks, whatever the executor does
        await self.sleep(0)

    async def cancel_oneself(self) -> None:
        raise RuntimeError("a task of trio cannot cancel itself")

    async def time_out(self, seconds: float) -> None:
        with self._trio.fail_after(seconds):
            await self._trio.sleep_forever()

    def loop(self) -> int:
        return id(self._trio.lowlevel.current_trio_token())
