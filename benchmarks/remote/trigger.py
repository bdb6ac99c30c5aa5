"""The trigger that Airflow's triggerer runs: the same client and the same watcher as the other contenders'.

Amazon's own triggers make a client each, and each asks for its own job; this one spares the triggerer that,
so that what is measured is the triggerer.
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

#: The name of a job that is not submitted: its trigger has the rest made ready, and fires.
WARM_UP = ""
#: Environment variables: the service, seconds between two looks at a job, and a file of lags (doubles, in
#: seconds).
ENDPOINT, INTERVAL_S, LAGS = "REMOTE_ENDPOINT", "REMOTE_INTERVAL_S", "REMOTE_LAGS"


class _Shared:
    """What the triggers of this process have in common."""

    jobs: Jobs | None = None
    watch: asyncio.Task[None] | None = None

    async def open(self) -> Jobs:
        jobs = Jobs(os.environ[ENDPOINT], float(os.environ[INTERVAL_S]))
        await jobs.open()
        self.watch = asyncio.create_task(_FileOfLags(Path(os.environ[LAGS])).watch())
        return jobs


_shared = _Shared()


class _FileOfLags(Lags):
    """What was seen is in a file, for whoever cannot ask."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def see(self, lag_s: float) -> None:
        super().see(lag_s)
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
        """For the row."""
        return f"{__name__}.{type(self).__name__}", {"name": self._name}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event, whatever the end."""
        if _shared.jobs is None:  # the warm-up comes alone
            _shared.jobs = await _shared.open()
        reason = None
        if self._name != WARM_UP:
            try:
                await _shared.jobs.run(self._name)
            except JobFailed as failure:
                reason = str(failure)
        yield TriggerEvent({"failed": reason})
