"""The ways to run jobs that are compared."""

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

    :param jobs_per_call: the most jobs whose status it asks for in one call.
    :param interpreter: the option with the interpreter that has it installed; by default, this one.
    """

    name: str
    jobs_per_call: int
    run: Callable[[Work], Cost]
    interpreter: str = ""


CONTENDERS = [
    Contender(LIMIT, 100, loops.task_group),
    Contender(REFERENCE, 100, loops.reference),
    Contender(OWN_LOOP, 100, loops.reference_own_loop),
    Contender("reference, one poll per job", 1, functools.partial(loops.reference, kind=PollingJobs)),
    Contender(THREADS, 1, threads.thread_pool),
    Contender("Airflow triggerer", 100, triggerer.triggerer, interpreter="airflow3"),
]
