"""One watcher for all jobs that somebody waits for."""

from __future__ import annotations

import asyncio

from examples.batch.calls import Calls

#: Jobs in one DescribeJobs; Batch allows no more.
_AT_ONCE = 100
#: Looks at a job that the service does not know, before it counts as gone: its books may lag behind.
_LOOKS = 5

End = tuple[str, str]  # SUCCEEDED or FAILED, and the service's reason


class UnknownJob(Exception):
    """The service has been asked often enough, and knows of no such job."""


class Monitor:
    """Asks after jobs, a hundred at a time, for as long as anybody waits.

    The calls of a round are spread over ``interval_s``, and follow each other: the service has an even load,
    and if it throttles, it is asked less.
    """

    def __init__(self, calls: Calls, interval_s: float) -> None:
        self._calls = calls
        self._interval_s = interval_s
        self._ends: dict[str, asyncio.Future[End]] = {}
        self._misses: dict[str, int] = {}
        self._rounds: asyncio.Task[None] | None = None

    async def end_of(self, job_id: str) -> End:
        """Wait for the end of a job.

        :raises UnknownJob: it has no such job.
        """
        end: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._ends[job_id] = end
        if self._rounds is None:
            self._rounds = asyncio.get_running_loop().create_task(self._watch())
        try:
            return await end
        finally:
            del self._ends[job_id]
            self._misses.pop(job_id, None)

    async def close(self) -> None:
        """Nobody waits any longer."""
        if self._rounds:
            self._rounds.cancel()
            await asyncio.wait([self._rounds])

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            while self._ends:
                ids = list(self._ends)
                for start in range(0, len(ids), _AT_ONCE):
                    due = max(loop.time(), due + self._interval_s * _AT_ONCE / max(_AT_ONCE, len(ids)))
                    await asyncio.sleep(due - loop.time())
                    await self._look([id_ for id_ in ids[start : start + _AT_ONCE] if id_ in self._ends])
        finally:
            self._rounds = None

    async def _look(self, ids: list[str]) -> None:
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
            if self._misses[id_] >= _LOOKS:
                self._settle(id_, UnknownJob(f"the service knows of no job {id_}"))

    def _settle(self, id_: str, end: End | Exception) -> None:
        waiting = self._ends.get(id_)
        if waiting is None or waiting.done():
            return
        if isinstance(end, Exception):
            waiting.set_exception(end)
        else:
            waiting.set_result(end)
