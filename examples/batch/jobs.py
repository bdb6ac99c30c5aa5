"""Jobs of AWS Batch as tasks: submitted once, waited for, and called back when their task is cancelled."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import re
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from aiobotocore.session import get_session
from botocore.exceptions import ClientError

from examples.batch.calls import CONFIG, Calls, Doubtful
from examples.batch.monitor import Monitor
from executor_reference import TaskKey

#: Of moto too.  A real account has its own queue and definition, made by whoever owns it.
ROLE = "arn:aws:iam::123456789012:role/example"
_NAME = "example"
#: Calls for single jobs at once: fewer than there are connections, so that the monitor always finds one free,
#: and few enough that the first is over before the last has been made ready.
_LANES = 32
#: Doubtful answers to one submission after which it has failed.
_DOUBTS = 8


class JobFailed(Exception):
    """With the service's reason."""


def job_name(key: TaskKey) -> str:
    """The name under which a try of a task is submitted: always the same one, and nobody else's."""
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", "-".join(map(str, key)))
    # What makes it nobody else's: Batch has names of 128 letters, and knows few letters.
    digest = hashlib.sha256(repr(tuple(key)).encode()).hexdigest()
    return f"try-{readable[:91]}-{digest[:32]}"


class Jobs:
    """Submits jobs to a service and waits for them; open it on the loop that is to use it.

    Batch has no token by which it would know a submission again, and names are not unique
    (https://github.com/aws/containers-roadmap/issues/2798).  So the name is made from the try of the task,
    and a submission that may have been accepted (500, or no answer at all) is looked up by that name before
    it is repeated: a job that is there is adopted.  A listing that lags behind by more than ``lag_s`` would
    still let a job be submitted twice.

    :param endpoint: the address of the service.  It is given made-up credentials: this is an example, and not
        for a real account.
    :param interval_s: the time from one look at a job to the next, in seconds.
    :param lag_s: the time from a doubtful submission to the look for its job.
    """

    watched_by: type[Monitor] = Monitor

    def __init__(self, endpoint: str, interval_s: float = 2.0, lag_s: float = 1.0) -> None:
        self.submitted = 0
        self.adopted = 0
        self.under_way = 0
        self.peak = 0
        self._endpoint = endpoint
        self._interval_s = interval_s
        self._lag_s = lag_s
        self._open = AsyncExitStack()
        self._runs = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._lanes = asyncio.Semaphore(_LANES)

    async def open(self) -> None:
        """Connect, and have a queue made."""
        client = await self._open.enter_async_context(
            get_session().create_client(
                "batch",
                region_name="us-east-1",
                endpoint_url=self._endpoint,
                aws_access_key_id="example",
                aws_secret_access_key="example",
                config=CONFIG,
            )
        )
        self.calls = Calls(client)
        self._monitor = self.watched_by(self.calls, self._interval_s)
        self._open.push_async_callback(self._monitor.close)
        try:
            await self._make_queue()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Wait for those who still run, as after their cancellation they do for a moment, and disconnect."""
        await self._idle.wait()
        await self._open.aclose()

    async def __aenter__(self) -> Jobs:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def task(self, key: TaskKey) -> Callable[[], Coroutine[Any, Any, None]]:
        """The coroutine function that an executor is to run for a key."""
        return functools.partial(self.run, job_name(key))

    async def run(self, name: str) -> None:
        """Submit a job and wait for its end.

        Cancelled, it has the service terminate the job.

        :raises JobFailed: the job has failed.
        """
        self._runs += 1
        self._idle.clear()
        try:
            await self._run(name)
        finally:
            self._runs -= 1
            if not self._runs:
                self._idle.set()

    async def _run(self, name: str) -> None:
        job_id = None
        try:
            job_id = await self._submit(name)
            self.submitted += 1
            self.under_way += 1
            self.peak = max(self.peak, self.under_way)
            try:
                status, reason = await self._monitor.end_of(job_id)
            finally:
                self.under_way -= 1
        except asyncio.CancelledError:
            await self._call_back(name, job_id)
            raise
        if status == "FAILED":
            raise JobFailed(reason)

    async def _submit(self, name: str) -> str:
        for doubts in range(1, _DOUBTS + 1):
            try:
                async with self._lanes:
                    answer = await self.calls(
                        "submit_job", repeatable=False, jobName=name, jobQueue=_NAME, jobDefinition=_NAME
                    )
                return str(answer["jobId"])
            except Doubtful:
                await asyncio.sleep(self._lag_s)
                job_id = await self._find(name)
                if job_id is not None:
                    self.adopted += 1
                    return job_id
                if doubts == _DOUBTS:
                    raise
        raise AssertionError("the last doubt is raised")

    async def _find(self, name: str) -> str | None:
        """The id of the job of this name, whatever has become of it."""
        page: dict[str, Any] = {}
        while True:
            answer = await self.calls(
                "list_jobs", jobQueue=_NAME, filters=[{"name": "JOB_NAME", "values": [name]}], **page
            )
            for job in answer["jobSummaryList"]:
                if job["jobName"] == name:  # the filter does not tell upper from lower case
                    return str(job["jobId"])
            if not answer.get("nextToken"):
                return None
            page = {"nextToken": answer["nextToken"]}

    async def _call_back(self, name: str, job_id: str | None) -> None:
        job_id = job_id or await self._find(name)
        if job_id is not None:
            async with self._lanes:
                await self.calls("terminate_job", jobId=job_id, reason="its task was cancelled")

    async def _make_queue(self) -> None:
        await self._make(
            "create_compute_environment",
            computeEnvironmentName=_NAME,
            type="UNMANAGED",
            state="ENABLED",
            serviceRole=ROLE,
        )
        answer = await self.calls("describe_compute_environments", computeEnvironments=[_NAME])
        arn = answer["computeEnvironments"][0]["computeEnvironmentArn"]
        await self._make(
            "create_job_queue",
            jobQueueName=_NAME,
            state="ENABLED",
            priority=1,
            computeEnvironmentOrder=[{"order": 1, "computeEnvironment": arn}],
        )
        await self._make(
            "register_job_definition",
            jobDefinitionName=_NAME,
            type="container",
            containerProperties={"image": "busybox", "vcpus": 1, "memory": 128, "command": ["true"]},
        )

    async def _make(self, operation: str, **arguments: Any) -> None:
        try:
            await self.calls(operation, **arguments)
        except ClientError as error:
            if "already exists" not in str(error):
                raise
