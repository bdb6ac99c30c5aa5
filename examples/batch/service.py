"""The simulated Batch service: its jobs and their states.

Jobs have no timers.  The state of a job is computed from the clock whenever it is read.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from examples.batch.behavior import Behavior

#: The most jobs in one DescribeJobs call, as in Batch.
MAX_JOBS = 100
_SUCCEEDED = "SUCCEEDED"
_FAILED = "FAILED"
#: (the part of its duration at which a state of a job ends, the state).
_PHASES = ((0.05, "SUBMITTED"), (0.15, "RUNNABLE"), (0.20, "STARTING"), (1.00, "RUNNING"))
_ACCOUNT = "arn:aws:batch:us-east-1:123456789012"
_ENVIRONMENT = "compute environment"

Answer = dict[str, Any]


class ClientError(Exception):
    """The request is invalid."""


@dataclass
class _Job:
    id: str
    name: str
    queue: str
    definition: str
    began: float
    ends: float
    created_at: int  # milliseconds since the epoch, as in Batch
    reason: str | None  # of its failure, if it will fail

    def status(self, now: float) -> str:
        if now >= self.ends:
            return _FAILED if self.reason else _SUCCEEDED
        part = (now - self.began) / (self.ends - self.began)
        return next(status for until, status in _PHASES if part < until)

    def as_answer(self, now: float) -> Answer:
        status = self.status(now)
        answer: Answer = {
            "jobId": self.id,
            "jobArn": f"{_ACCOUNT}:job/{self.id}",
            "jobName": self.name,
            "jobQueue": self.queue,
            "jobDefinition": self.definition,
            "status": status,
            "createdAt": self.created_at,
            "startedAt": self.created_at,
        }
        if status in (_SUCCEEDED, _FAILED):
            answer["stoppedAt"] = self.created_at + round(1000 * (self.ends - self.began))
            answer["statusReason"] = self.reason or "Essential container in task exited"
        return answer


class BatchService:
    """Executes the operations of the service, and knows afterwards what really happened.

    The duration and the outcome of a job depend on the seed and its name, not on the order of the jobs.

    :param clock: returns the time in seconds, from any origin.
    """

    def __init__(self, behavior: Behavior, clock: Callable[[], float] = time.monotonic) -> None:
        self._behavior = behavior
        self._clock = clock
        self._jobs: dict[str, _Job] = {}
        self._by_name: dict[str, list[_Job]] = {}
        self._resources: set[tuple[str, str]] = set()
        self._calls: Counter[str] = Counter()
        self._operations: dict[str, Callable[[Answer], Answer]] = {
            "createcomputeenvironment": self._create_compute_environment,
            "describecomputeenvironments": self._describe_compute_environments,
            "createjobqueue": self._create_job_queue,
            "registerjobdefinition": self._register_job_definition,
            "submitjob": self._submit,
            "describejobs": self._describe,
            "listjobs": self._list,
            "terminatejob": self._terminate,
        }

    def call(self, operation: str, asked: Answer) -> Answer:
        """Execute an operation and return its answer.

        :raises ClientError: the request is invalid.
        """
        if operation not in self._operations:
            raise ClientError(f"unknown operation {operation}")
        self._calls[operation] += 1
        try:
            return self._operations[operation](asked)
        except KeyError as missing:
            raise ClientError(f"{missing} is required") from None

    def truth(self) -> Answer:
        """Return what really happened: all submissions of each job, their outcomes, the calls, the peak."""
        now = self._clock()
        return {
            "jobs": {
                name: [[job.status(now), job.reason if now >= job.ends else None] for job in jobs]
                for name, jobs in self._by_name.items()
            },
            "calls": dict(self._calls),
            "peak": self._peak(),
        }

    def _peak(self) -> int:
        """Return the maximum number of jobs that ran at once."""
        moves = sorted(move for job in self._jobs.values() for move in ((job.began, 1), (job.ends, -1)))
        running = peak = 0
        for _, change in moves:
            running += change
            peak = max(peak, running)
        return peak

    # -- operations ------------------------------------------------------------------------------------------

    def _create_compute_environment(self, asked: Answer) -> Answer:
        name = self._create(_ENVIRONMENT, asked["computeEnvironmentName"])
        return _compute_environment(name)

    def _describe_compute_environments(self, asked: Answer) -> Answer:
        names = [name for name in asked["computeEnvironments"] if (_ENVIRONMENT, name) in self._resources]
        return {"computeEnvironments": [_compute_environment(name) for name in names]}

    def _create_job_queue(self, asked: Answer) -> Answer:
        for one in asked["computeEnvironmentOrder"]:
            self._require(_ENVIRONMENT, one["computeEnvironment"].rpartition("/")[2])
        name = self._create("job queue", asked["jobQueueName"])
        return {"jobQueueName": name, "jobQueueArn": f"{_ACCOUNT}:job-queue/{name}"}

    def _register_job_definition(self, asked: Answer) -> Answer:
        name = asked["jobDefinitionName"]
        self._resources.add(("job definition", name))
        return {
            "jobDefinitionName": name,
            "jobDefinitionArn": f"{_ACCOUNT}:job-definition/{name}:1",
            "revision": 1,
        }

    def _submit(self, asked: Answer) -> Answer:
        self._require("job queue", asked["jobQueue"])
        self._require("job definition", asked["jobDefinition"])
        name = asked["jobName"]
        rng = random.Random(f"{self._behavior.seed} {name}")
        now = self._clock()
        job = _Job(
            id=f"{len(self._jobs):08x}-0000-4000-8000-{rng.getrandbits(48):012x}",
            name=name,
            queue=asked["jobQueue"],
            definition=asked["jobDefinition"],
            began=now,
            ends=now + self._behavior.seconds * rng.uniform(0.5, 1.5),
            created_at=round(time.time() * 1000),
            reason=f"exit status {rng.randint(1, 125)}" if rng.random() < self._behavior.fail else None,
        )
        self._jobs[job.id] = job
        # Names are not unique, as in Batch: a second job with the same name is another job.
        self._by_name.setdefault(name, []).append(job)
        return {"jobId": job.id, "jobName": name, "jobArn": f"{_ACCOUNT}:job/{job.id}"}

    def _describe(self, asked: Answer) -> Answer:
        if len(asked["jobs"]) > MAX_JOBS:
            raise ClientError(f"at most {MAX_JOBS} jobs can be described in one call")
        now = self._clock()
        return {"jobs": [self._jobs[id_].as_answer(now) for id_ in asked["jobs"] if id_ in self._jobs]}

    def _list(self, asked: Answer) -> Answer:
        self._require("job queue", asked["jobQueue"])
        names = [
            value for one in asked.get("filters", ()) for value in one["values"] if one["name"] == "JOB_NAME"
        ]
        if not names:
            raise ClientError("this service lists jobs by JOB_NAME only")
        now = self._clock()
        return {
            "jobSummaryList": [
                job.as_answer(now)
                for name in names
                for job in self._by_name.get(name, ())
                if job.queue == asked["jobQueue"]
            ]
        }

    def _terminate(self, asked: Answer) -> Answer:
        job = self._jobs.get(asked["jobId"])
        now = self._clock()
        if job and now < job.ends:
            job.ends = now
            job.reason = asked["reason"]
        return {}

    def _create(self, kind: str, name: str) -> str:
        if (kind, name) in self._resources:
            raise ClientError(f"{kind} {name} already exists")
        self._resources.add((kind, name))
        return name

    def _require(self, kind: str, name: str) -> None:
        if (kind, name) not in self._resources:
            raise ClientError(f"{kind} {name} does not exist")


def _compute_environment(name: str) -> Answer:
    return {
        "computeEnvironmentName": name,
        "computeEnvironmentArn": f"{_ACCOUNT}:compute-environment/{name}",
        "status": "VALID",
    }
