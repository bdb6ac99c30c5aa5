"""What is to be done, and what doing it has cost: the same for every contender."""

from __future__ import annotations

from dataclasses import dataclass

from examples.batch.run import keys_of
from executor_reference import TaskKey

#: How often a scheduler looks for what has ended, in seconds.
HEARTBEAT_S = 0.1


@dataclass(frozen=True)
class Work:
    """Jobs to be launched, each asked after until it has ended.

    :param endpoint: the address of the service.
    :param jobs: how many.
    :param interval_s: the time from one look at a job to the next, in seconds.
    :param threads: of contenders that have some.
    :param core: the processor of whoever is measured.
    """

    endpoint: str
    jobs: int
    interval_s: float
    threads: int
    core: int

    @property
    def keys(self) -> list[TaskKey]:
        """Of the jobs; always the same, as is what becomes of them."""
        return keys_of("remote", self.jobs)


@dataclass(frozen=True)
class Cost:
    """Of all jobs together.

    :param seconds: from the first submission to the report of the last end.
    :param cpu_s: user and system, of the whole process tree, in seconds; the service is not in it.
    :param growth: of resident memory, from before the first submission to the peak, in bytes.
    :param lag_p99_s: by how much the event loop was late, in seconds; ``None``: it has none.
    """

    seconds: float
    cpu_s: float
    growth: int
    lag_p99_s: float | None = None
