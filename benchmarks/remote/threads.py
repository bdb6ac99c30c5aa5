"""The contender without a loop: a thread for each running job, with botocore's synchronous client."""

from __future__ import annotations

import asyncio
import functools
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import botocore.session
from botocore.config import Config

from benchmarks.remote.meters import Meter
from benchmarks.remote.work import Cost, Work
from examples.batch.jobs import Jobs, job_name

#: The name of the queue and the job definition, which the other contenders use too.
_NAME = "example"


def thread_pool(work: Work) -> Cost:
    """Run the jobs in a thread pool: each thread submits a job and polls it until it ends.

    The threads share a client, which botocore allows.  It has a connection for each thread.
    """
    client = botocore.session.get_session().create_client(
        "batch",
        region_name="us-east-1",
        endpoint_url=work.endpoint,
        aws_access_key_id="example",
        aws_secret_access_key="example",
        config=Config(
            retries={"mode": "standard", "total_max_attempts": 1}, max_pool_connections=work.threads
        ),
    )
    asyncio.run(_make_queue(work.endpoint))
    client.describe_jobs(jobs=[])  # the other contenders also make calls before the measurement
    with ThreadPoolExecutor(work.threads) as pool:
        meter = Meter()
        names = [job_name(key) for key in work.keys]
        ends = list(pool.map(functools.partial(_run_job, client, work.interval_s), names))
        cost = meter.cost()
    assert len(ends) == work.jobs
    return cost


async def _make_queue(endpoint: str) -> None:
    async with Jobs(endpoint):
        pass


def _run_job(client: Any, interval_s: float, name: str) -> str:
    answer = client.submit_job(jobName=name, jobQueue=_NAME, jobDefinition=_NAME)
    while True:
        time.sleep(interval_s)
        (job,) = client.describe_jobs(jobs=[answer["jobId"]])["jobs"]
        if job["status"] in ("SUCCEEDED", "FAILED"):
            status: str = job["status"]
            return status
