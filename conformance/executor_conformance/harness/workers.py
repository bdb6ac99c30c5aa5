"""Finds the workers of an executor: by the tasks that were seen to run in them, not by their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from executor_conformance.harness import processes
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.trial import Subject, Trial
from executor_conformance.verdicts import NotApplicable


def line_of(trial: Trial, pid: int) -> list[int]:
    """The process and its ancestors below the host.

    :raises NotApplicable: it is the host, or was made by somebody else: not the rule's to kill.
    """
    if pid == trial.host:
        raise NotApplicable("a task ran in the host's own process, as was seen by its pid")
    line = []
    process = processes.look(pid)
    while process is not None and process.pid not in (trial.host, trial.warden):
        if not process.is_interpreter_helper or process.parent != trial.host:
            line.append(process.pid)
        if process.parent == 0:  # the first of all, past the host
            raise NotApplicable("its tasks run in processes that were there before the host")
        process = processes.look(process.parent)
    return line


def workers_of(trial: Trial, probes: Sequence[Probe]) -> list[int]:
    """The worker of each of these tasks, which all run now.

    It is the topmost process above the task that has none of the other tasks below it: what several tasks
    have in common is a helper.
    """
    lines = [line_of(trial, probe.runs[0].pid) for probe in probes]
    workers = []
    for number, line in enumerate(lines):
        others = {pid for other in lines[:number] + lines[number + 1 :] for pid in other}
        own = [pid for pid in line if pid not in others]
        # Where two tasks share even their own process, that is all there is to see.
        workers.append(own[-1] if own else line[0])
    return workers


@dataclass(frozen=True)
class IdleProcesses:
    """Processes that have had a part in tasks, and stay when there are none.

    :param workers: have run tasks of their own.
    :param helpers: had several tasks below them at once.
    """

    workers: list[int]
    helpers: list[int]


def idle_processes(subject: Subject) -> IdleProcesses:
    """Let two tasks run at once, and one more, and look at what stays.

    Of workers that share a queue, one waits for the queue and the others for its lock; the one that waits for
    the queue comes last.
    """
    trial = subject.trial
    gate = trial.gate()
    pair = trial.probes(2, gate.step)
    subject.submit(*pair)
    subject.await_started(*pair)
    lines = [set(line_of(trial, probe.runs[0].pid)) for probe in pair]
    gate.open()
    subject.await_terminal(*pair)
    second_gate = trial.gate()
    alone = trial.probe(second_gate.step)
    subject.submit(alone)
    subject.await_started(alone)
    last = set(line_of(trial, alone.runs[0].pid))
    second_gate.open()
    subject.await_terminal(alone)
    subject.quiet()
    helpers = lines[0] & lines[1]
    workers = sorted((set.union(*lines, last) - helpers), key=lambda pid: (pid in last, pid))
    return IdleProcesses(
        workers=[pid for pid in workers if processes.is_alive(pid)],
        helpers=[pid for pid in sorted(helpers) if processes.is_alive(pid)],
    )
