"""AWS Batch jobs as tasks: each is submitted once, polled, and terminated if its task is cancelled."""

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

from examples.batch.calls import CONFIG, Calls, OutcomeUnknown
from examples.batch.monitor import Monitor
from executor_reference import TaskKey

#: The role of the compute environment, also in moto.  A real account has its own queue and job definition.
ROLE = "arn:aws:iam::123456789012:role/example"
_NAME = "example"
#: How many calls for single jobs may run at once.  There are more connections, so the monitor always finds a
#: free one, and the first call can end before the last one has been prepared.
_CONCURRENT_CALLS = 32
#: A submission fails after this many attempts with an unknown outcome.
_MAX_ATTEMPTS = 8


class JobFailed(Exception):
    """The job has failed.  The text is the reason that the service gives."""


def job_name(key: TaskKey) -> str:
    """Return the name of the job for a key.  It is deterministic and unique."""
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", "-".join(map(str, key)))
    # The digest makes it unique: Batch limits names to 128 characters of a small set.
    digest = hashlib.sha256(repr(tuple(key)).encode()).hexdigest()
    return f"try-{readable[:91]}-{digest[:32]}"


class Jobs:
    """Submits jobs to a service and waits for them.  Open it on the loop that uses it.

    SubmitJob takes no idempotency token, and the names of jobs are not unique
    (https://github.com/aws/containers-roadmap/issues/2798).  So the name is derived from the key of the task.
    If the outcome of a submission is unknown (status 500, or no answer), the job is searched by that name
    before the submission is repeated, and an existing job is adopted.  If the listing lags by more than
    ``lag_s``, a job can still be submitted twice.

    :param endpoint: the address of the service.  The credentials are fake: this example is not meant for a
        real account.
    :param interval_s: the polling interval of a job, in seconds.
    :param lag_s: how long to wait before a job is searched after an unknown outcome, in seconds.
    :ivar submitted: the number of submitted jobs.
    :ivar adopted: the number of jobs that were found after an unknown outcome.
    :ivar running: the number of jobs that have been submitted and not ended.
    :ivar peak: the maximum of ``running``.
    """

    monitor_class: type[Monitor] = Monitor

    def __init__(self, endpoint: str, interval_s: float = 2.0, lag_s: float = 1.0) -> None:
        self.submitted = 0
        self.adopted = 0
        self.running = 0
        self.peak = 0
        self._endpoint = endpoint
        self._interval_s = interval_s
        self._lag_s = lag_s
        self._open = AsyncExitStack()
        self._runs = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._call_slots = asyncio.Semaphore(_CONCURRENT_CALLS)

    async def open(self) -> None:
        """Connect, and create the queue."""
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
        self._monitor = self.monitor_class(self.calls, self._interval_s)
        self._open.push_async_callback(self._monitor.close)
        try:
            await self._make_queue()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Wait for tasks that still run, for example shortly after their cancellation, and disconnect."""
        await self._idle.wait()
        await self._open.aclose()

    async def __aenter__(self) -> Jobs:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def task(self, key: TaskKey) -> Callable[[], Coroutine[Any, Any, None]]:
        """Return the coroutine function that the executor runs for a key."""
        return functools.partial(self.run, job_name(key))

    async def run(self, name: str) -> None:
        """Submit a job and wait for its end.  If this is cancelled, the job is terminated.

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
            self.running += 1
            self.peak = max(self.peak, self.running)
            try:
                status, reason = await self._monitor.wait_for(job_id)
            finally:
                self.running -= 1
        except asyncio.CancelledError:
            await self._terminate(name, job_id)
            raise
        if status == "FAILED":
            raise JobFailed(reason)

    async def _submit(self, name: str) -> str:
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            try:
                async with self._call_slots:
                    answer = await self.calls(
                        "submit_job", repeatable=False, jobName=name, jobQueue=_NAME, jobDefinition=_NAME
                    )
                return str(answer["jobId"])
            except OutcomeUnknown:
                await asyncio.sleep(self._lag_s)
                job_id = await self._find(name)
                if job_id is not None:
                    self.adopted += 1
                    return job_id
                if attempt == _MAX_ATTEMPTS:
                    raise
        raise AssertionError("unreachable: the last attempt raises")

    async def _find(self, name: str) -> str | None:
        """Return the id of the job with this name, in any state, or ``None``."""
        page: dict[str, Any] = {}
        while True:
            answer = await self.calls(
                "list_jobs", jobQueue=_NAME, filters=[{"name": "JOB_NAME", "values": [name]}], **page
            )
            for job in answer["jobSummaryList"]:
                if job["jobName"] == name:  # the filter ignores case
                    return str(job["jobId"])
            if not answer.get("nextToken"):
                return None
            page = {"nextToken": answer["nextToken"]}

    async def _terminate(self, name: str, job_id: str | None) -> None:
        job_id = job_id or await self._find(name)
        if job_id is not None:
            async with self._call_slots:
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
