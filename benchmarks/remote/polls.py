"""The same client without the shared monitor: each status check of each job is one call."""

from __future__ import annotations

import asyncio

from examples.batch.jobs import Jobs
from examples.batch.monitor import End, Monitor


class _OneByOne(Monitor):
    async def wait_for(self, job_id: str) -> End:
        while True:
            await asyncio.sleep(self._interval_s)
            answer = await self._calls("describe_jobs", jobs=[job_id])
            (job,) = answer["jobs"]
            if job["status"] in ("SUCCEEDED", "FAILED"):
                return job["status"], job.get("statusReason", "")


class PollingJobs(Jobs):
    """:class:`Jobs` without its monitor: each task polls its own job, as thread pools and triggers do."""

    monitor_class = _OneByOne
