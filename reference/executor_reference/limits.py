"""Limits of a queue: how many of its tasks may run at once, and how many may start per time."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter


@dataclass(frozen=True)
class Limit:
    """The limit of one queue, for example to protect a remote service.

    :param concurrency: how many tasks may run at once; ``None``: only the executor's parallelism counts.
    :param rate: how many tasks may start within ``per_s`` seconds, possibly all at once; ``None``: any
        number.  Needs the library ``aiolimiter``.
    :param per_s: the period of ``rate``, in seconds.
    :raises ValueError: no task could ever start under this limit.
    """

    concurrency: int | None = None
    rate: float | None = None
    per_s: float = 1.0

    def __post_init__(self) -> None:
        if self.concurrency is not None and (type(self.concurrency) is not int or self.concurrency < 1):
            raise ValueError(f"concurrency must be an int >= 1, or None, got {self.concurrency!r}")
        if self.rate is not None and not self.rate >= 1:  # below 1, the limiter never has room for one start
            raise ValueError(f"rate must be >= 1, got {self.rate!r} (for a lower rate increase per_s)")
        if not self.per_s > 0:
            raise ValueError(f"per_s must be > 0 seconds, got {self.per_s!r}")


class Gate:
    """Admits the tasks of one queue as its limit allows, the highest priority first.

    A task that waits here holds no slot, so it blocks no other queue.  A coroutine waits for the limit, but
    only while there are tasks; an idle executor has nothing on the loop.

    :param admit: called with each entry that may start.
    """

    def __init__(self, limit: Limit, admit: Callable[[Any], None]) -> None:
        self._admit = admit
        self._waiting: list[Any] = []  # a heap
        self._places = asyncio.Semaphore(limit.concurrency) if limit.concurrency else None
        self._starts = None if limit.rate is None else _limiter(limit.rate, limit.per_s)
        self._admitting: asyncio.Task[None] | None = None

    def add(self, entry: Any) -> None:
        """Add an entry, to be admitted later.  The smallest entry is admitted first."""
        heapq.heappush(self._waiting, entry)
        if self._admitting is None or self._admitting.done():  # an eager task may be done at once
            self._admitting = asyncio.get_running_loop().create_task(self._admit_waiting())

    def leave(self) -> None:
        """Free the place of an admitted task that has ended."""
        if self._places:
            self._places.release()

    def clear(self) -> list[Any]:
        """Remove and return all entries that have not been admitted."""
        waiting, self._waiting = self._waiting, []
        if self._admitting:
            self._admitting.cancel()
        return waiting

    async def _admit_waiting(self) -> None:
        try:
            while self._waiting:
                if self._places:
                    await self._places.acquire()
                try:
                    if self._starts:
                        await self._starts.acquire()
                except BaseException:
                    self.leave()
                    raise
                self._admit(heapq.heappop(self._waiting))
        finally:
            self._admitting = None


def _limiter(rate: float, per_s: float) -> AsyncLimiter:
    try:
        from aiolimiter import AsyncLimiter
    except ImportError:
        raise ImportError(
            "Limit(rate=...) needs aiolimiter: pip install 'executor-conformance[async]'"
        ) from None
    return AsyncLimiter(rate, per_s)
