"""The work, which is the same for every contender, and its cost."""

from __future__ import annotations

from dataclasses import dataclass

from examples.batch.run import make_keys
from executor_reference import TaskKey

#: The interval at which a scheduler collects ended tasks, in seconds.
HEARTBEAT_S = 0.1


@dataclass(frozen=True)
class Work:
    """The jobs to launch and to poll until each has ended.

    :param endpoint: the address of the service.
    :param jobs: how many jobs.
    :param interval_s: the polling interval of a job, in seconds.
    :param threads: the size of a thread pool.
    :param core: the processor on which the contender runs.
    """

    endpoint: str
    jobs: int
    interval_s: float
    threads: int
    core: int

    @property
    def keys(self) -> list[TaskKey]:
        """The keys of the jobs.  They are always the same, and so are the outcomes."""
        return make_keys("remote", self.jobs)


@dataclass(frozen=True)
class Cost:
    """The cost of all jobs together.

    :param seconds: the time from the first submission to the report of the last end.
    :param cpu_s: user and system time of the process tree, without the service, in seconds.
    :param growth: the growth of resident memory, from before the first submission to the peak, in bytes.
    :param lag_p99_s: the 99th percentile of the loop lag, in seconds; ``None``: there is no loop.
    """

    seconds: float
    cpu_s: float
    growth: int
    lag_p99_s: float | None = None
