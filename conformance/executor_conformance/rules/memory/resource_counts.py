"""Counts the resources that are in use between tasks, and checks that the counts stop growing."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator, Sequence

from executor_conformance.harness import processes
from executor_conformance.harness.growth import keeps_growing
from executor_conformance.harness.host import SHARED_NAMES, isolate_shared_names, refuse_names_of_others
from executor_conformance.harness.linux import monotonic
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial_base import TrialBase
from executor_conformance.rules.memory.task_series import SERIES_BUDGET_ARRIVALS, run_tasks
from executor_conformance.verdicts import Inconclusive, expect

_TASKS_PER_STEP = 24
#: Growth per step that counts as a leak: one resource leaked in every sixteenth task is found.
_LEAK_PER_STEP = 1.5
#: Growth is checked in this many windows, as it is for memory, so a history of the last 100 tasks fills up.
_STEP_WINDOWS = 4
#: A temporary file that is closed and stays until ``end()`` brings no host near a limit.
_NOT_COUNTED = ("temporary file",)
#: Rules about processes that stay.  They explain no leak during which the number of processes did not grow.
_ABOUT_PROCESSES = ("shutdown.no-zombie-is-left", "faults.no-task-outlives-its-killed-worker")
#: Names of resources for messages.
_LABELS = {
    "process": "processes",
    "thread": "threads",
    "descriptor": "open descriptors",
    SHARED_NAMES: "names in /dev/shm",
    "mapped shared memory": "shared memory mappings",
    "descriptor of a worker": "open descriptors in workers",
    "thread of a worker": "threads in workers",
}


def _run_step(subject: Subject) -> None:
    run_tasks(subject, _TASKS_PER_STEP)


def expect_no_resource_leak(
    start: Callable[[], Subject],
    step: Callable[[Subject], None] = _run_step,
    what: str = f"every {_TASKS_PER_STEP} tasks",
) -> None:
    """Check that no resource count keeps growing.

    :param start: starts the executor.
    :param step: runs tasks, and drains their events; the resources are counted after each step.
    :param what: what each step does, for messages.
    """
    subject = start()
    counts = _ResourceCounts(subject, step)
    # Those that other programs may have created come last: they hide no other leak.
    for name in sorted(counts.names, key=lambda name: name == SHARED_NAMES):
        grows = counts.keep_growing(name)
        if grows and name == SHARED_NAMES:
            # Other programs have names there, too.  Count again in a private /dev/shm, or else twice more.
            alone = isolate_shared_names()
            if not alone:
                refuse_names_of_others()
            for _ in range(1 if alone else 2):
                counts = _ResourceCounts(start(), step)
                grows = grows and counts.keep_growing(name)
        series = subject.trial.measurements[name] = counts.series[name]
        expect(
            not grows,
            expected=f"the number of {_LABELS.get(name, name)} to stop growing",
            actual=f"it kept growing; after {what}, with no task running: {', '.join(map(str, series))}",
            unexplained_by=() if _grew(counts.series["process"]) else _ABOUT_PROCESSES,
        )


def _grew(series: Sequence[int]) -> bool:
    return series[-1] > series[0]


class _ResourceCounts:
    """How many resources of each kind are in use after each step, when no task is running.

    :param step: runs the tasks of one step, and drains their events.
    """

    def __init__(self, subject: Subject, step: Callable[[Subject], None]) -> None:
        self._subject = subject
        self._run_step = step
        self._deadline = monotonic() + SERIES_BUDGET_ARRIVALS * subject.trial.budgets.arrival_s
        self.series: dict[str, list[int]] = {}
        self._step()
        self.names = [name for name in self.series if name not in _NOT_COUNTED]

    def keep_growing(self, name: str) -> bool:
        """Whether the count of this resource grows without bound.

        :raises Inconclusive: it grew for as long as there was time.
        """
        grows = keeps_growing(
            self.series[name][:1],
            self._more(name),
            least=_LEAK_PER_STEP,
            windows=_STEP_WINDOWS,
            is_over=lambda: monotonic() > self._deadline,
        )
        if grows is None:
            raise Inconclusive(
                f"the number of {_LABELS.get(name, name)} grew, and there was no time to run more tasks"
            )
        return grows

    def _more(self, name: str) -> Iterator[int]:
        for number in itertools.count(1):
            while len(self.series[name]) <= number:
                self._step()
            yield self.series[name][number]

    def _step(self) -> None:
        self._run_step(self._subject)
        self._subject.quiet()
        gc.collect()
        trial = self._subject.trial
        for name, count in {**trial.host.resource_counts(), **_worker_resource_counts(trial)}.items():
            self.series.setdefault(name, []).append(count)


def _worker_resource_counts(trial: TrialBase) -> dict[str, int]:
    descriptors = threads = 0
    for process in trial.host.processes():
        try:
            descriptors += len(processes.open_descriptors(process.pid))
            threads += processes.thread_count(process.pid)
        except OSError:
            pass  # It has ended, or may not be read.
    return {"descriptor of a worker": descriptors, "thread of a worker": threads}
