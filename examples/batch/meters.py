"""Measures the cost of this process and the lag of its event loop."""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path
from types import TracebackType

#: The interval at which the lag is measured, in seconds.
_TICK_S = 0.02


class Meters:
    """Measures the duration of a block: ``async with Meters() as meters``.

    :ivar cpu_s: user and system time, in seconds.
    :ivar seconds: the elapsed time.
    :ivar peak_growth: the growth of resident memory from the start to the peak, in bytes.
    """

    cpu_s: float
    seconds: float
    peak_growth: int

    def __init__(self) -> None:
        self._lags: list[float] = []

    async def __aenter__(self) -> Meters:
        gc.collect()
        self._memory = _memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the peak
        self._began = time.monotonic()
        self._cpu = time.process_time()
        self._watch = asyncio.get_running_loop().create_task(self._measure_lag())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cpu_s = time.process_time() - self._cpu
        self.seconds = time.monotonic() - self._began
        self.peak_growth = _memory("VmHWM") - self._memory
        self._watch.cancel()

    def lag_s(self, part: float) -> float:
        """Return a quantile of the loop lag, in seconds.

        :param part: from 0 to 1.
        """
        lags = sorted(self._lags) or [0.0]
        return lags[min(len(lags) - 1, int(part * len(lags)))]

    async def _measure_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _TICK_S
            await asyncio.sleep(_TICK_S)
            self._lags.append(loop.time() - due)


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
