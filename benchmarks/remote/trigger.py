"""The trigger that Airflow's triggerer runs, with the same client and monitor as the other contenders.

Each of Amazon's own triggers creates a client and polls its own job.  This one avoids that cost, so that the
benchmark measures the triggerer.
"""

from __future__ import annotations

import array
import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from benchmarks.remote.meters import Lags
from examples.batch.jobs import JobFailed, Jobs

#: The name of a job that is not submitted.  Its trigger only prepares what all triggers share, and fires.
WARM_UP = ""
#: Environment variables: the address of the service, the polling interval in seconds, and the path of a file
#: for the lags (doubles, in seconds).
ENDPOINT, INTERVAL_S, LAGS = "REMOTE_ENDPOINT", "REMOTE_INTERVAL_S", "REMOTE_LAGS"


class _Shared:
    """What the triggers of this process share."""

    jobs: Jobs | None = None
    watch: asyncio.Task[None] | None = None

    async def open(self) -> Jobs:
        jobs = Jobs(os.environ[ENDPOINT], float(os.environ[INTERVAL_S]))
        await jobs.open()
        self.watch = asyncio.create_task(_FileOfLags(Path(os.environ[LAGS])).watch())
        return jobs


_shared = _Shared()


class _FileOfLags(Lags):
    """Writes the lags to a file, for another process."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def record(self, lag_s: float) -> None:
        super().record(lag_s)
        if len(self._lags) == 50:
            with self._path.open("ab") as file:
                array.array("d", self._lags).tofile(file)
            self._lags.clear()


class JobTrigger(BaseTrigger):  # type: ignore[misc]
    """Submits a job, waits for its end, and fires."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow stores in the database row."""
        return f"{__name__}.{type(self).__name__}", {"name": self._name}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event, whether the job succeeds or fails."""
        if _shared.jobs is None:  # the warm-up runs alone, so there is no race
            _shared.jobs = await _shared.open()
        reason = None
        if self._name != WARM_UP:
            try:
                await _shared.jobs.run(self._name)
            except JobFailed as failure:
                reason = str(failure)
        yield TriggerEvent({"failed": reason})
