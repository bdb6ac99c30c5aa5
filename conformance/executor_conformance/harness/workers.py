"""Finds the workers of an executor by the tasks that ran in them, not by their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from executor_conformance.harness import processes
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial_base import TrialBase
from executor_conformance.verdicts import NotApplicable, Stalled


def line_of(trial: TrialBase, pid: int) -> list[int]:
    """The process and its ancestors below the host.

    :raises NotApplicable: it is the host, or no descendant of it: not the rule's to kill.
    """
    if pid == trial.host.pid:
        raise NotApplicable("a task ran in the scheduler's own process (same pid)")
    line = []
    process = processes.look(pid)
    while process is not None and process.pid not in (trial.host.pid, trial.host.warden):
        if not process.is_interpreter_helper or process.parent != trial.host.pid:
            line.append(process.pid)
        if process.parent == 0:  # the first process: the host is not above it
            raise NotApplicable("tasks run in processes that are no descendants of the scheduler's")
        process = processes.look(process.parent)
    return line


def workers_of(trial: TrialBase, probes: Sequence[Probe]) -> list[int]:
    """The worker of each of these tasks, all of which are running.

    It is the topmost process above the task that has none of the other tasks below it: a process that
    several tasks share is a helper.

    :raises Stalled: the process of one of them has ended.
    """
    lines = [line_of(trial, probe.runs[0].pid) for probe in probes]
    if not all(lines):
        raise Stalled(
            expected="all tasks to be running", actual=f"the process of {probes[lines.index([])]} has ended"
        )
    workers = []
    for number, line in enumerate(lines):
        others = {pid for other in lines[:number] + lines[number + 1 :] for pid in other}
        own = [pid for pid in line if pid not in others]
        # Two tasks may share even their own process; then that is the worker.
        workers.append(own[-1] if own else line[0])
    return workers


def need_separate_processes(one: Probe, other: Probe) -> None:
    """Leave the rule if both tasks share a process, as coroutines do: a signal to it always hits both.

    :raises NotApplicable: they share one.
    """
    if one.runs[0].pid == other.runs[0].pid:
        raise NotApplicable("its tasks share one process (same pid)")


@dataclass(frozen=True)
class IdleProcesses:
    """Processes that took part in tasks, and stay when there are none.

    :param workers: ran tasks of their own.
    :param helpers: had several tasks below them at the same time.
    """

    workers: list[int]
    helpers: list[int]


def idle_processes(subject: Subject) -> IdleProcesses:
    """Run two tasks at once, then one more, and see which processes stay.

    Of workers that share a queue, one waits for the queue and the others for its lock.  The one that waits
    for the queue is last in the list.
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
