"""The constructor, and the first task."""

from __future__ import annotations

import os
import tempfile
import threading

from executor_conformance.contract import SUCCESS
from executor_conformance.harness import processes
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability, Observation
from executor_conformance.rules import must
from executor_conformance.verdicts import expect


@must(gateway=True)
def runs_a_task(trial: Trial) -> None:
    """A started executor runs a submitted task and reports its success.

    Why: this is what an executor is for, and nearly every other rule relies on it.
    Likely causes: no worker is started; ``start()`` blocks; ``sync()`` never collects the result.
    Origin: the executor contract; apache/airflow#19769 (tasks stuck in queued).
    """
    subject = trial.started(slots=1)
    probe = trial.probe()
    subject.run(probe)
    subject.expect_outcome(probe, SUCCESS)
    # An executor that reports too early violates another rule; here it is enough that the task runs.
    if not probe.started:
        subject.require(
            lambda: probe.started,
            expected="the task to run",
            actual=lambda: "it was reported as a success, but never ran",
        )


@must(
    needs=(
        Capability.OWN_WORKERS,
        Observation.VISIBLE_WORKERS,
        Capability.INERT_CONSTRUCTOR,
    )
)
def constructor_acquires_no_resources(trial: Trial) -> None:
    """The constructor starts no process or thread and opens no file; ``start()`` does that.

    Why: schedulers also construct executors only to query them, in processes that never start or end them and
    that may fork later. Whatever the constructor starts there is never stopped.
    Likely causes: ``__init__()`` creates workers, a manager process or a connection; a queue opens its pipes
    when it is created.
    Origin: apache/airflow#36335; executors are constructed by Airflow's CLI and webserver too.
    """
    trial.build(slots=1)  # so that what is imported or cached on first use is not counted
    before = _resources(trial)
    kept = trial.build(slots=1)
    trial.quiet()
    for kind, new in _difference(before, _resources(trial)).items():
        expect(
            not new,
            expected=f"the constructor to create no {kind}",
            actual=f"{len(new)} new: {', '.join(new[:5])}",
        )
    del kept


def _resources(trial: Trial) -> dict[str, set[str]]:
    return {
        "process": {f"{process.pid} {process.command}" for process in trial.host.processes()},
        "thread": {f"{thread.name} ({thread.ident})" for thread in threading.enumerate()},
        "file descriptor": {
            f"{number} -> {name}"
            for number, name in processes.open_descriptors().items()
            if not name.startswith(("anon_inode:inotify",))
        },
        "temporary file": set(os.listdir(tempfile.gettempdir())),
    }


def _difference(before: dict[str, set[str]], after: dict[str, set[str]]) -> dict[str, list[str]]:
    return {kind: sorted(after[kind] - before[kind]) for kind in before}
