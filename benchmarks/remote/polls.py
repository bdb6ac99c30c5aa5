"""The same client, except that nobody asks for others: a call for each look at each job."""

from __future__ import annotations

import asyncio

from examples.batch.jobs import Jobs
from examples.batch.monitor import End, Monitor


class _OneByOne(Monitor):
    async def end_of(self, job_id: str) -> End:
        while True:
            await asyncio.sleep(self._interval_s)
            answer = await self._calls("describe_jobs", jobs=[job_id])
            (job,) = answer["jobs"]
            if job["status"] in ("SUCCEEDED", "FAILED"):
                return job["status"], job.get("statusReason", "")


class PollingJobs(Jobs):
    """What :class:`Jobs` would be without its monitor, as thread pools and most triggers are."""

    watched_by = _OneByOne
