"""Measures the current process and its event loop."""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path

from benchmarks.remote.work import Cost

_TICK_S = 0.02


class Meter:
    """Measures what this process spends from now on, in all its threads."""

    def __init__(self) -> None:
        gc.collect()
        reset_peak("self")
        self._memory = memory("self", "VmRSS")
        self._began = time.monotonic()
        self._cpu = time.process_time()

    def cost(self, lags: Lags | None = None) -> Cost:
        """Return the cost so far."""
        return Cost(
            seconds=time.monotonic() - self._began,
            cpu_s=time.process_time() - self._cpu,
            growth=memory("self", "VmHWM") - self._memory,
            lag_p99_s=lags.quantile(0.99) if lags else None,
        )


class Lags:
    """Measures the lag of an event loop, fifty times per second."""

    def __init__(self) -> None:
        self._lags: list[float] = []
        self._over = False

    async def watch(self) -> None:
        """Measure until :meth:`stop`, which any thread may call."""
        loop = asyncio.get_running_loop()
        while not self._over:
            due = loop.time() + _TICK_S
            await asyncio.sleep(_TICK_S)
            self.record(loop.time() - due)

    def record(self, lag_s: float) -> None:
        """Record one lag."""
        self._lags.append(lag_s)

    def stop(self) -> None:
        """Stop measuring."""
        self._over = True

    def clear(self) -> None:
        """Forget the lags so far."""
        self._lags.clear()

    def quantile(self, part: float) -> float:
        """Return a quantile of the lags, in seconds.

        :param part: from 0 to 1.
        """
        lags = sorted(self._lags) or [0.0]
        return lags[min(len(lags) - 1, int(part * len(lags)))]


def memory(pid: int | str, field: str) -> int:
    """Return a field of a process's status, in bytes: ``VmRSS``, or ``VmHWM`` for the peak."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def reset_peak(pid: int | str) -> None:
    """Reset the peak memory, ``VmHWM``."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
