"""Runs tasks and measures the executor between them, to find out whether the measure stops growing."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial

from executor_conformance.contract import TaskKey
from executor_conformance.harness.growth import keeps_growing
from executor_conformance.harness.linux import monotonic, monotonic_ns
from executor_conformance.harness.memory import MB, footprint
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.subject import Subject
from executor_conformance.probes.steps import collection_is_enabled
from executor_conformance.requirements import Capability
from executor_conformance.verdicts import Inconclusive, expect

#: Time for one series of samples, in arrival budgets.
SERIES_BUDGET_ARRIVALS = 8

#: Bytes per task that count as a leak.  This finds 4 KiB in each task, and 16 KiB in every fifth task.
_LEAK_PER_TASK = 3_000
#: Bytes in total that are never a leak.
_NOISE = 256 * 1024
#: Between two samples, as many tasks run as this time allows, within these limits.
_SECONDS_PER_SAMPLE = 1.0
_FEWEST_TASKS_PER_SAMPLE, _MOST_TASKS_PER_SAMPLE = 25, 30
#: Growth is checked in this many windows, each as long as all before it together.  If the executor is fast,
#: they take over 1,400 tasks: a history of 1,000 tasks is full before the second half of the last window.
_WINDOWS = 5
#: A sample is taken once the measure is stable, or after this many readings.
_MOST_READINGS = 10
_BATCH = 12
_PADDING = "x" * 16_384


def run_tasks(subject: Subject, count: int) -> None:
    """Run tasks, submitted in every way that the executor offers, and forget them."""
    ways = list(subject.ways.values())
    for first in range(0, count, _BATCH):
        numbers = range(first, min(first + _BATCH, count))
        tasks = [_task(subject, number) for number in numbers]
        for number, task in zip(numbers, tasks, strict=True):
            ways[number // 2 % len(ways)](task)  # Two tasks in each way, one of which fails.
        subject.await_terminal(*tasks)
        if subject.can(Capability.EVENT_FILTER):
            for task in tasks:
                subject.drain([task.key.dag_id])
    subject.drain_all()
    subject.forget()


def _task(subject: Subject, number: int) -> Probe:
    """A task with a long command and, if results are returned, a long result; every second task fails."""
    key = TaskKey(
        "dag", f"task-{number % 4}", f"run-{monotonic_ns()}-{number}", 1 + number % 2, number % 5 - 1
    )
    steps = [f"pad={number:06}{_PADDING}"]  # A new string for each task, so that keeping it takes memory.
    if number % 2:
        steps.append("raise=on purpose")
    elif subject.can(Capability.RESULTS):
        steps.append(f"return={len(_PADDING)}")
    return subject.trial.probe(*steps, key=key)


class TaskSeries:
    """Samples of a measure of one executor, taken every few tasks, when no task is running.

    :param measure: bytes, or a count.
    :param jitter: by how much two readings at rest may differ.
    :param before_sample: called before each sample.
    """

    def __init__(
        self,
        subject: Subject,
        measure: Callable[[], int],
        jitter: int,
        before_sample: Callable[[], None] = lambda: None,
    ) -> None:
        self._subject = subject
        self._before_sample = before_sample
        self._measure = measure
        self._jitter = jitter
        self._deadline = monotonic() + SERIES_BUDGET_ARRIVALS * subject.trial.budgets.arrival_s
        run_tasks(self._subject, _FEWEST_TASKS_PER_SAMPLE)
        began = monotonic()
        run_tasks(self._subject, _FEWEST_TASKS_PER_SAMPLE)
        rate = _FEWEST_TASKS_PER_SAMPLE / (monotonic() - began)
        affordable = int(rate * _SECONDS_PER_SAMPLE)
        self._tasks_per_sample = min(max(affordable, _FEWEST_TASKS_PER_SAMPLE), _MOST_TASKS_PER_SAMPLE)
        self.samples = [self._stable()]

    def keeps_growing(self, leak_per_task: float, noise: int) -> bool:
        """Whether the measure grows without bound.

        :param leak_per_task: the least growth per task that is a leak.
        :param noise: growth over three samples that is never a leak.
        :raises Inconclusive: it grew for as long as there was time.
        """
        grows = keeps_growing(
            self.samples,
            self._more(),
            least=max(leak_per_task * self._tasks_per_sample, noise / 3),
            windows=_WINDOWS,
            is_over=lambda: monotonic() > self._deadline,
        )
        if grows is None:
            raise Inconclusive(f"memory grew over {self.tasks} tasks, and there was no time to run more")
        return grows

    def _more(self) -> Iterator[int]:
        while True:
            run_tasks(self._subject, self._tasks_per_sample)
            yield self._stable()

    def _stable(self) -> int:
        """The measure, once it is stable: processes that are starting or ending do not count as growth."""
        self._before_sample()
        before = self._measure()
        for _ in range(_MOST_READINGS):
            self._subject.quiet()
            now = self._measure()
            if abs(now - before) <= self._jitter:
                break
            before = now
        return now

    @property
    def tasks(self) -> int:
        """How many tasks ran between the first and the last sample."""
        return (len(self.samples) - 1) * self._tasks_per_sample

    @property
    def growth_per_task(self) -> float:
        """The mean growth per task from the first to the last sample."""
        return (self.samples[-1] - self.samples[0]) / max(self.tasks, 1)


def measure_of_host_memory() -> Callable[[], int]:
    """A function that measures the bytes that this process, the host, holds.

    Create it before the executor starts: it remembers whether garbage collection was enabled.
    """
    collects = collection_is_enabled()

    def measure() -> int:
        # If the executor has disabled garbage collection, its garbage counts as growth.
        if collection_is_enabled() or not collects:
            gc.collect()
        found = footprint()
        assert found is not None, "a process can read itself"
        return found.anonymous + found.shared_memory

    return measure


def expect_memory_stops_growing(
    start: Callable[[], Subject],
    whose: str,
    measure: Callable[[], int],
    collect_garbage: Callable[[Subject], None] | None = None,
) -> None:
    """Check that tasks do not leak memory.

    :param start: starts the executor.
    :param whose: whose memory ``measure`` returns, for messages.
    :param collect_garbage: collects the garbage of what is measured.  If the memory grows, it is measured
        again with a collection before each sample: garbage that a collector has yet to find is no leak.
    """
    subject = start()
    trial = subject.trial
    series = TaskSeries(subject, measure, jitter=_NOISE // 4)
    grows = series.keeps_growing(_LEAK_PER_TASK, _NOISE)
    if grows and collect_garbage is not None:
        trial.measurements["bytes_with_garbage"] = series.samples
        series = TaskSeries(subject, measure, _NOISE // 4, partial(collect_garbage, subject))
        grows = series.keeps_growing(_LEAK_PER_TASK, _NOISE)
    trial.measurements["bytes"] = series.samples
    trial.measurements["bytes_a_task"] = round(series.growth_per_task)
    expect(
        not grows,
        expected=f"the memory of {whose} to stop growing",
        actual=f"it grew by {series.growth_per_task / 1e3:.1f} KB per task, up to the last of {series.tasks} "
        "tasks: " + ", ".join(f"{sample / MB:.1f}" for sample in series.samples) + " MB",
    )
