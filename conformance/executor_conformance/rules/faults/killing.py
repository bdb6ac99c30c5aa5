"""Starts tasks and kills workers."""

from __future__ import annotations

import signal

from executor_conformance.harness import processes
from executor_conformance.harness.probes import Gate, Probe
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.harness.workers import workers_of
from executor_conformance.requirements import Capability


def start_two_tasks(trial: Trial, slots: int | None = 2) -> tuple[Subject, Gate, Probe, Probe]:
    """An executor with two slots and a task in each; the rule kills the worker of the first one.

    The first one is running before the second one is submitted, so its worker is always the older one.
    Whether a later worker is watched is for ``faults.a-later-worker-death-is-detected``.

    :param slots: as for :meth:`Trial.build`.
    :returns: the gate is that of the other task and, unless the executor reruns tasks, of both.
    """
    subject = trial.started(parallelism=2, slots=slots)
    gate = trial.gate()
    doomed, other = doomed_probe(trial, gate), trial.probe(gate.step)
    for probe in (doomed, other):
        subject.submit(probe)
        subject.await_started(probe)
    return subject, gate, doomed, other


def doomed_probe(trial: Trial, gate: Gate) -> Probe:
    """A task whose worker is going to be killed; if it may run again, it has a gate of its own."""
    return trial.probe((gate if trial.can(Capability.RUNS_ONCE) else trial.gate()).step)


def await_rerun(subject: Subject, killed: Probe) -> None:
    """Pump until this task of a killed worker runs again or is reported, if the executor runs it again.

    Only then may its gate open.  The killed run could end otherwise, before the executor has noticed.
    """
    if not subject.can(Capability.RUNS_ONCE):
        subject.trial.wait_for(
            lambda: subject.outcome(killed) or len(killed.runs) > 1, pump=subject.pump, patient=True
        )


def let_reruns_end(trial: Trial, *killed: Probe) -> None:
    """Let these tasks of killed workers end, if the executor runs them again."""
    if not trial.can(Capability.RUNS_ONCE):
        for gate in {gate for probe in killed for gate in probe.gates}:
            gate.open()


def kill_worker(trial: Trial, doomed: Probe, other: Probe, number: int = signal.SIGKILL) -> int:
    """Send this signal to the worker of ``doomed``; the pid of that worker."""
    worker = workers_of(trial, [doomed, other])[0]
    processes.kill(worker, number)
    return worker


def kill_new_process(trial: Trial, position: int, before: set[int]) -> None:
    """Kill the process that is created at this position, counted from 0, and is not one of ``before``."""
    created: list[int] = []
    while len(created) <= position:
        created += sorted({process.pid for process in trial.host.processes()} - before - set(created))
    processes.kill(created[position])
