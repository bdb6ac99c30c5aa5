"""Who is compared."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.remote import loops, threads, triggerer
from benchmarks.remote.polls import PollingJobs
from benchmarks.remote.work import Cost, Work

LIMIT = "asyncio.TaskGroup"
REFERENCE = "reference"
OWN_LOOP = "reference, own loop"
THREADS = "thread pool"


@dataclass(frozen=True)
class Contender:
    """One way to launch and to watch jobs.

    :param asks: for how many jobs it asks in one call, at most.
    :param interpreter: the name of the option that says which Python has it; by default, this one.
    """

    name: str
    asks: int
    run: Callable[[Work], Cost]
    interpreter: str = ""


CONTENDERS = [
    Contender(LIMIT, 100, loops.task_group),
    Contender(REFERENCE, 100, loops.reference),
    Contender(OWN_LOOP, 100, loops.reference_own_loop),
    Contender("reference, a poll each", 1, functools.partial(loops.reference, kind=PollingJobs)),
    Contender(THREADS, 1, threads.thread_pool),
    Contender("Airflow triggerer", 100, triggerer.triggerer, interpreter="airflow3"),
]
