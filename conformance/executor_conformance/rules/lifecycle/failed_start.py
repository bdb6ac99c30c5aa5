"""A start that fails half-way."""

from __future__ import annotations

from executor_conformance.contract import Call
from executor_conformance.harness.linux import obey_process_limits
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability, Observation
from executor_conformance.rules import should
from executor_conformance.rules.faults.shortages import Shortage, no_descriptors, no_processes
from executor_conformance.rules.shutdown.leftovers import expect_workers_gone

#: More workers than what is left suffices for, and fewer than would slow down the rule.
_WORKERS = 14
_FREE_DESCRIPTORS = 12
_FREE_PROCESSES = 6


@should(
    needs=(Capability.OWN_WORKERS, Observation.VISIBLE_WORKERS),
    after=(
        "shutdown.end-leaves-no-worker",
        "faults.survives-file-descriptor-exhaustion",
        "faults.survives-process-exhaustion",
    ),
    turn="alone",
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
    _start_and_end(trial, no_descriptors(_FREE_DESCRIPTORS))
    if obey_process_limits():
        _start_and_end(trial, no_processes(trial, _FREE_PROCESSES))


def _start_and_end(trial: Trial, shortage: Shortage) -> None:
    """Start an executor during a shortage, with tasks for every worker, and end it afterwards."""
    subject = trial.build(parallelism=_WORKERS)
    probes = trial.probes(_WORKERS)
    shortage.begin()
    try:
        error = subject.rejection(subject.start)
        if error is None:
            # Where workers are started on demand, the tasks demand them.
            errors = [subject.rejection(lambda: subject.submit(probe)) for probe in probes]  # noqa: B023
            error = next((each for each in errors if each is not None), None)
            trial.quiet(lambda: subject.rejection(subject.beat))
    finally:
        shortage.relieve()
    subject.end()
    expect_workers_gone(
        trial,
        f"{'a failed start' if error else 'a start'} during a shortage of {shortage.what}, and "
        f"{trial.target.adapter.name_of(Call.END)}" + (f" (the error was {error!r:.100})" if error else ""),
    )
