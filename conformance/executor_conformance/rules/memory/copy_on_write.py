"""Memory that forked processes share with the host: garbage collection must not copy it."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from executor_conformance.harness.linux import monotonic
from executor_conformance.harness.memory import (
    BALLAST,
    MB,
    ballast,
    has_room_for,
    held_outside_host,
    private_bytes,
)
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Observation
from executor_conformance.rules import must
from executor_conformance.verdicts import NotApplicable, expect

_GROWTH_ALLOWED, _SHARE_ALLOWED = 20 * MB, 0.15
#: On a free-threaded build ``gc.freeze()`` itself writes to every object; otherwise it moves lists.
_FREEZING_WRITES = "t" in sys.abiflags
#: How many times two tasks collect garbage, and how many pairs of tasks run before the last time.
_COLLECTIONS, _PAIRS_BEFORE_THE_LAST = 3, 15
_KIB = 1024


@must(needs=(Observation.LOCAL_PROCESSES,), after=("shutdown.end-leaves-no-worker",), turn="alone")
def copy_on_write_survives_garbage_collection(trial: Trial) -> None:
    """With 150 MB of objects that the garbage collector tracks in the host before ``start()``, a collection
    makes no worker or task grow by 20 MB, or by 15 % of those objects, whichever is less.  The executor's
    processes may share one copy on a free-threaded build, where ``gc.freeze()`` itself writes to every
    object.

    Why: a garbage collection writes to every object that it visits, and a page that is written to is no
    longer shared.  Each forked process ends up with its own copy of the host's memory.
    Likely causes: no ``gc.freeze()`` between the fork and the first collection; workers are forked late, from
    a host that has grown.
    Origin: apache/airflow#58365; apache/airflow discussion 58143 (20-30 MB became over 100 MB per worker).
    """
    if not has_room_for(BALLAST):
        raise NotApplicable(
            f"not enough free memory for {BALLAST // MB} MB in the scheduler process and in each worker"
        )
    # A collection copies pages that the host shares with the suite's own processes, so one comes before
    # anything is measured.  It has to visit frozen objects too, because the executor may unfreeze them.
    gc.unfreeze()
    gc.collect()
    small = _memory_after_collecting(trial)
    before = private_bytes() or 0
    held = ballast(BALLAST)
    size = (private_bytes() or 0) - before
    large = _memory_after_collecting(trial)
    del held
    trial.measurements.update(
        ballast_bytes=size,
        without_bytes=small.private,
        with_bytes=large.private,
        shared_without_bytes=small.shared,
        shared_with_bytes=large.shared,
    )
    growth = max(large.private) - max(small.private)
    allowed = min(_GROWTH_ALLOWED, int(_SHARE_ALLOWED * size))
    expect(
        growth < allowed,
        expected=f"each process to grow by less than {allowed / MB:.1f} MB when the scheduler process holds "
        f"{size / MB:.0f} MB more",
        actual=f"{growth / MB:.1f} MB: {max(large.private) / MB:.1f} MB private after garbage collection, "
        f"and {max(small.private) / MB:.1f} MB with a small scheduler process",
    )
    shared = large.shared - small.shared
    expect(
        shared < allowed or _FREEZING_WRITES,
        expected="the memory that the executor's processes share with each other, but not with the scheduler "
        f"process, to grow by less than {allowed / MB:.1f} MB when the scheduler process holds "
        f"{size / MB:.0f} MB more",
        actual=f"{shared / MB:.1f} MB",
    )


@dataclass
class _CopiedMemory:
    """What the processes of an executor hold after all of them have collected garbage.

    :param private: bytes of each process, whether a task or a process that stays.
    :param shared: the most bytes that several of them held and the host did not; a copy that two of them
        share is private to neither.
    """

    private: list[int] = field(default_factory=list)
    shared: int = 0

    def measure(self, trial: Trial) -> None:
        # A process that may not be read is only measured by its own tasks.
        found = [private_bytes(process.pid) for process in trial.host.processes()]
        sizes = [size for size in found if size is not None]
        self.private += sizes
        self.shared = max(self.shared, held_outside_host(trial.host.pid, trial.host.relatives()) - sum(sizes))


def _memory_after_collecting(trial: Trial) -> _CopiedMemory:
    """What the processes of a new executor hold after tasks, some of which collect garbage."""
    subject = trial.started(parallelism=2, slots=2)
    copied = _CopiedMemory()
    with _no_collection_in_host():
        for number in range(_COLLECTIONS):
            if number == _COLLECTIONS - 1:
                # Whatever the executor does only after several tasks has happened by then.
                _run_pairs(subject, _PAIRS_BEFORE_THE_LAST)
            gate = trial.gate()
            probes = trial.probes(2, "collect", gate.step)
            subject.submit(*probes)
            subject.require(
                lambda: all(probe.started and probe.runs[0].notes for probe in probes),  # noqa: B023
                expected="two tasks to collect garbage",
                actual=lambda: subject.describe(probes),  # noqa: B023
                stalled=True,
            )
            copied.private += [_KIB * int(probe.runs[0].notes[0]) for probe in probes]
            copied.measure(trial)
            gate.open()
            subject.await_terminal(*probes)
            subject.quiet()
            copied.measure(trial)
    subject.end()
    subject.drain_all()
    return copied


def _run_pairs(subject: Subject, count: int) -> None:
    """Run two tasks at a time, ``count`` times, or fewer if they are slow."""
    deadline = monotonic() + subject.trial.budgets.arrival_s
    for _ in range(count):
        subject.run(*subject.trial.probes(2))
        if monotonic() > deadline:
            return


@contextlib.contextmanager
def _no_collection_in_host() -> Iterator[None]:
    """The host does not collect garbage, so that only the other processes cause copies."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
