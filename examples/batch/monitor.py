"""One poller for all jobs."""

from __future__ import annotations

import asyncio

from examples.batch.calls import Calls

#: The most jobs in one DescribeJobs call, which is the limit of Batch.
_BATCH = 100
#: After this many polls without a job it counts as unknown.  A new job may not be visible at once.
_MAX_MISSES = 5

#: SUCCEEDED or FAILED, and the reason that the service gives.
End = tuple[str, str]


class UnknownJob(Exception):
    """The service has no such job, after several polls."""


class Monitor:
    """Polls up to 100 jobs per call, as long as a task waits for one.

    The calls of a round are sequential and spread over ``interval_s``.  So the load on the service is even,
    and throttling slows the polling down.

    :param interval_s: the polling interval of each job, in seconds.
    """

    def __init__(self, calls: Calls, interval_s: float) -> None:
        self._calls = calls
        self._interval_s = interval_s
        self._ends: dict[str, asyncio.Future[End]] = {}
        self._misses: dict[str, int] = {}
        self._rounds: asyncio.Task[None] | None = None

    async def wait_for(self, job_id: str) -> End:
        """Wait for the end of a job.

        :raises UnknownJob: the service has no such job.
        """
        end: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._ends[job_id] = end
        if self._rounds is None:
            self._rounds = asyncio.get_running_loop().create_task(self._run())
        try:
            return await end
        finally:
            del self._ends[job_id]
            self._misses.pop(job_id, None)

    async def close(self) -> None:
        """Stop polling."""
        if self._rounds:
            self._rounds.cancel()
            await asyncio.wait([self._rounds])

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            while self._ends:
                ids = list(self._ends)
                for start in range(0, len(ids), _BATCH):
                    due = max(loop.time(), due + self._interval_s * _BATCH / max(_BATCH, len(ids)))
                    await asyncio.sleep(due - loop.time())
                    await self._poll([id_ for id_ in ids[start : start + _BATCH] if id_ in self._ends])
        finally:
            self._rounds = None

    async def _poll(self, ids: list[str]) -> None:
        if not ids:
            return
        try:
            answer = await self._calls("describe_jobs", jobs=ids)
        except Exception as error:
            for id_ in ids:
                self._settle(id_, error)
            return
        missing = set(ids)
        for job in answer["jobs"]:
            missing.discard(job["jobId"])
            if job["status"] in ("SUCCEEDED", "FAILED"):
                self._settle(job["jobId"], (job["status"], job.get("statusReason", "")))
        for id_ in missing:
            self._misses[id_] = self._misses.get(id_, 0) + 1
            if self._misses[id_] >= _MAX_MISSES:
                self._settle(id_, UnknownJob(f"the service has no job {id_}"))

    def _settle(self, id_: str, end: End | Exception) -> None:
        waiting = self._ends.get(id_)
        if waiting is None or waiting.done():
            return
        if isinstance(end, Exception):
            waiting.set_exception(end)
        else:
            waiting.set_result(end)
