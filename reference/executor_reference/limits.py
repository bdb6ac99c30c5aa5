"""Limits of a queue: how much of it may be under way, for the sake of whoever serves it."""

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
    """What a queue is allowed.

    :param concurrency: tasks under way at once; ``None``: no limit but the executor's parallelism.
    :param rate: starts within ``per_s`` seconds, all of which may come at once; ``None``: any.
    :raises ValueError: a limit that would let nothing pass.
    """

    concurrency: int | None = None
    rate: float | None = None
    per_s: float = 1.0

    def __post_init__(self) -> None:
        if self.concurrency is not None and (type(self.concurrency) is not int or self.concurrency < 1):
            raise ValueError(f"concurrency must be an int from 1 up, or None, got {self.concurrency!r}")
        if self.rate is not None and not self.rate >= 1:  # a limiter of less never has room for a whole start
            raise ValueError(f"rate must be 1 or more within per_s (raise per_s instead), got {self.rate!r}")
        if not self.per_s > 0:
            raise ValueError(f"per_s must be seconds above 0, got {self.per_s!r}")


class Gate:
    """Lets the waiting of one queue pass as its limit allows, the most urgent first.

    A task that waits here holds no slot, so it is in nobody's way.  The coroutine that waits in its stead is
    there only while somebody does: nothing of an idle executor is on the loop.

    :param admit: takes what may pass.
    """

    def __init__(self, limit: Limit, admit: Callable[[Any], None]) -> None:
        self._admit = admit
        self._waiting: list[Any] = []  # a heap
        self._places = asyncio.Semaphore(limit.concurrency) if limit.concurrency else None
        self._starts = None if limit.rate is None else _limiter(limit.rate, limit.per_s)
        self._usher: asyncio.Task[None] | None = None

    def add(self, entry: Any) -> None:
        """Something more that waits; entries are compared by ``<``."""
        heapq.heappush(self._waiting, entry)
        if self._usher is None or self._usher.done():  # a loop may run a new task to its end at once
            self._usher = asyncio.get_running_loop().create_task(self._let_pass())

    def leave(self) -> None:
        """What was admitted has ended."""
        if self._places:
            self._places.release()

    def clear(self) -> list[Any]:
        """Nobody waits any longer: those who did."""
        waiting, self._waiting = self._waiting, []
        if self._usher:
            self._usher.cancel()
        return waiting

    async def _let_pass(self) -> None:
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
            self._usher = None


def _limiter(rate: float, per_s: float) -> AsyncLimiter:
    try:
        from aiolimiter import AsyncLimiter
    except ImportError:
        raise ImportError(
            "a limit of rate needs aiolimiter: pip install 'executor-conformance[async]'"
        ) from None
    return AsyncLimiter(rate, per_s)
