"""What a probe needs of trio's event loop."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

from executor_conformance.probes.event_loop import Library, is_open


class Trio(Library):
    """:param trio: the module."""

    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self.Cancelled = trio.Cancelled

    async def sleep(self, seconds: float) -> None:
        await self._trio.sleep(seconds)

    async def wait_at(self, gate: str, opened: Callable[[], None] = lambda: None) -> None:
        descriptor = os.open(gate, os.O_RDONLY | os.O_NONBLOCK)
        try:
            opened()
            await self._trio.lowlevel.wait_readable(descriptor)
            if not is_open(descriptor):
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
