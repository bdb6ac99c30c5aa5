"""Counts the tasks that run at the same time, from what the probes recorded."""

from __future__ import annotations

from executor_conformance.harness.probes import Probe
from executor_conformance.verdicts import expect


def is_running(probe: Probe) -> bool:
    """Whether the task has started and not ended."""
    return probe.started and not probe.finished


def most_at_once(probes: list[Probe]) -> int:
    """The largest number of runs that overlapped."""
    changes = []
    for probe in probes:
        for run in probe.runs:
            if run.finished_ns is not None:
                changes += [(run.started_ns, 1), (run.finished_ns, -1)]
    now = most = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def expect_at_most(parallelism: int, count: int) -> None:
    """Check that ``count`` tasks running at the same time are not too many."""
    tasks = "task" if parallelism == 1 else "tasks"
    expect(
        count <= parallelism,
        expected=f"at most {parallelism} {tasks} at a time",
        actual=f"{count} tasks ran at the same time",
    )
