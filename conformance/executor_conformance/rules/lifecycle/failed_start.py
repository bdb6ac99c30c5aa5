"""A start that fails half-way."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable

from executor_conformance.contract import Call
from executor_conformance.harness import processes
from executor_conformance.harness.linux import obey_process_limits
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Observation
from executor_conformance.rules import should
from executor_conformance.rules.shutdown.leftovers import expect_workers_gone

#: More workers than what is left suffices for, and fewer than would slow down the rule.
_WORKERS = 14
_FREE_DESCRIPTORS = 12
_FREE_PROCESSES = 6


@should(
    needs=(Observation.VISIBLE_WORKERS,),
    after=(
        "shutdown.end-leaves-no-worker",
        "faults.survives-file-descriptor-exhaustion",
        "faults.survives-process-exhaustion",
    ),
)
def a_failed_start_leaves_no_worker(trial: Trial) -> None:
    """If workers cannot all be started, for lack of file descriptors or processes, those that were started
    are gone when ``start()`` has raised and ``end()`` was called.

    Why: a service manager restarts the scheduler when ``start()`` raises; the workers of each attempt use up
    what the next attempt needs.
    Likely causes: the executor counts as not started, so ``end()`` does nothing; the list of workers is set
    only when all have been started; the workers that were started wait for the others.
    Origin: python/cpython pull request 5614 (a pool whose constructor fails leaves its processes).
    """
    _start_and_end(trial, "file descriptors", _limit_descriptors)
    if obey_process_limits():
        _start_and_end(trial, "processes", _limit_processes)


def _start_and_end(trial: Trial, what: str, limit: Callable[[], Callable[[], None]]) -> None:
    """Start an executor during a shortage, with tasks for every worker, and end it afterwards.

    :param limit: begins the shortage; returns what relieves it.
    """
    subject = trial.build(parallelism=_WORKERS)
    probes = trial.probes(_WORKERS)
    relieve = limit()
    try:
        error = subject.rejection(subject.start)
        if error is None:
            # Where workers are started on demand, the tasks demand them.
            errors = [subject.rejection(lambda: subject.submit(probe)) for probe in probes]  # noqa: B023
            error = next((each for each in errors if each is not None), None)
            trial.wait_for(
                lambda: False, pump=lambda: _pump_unless_it_raises(subject), budget_s=trial.budgets.quiet_s
            )
    finally:
        relieve()
    subject.end()
    expect_workers_gone(
        trial,
        f"{'a start that failed' if error else 'a start'} for lack of {what}, and "
        f"{trial.target.adapter.name_of(Call.END)}" + (f" (the error was {error!r:.100})" if error else ""),
    )


def _pump_unless_it_raises(subject: Subject) -> None:
    subject.rejection(subject.pump)


def _limit_descriptors() -> Callable[[], None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = processes.open_descriptors()
    limit = max(*used, len(used) + _FREE_DESCRIPTORS) + 1
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    for _ in range(limit - len(used) - _FREE_DESCRIPTORS):
        try:
            taken.append(os.dup(0))
        except OSError:
            break  # a descriptor of this process that was not listed

    def relieve() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in taken:
            os.close(descriptor)

    return relieve


def _limit_processes() -> Callable[[], None]:
    before = resource.getrlimit(resource.RLIMIT_NPROC)
    limit = processes.threads_of_user(os.getuid()) + _FREE_PROCESSES
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, before[1]))
    return lambda: resource.setrlimit(resource.RLIMIT_NPROC, before)
