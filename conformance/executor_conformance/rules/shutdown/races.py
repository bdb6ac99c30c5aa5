"""Stopping does not depend on which process the kernel runs first."""

from __future__ import annotations

from executor_conformance.contract import Call
from executor_conformance.harness.slow_caller import SlowCaller
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Observation
from executor_conformance.rules import must
from executor_conformance.rules.shutdown.leftovers import expect_workers_gone

#: The caller pauses for this many seconds, or as long as this many forks take: long enough for a worker to
#: take its poison pill and exit.
_PAUSE_S, _PAUSE_FORKS = 0.05, 20
_MAX_PAUSES = 16


@must(needs=(Observation.VISIBLE_WORKERS,), after=("shutdown.end-leaves-no-worker",), turn="background")
def end_has_no_shutdown_race(trial: Trial) -> None:
    """``end()`` returns and every worker exits even if the caller is slow: a worker that ``end()`` wakes may
    act and exit before ``end()`` takes its next step.

    Why: the kernel may run a woken process before the one that woke it. An ``end()`` that relies on being
    faster than its workers hangs now and then, on some machines every tenth time.
    Likely causes: a poison pill is sent only for each worker that is still alive by then, though any worker
    may take it; a worker that has exited as asked is treated as dead and replaced.
    Origin: Airflow 3.3.2's LocalExecutor.end() checks is_alive() between two pills, and joins forever.
    """
    end = trial.target.adapter.name_of(Call.END)
    pause_s = max(_PAUSE_S, _PAUSE_FORKS * trial.budgets.fork_s)
    with SlowCaller(pause_s, _MAX_PAUSES) as caller:
        # In one of these orders, the worker that ``end()`` checks first is not the one idle for longest.
        for naps in ((1, 2, 3, 4), (4, 3, 2, 1)):
            subject = trial.started(parallelism=4, slots=1)
            subject.run(*(trial.probe(f"nap={nap / 10}") for nap in naps))
            with caller.slow():
                subject.end()
            expect_workers_gone(trial, f"{end} with a slow caller")
