"""Measures a process from inside, and its event loop."""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path

from benchmarks.remote.work import Cost

_TICK_S = 0.02


class Meter:
    """What this process spends from here on, in all its threads."""

    def __init__(self) -> None:
        gc.collect()
        reset_peak("self")
        self._memory = memory("self", "VmRSS")
        self._began = time.monotonic()
        self._cpu = time.process_time()

    def cost(self, lags: Lags | None = None) -> Cost:
        """So far."""
        return Cost(
            seconds=time.monotonic() - self._began,
            cpu_s=time.process_time() - self._cpu,
            growth=memory("self", "VmHWM") - self._memory,
            lag_p99_s=lags.part(0.99) if lags else None,
        )


class Lags:
    """By how much a loop is late, looked at fifty times a second."""

    def __init__(self) -> None:
        self._lags: list[float] = []
        self._over = False

    async def watch(self) -> None:
        """Look until :meth:`stop`, which may be called by any thread."""
        loop = asyncio.get_running_loop()
        while not self._over:
            due = loop.time() + _TICK_S
            await asyncio.sleep(_TICK_S)
            self.see(loop.time() - due)

    def see(self, lag_s: float) -> None:
        """One more."""
        self._lags.append(lag_s)

    def stop(self) -> None:
        """Look no more."""
        self._over = True

    def forget(self) -> None:
        """What was seen so far was of something else."""
        self._lags.clear()

    def part(self, part: float) -> float:
        """The lag that this part of all looks did not exceed, in seconds."""
        lags = sorted(self._lags) or [0.0]
        return lags[min(len(lags) - 1, int(part * len(lags)))]


def memory(pid: int | str, field: str) -> int:
    """A field of a process's status: ``VmRSS``, or ``VmHWM`` for the peak; in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def reset_peak(pid: int | str) -> None:
    """``VmHWM`` is the peak from here on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
