"""What a probe needs of the event loop that it runs on, asyncio's or trio's."""

from __future__ import annotations

import abc
import array
import fcntl
import termios
from collections.abc import Callable


class Library(abc.ABC):
    """What a probe needs of an event loop.

    ``Cancelled`` is the exception that cancels a task.
    """

    Cancelled: type[BaseException]

    @abc.abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Sleep; other tasks go on meanwhile."""

    @abc.abstractmethod
    async def wait_at(self, gate: str, opened: Callable[[], None] = lambda: None) -> None:
        """Open the FIFO of a gate, call ``opened``, and wait until the gate is open."""

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


def is_open(descriptor: int) -> bool:
    """Whether a gate is open: it holds a byte, which is never read."""
    waiting = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, waiting)
    return waiting[0] > 0
