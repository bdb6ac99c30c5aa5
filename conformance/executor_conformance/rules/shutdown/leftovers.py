"""What an executor may leave after ``end()`` or ``terminate()``: processes, and events in its buffer."""

from __future__ import annotations

from executor_conformance.contract import SUCCESS
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.processes import Process
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.verdicts import expect

#: Processes count as gone after this many scans in a row that found none.
_CLEAN_SCANS = 4
_MAX_DESCRIBED = 4


def living_processes(trial: Trial) -> list[Process]:
    """The executor's processes that are not zombies."""
    return [process for process in trial.host.processes() if not process.is_zombie]


def describe_living(trial: Trial) -> str:
    """The executor's living processes, for messages."""
    living = living_processes(trial)
    return f"{len(living)} still alive: {describe_processes(living)}"


def describe_processes(processes: list[Process]) -> str:
    """The first few of these processes, for messages."""
    return "; ".join(map(str, processes[:_MAX_DESCRIBED]))


def expect_workers_gone(trial: Trial, after: str) -> None:
    """Every process of the executor must exit soon, unless workers are not its own to stop.

    :param after: the call that has stopped the executor, for the message.
    """
    if not trial.can(Capability.OWN_WORKERS):
        return
    known: set[int] = set()
    clean_scans = 0

    def are_gone() -> bool:
        # One scan can miss a process whose parent exits during the scan.  Processes that respawn so fast that
        # every scan misses them are noticed by their zombies.
        nonlocal clean_scans
        found = trial.host.processes()
        new = {process.pid for process in found} - known
        known.update(new)
        alive = any(not process.is_zombie for process in found)
        clean_scans = 0 if alive or (new and clean_scans) else clean_scans + 1
        return clean_scans >= _CLEAN_SCANS

    trial.require(
        are_gone,
        expected=f"every worker to be gone after {after}",
        actual=lambda: describe_living(trial),
    )


def expect_finished(trial: Trial, subject: Subject, probes: list[Probe], expected: str) -> None:
    """Each of these tasks must have finished now that ``end()`` has returned.

    Workers that are not the executor's own may finish them later, but then they have to be reported, too.
    """
    own = trial.can(Capability.OWN_WORKERS)
    if not own:
        trial.wait_for(
            lambda: all(probe.finished and subject.outcome(probe) for probe in probes),
            pump=lambda: pump_stopped(subject),
            patient=True,
        )
    unfinished = [probe for probe in probes if not probe.finished]
    expect(
        not unfinished,
        expected=expected,
        actual=f"{len(unfinished)} did not; {subject.describe(unfinished)}",
    )
    for probe in [] if own else probes:
        subject.expect_outcome(probe, SUCCESS, "a task that ended after the executor had been stopped")


def pump_stopped(subject: Subject) -> None:
    """Drain the event buffer of a stopped executor, which may refuse ``heartbeat()`` and ``sync()``."""
    subject.rejection(subject.beat)
    subject.drain()


def drain_remaining_events(trial: Trial, subject: Subject, probes: list[Probe]) -> None:
    """Drain the event buffer of a stopped executor until it has reported these tasks, or for a short while.

    The events need not all come at once.  Workers that are not the executor's own may still run the tasks.
    """
    own = trial.can(Capability.OWN_WORKERS)
    trial.wait_for(
        lambda: all(subject.outcome(probe) for probe in probes),
        pump=subject.drain if own else lambda: pump_stopped(subject),
        budget_s=trial.budgets.quiet_s * 4 if own else None,
    )
