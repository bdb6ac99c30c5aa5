"""The host runs out of file descriptors, processes or disk space."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from executor_conformance.contract import SUCCESS
from executor_conformance.harness import processes
from executor_conformance.harness.linux import obey_process_limits, private_disk
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.probes.steps import WAITING
from executor_conformance.rules import must, should
from executor_conformance.rules.faults.recovery import await_outcome, expect_capacity
from executor_conformance.verdicts import Inconclusive, NotApplicable, expect

#: ``select()`` takes descriptors below this number.
_FD_SETSIZE = 1024
#: The limit of open descriptors that leaves room for those of the executor.
_ROOM_FOR_DESCRIPTORS = 2048


@dataclass(frozen=True)
class Shortage:
    """Something that the host runs out of.

    :param what: a noun, for the messages.
    """

    what: str
    begin: Callable[[], None]
    relieve: Callable[[], None]


def _live_through_all(trial: Trial, shortage: Callable[[], Shortage]) -> None:
    """:func:`_live_through` a shortage twice: with all workers idle, and with one of them busy."""
    for busy in range(trial.slots_up_to(2)):
        begun = shortage()
        _live_through(trial, trial.started(2 + busy, slots=1), begun, busy)


def _live_through(trial: Trial, subject: Subject, shortage: Shortage, busy: int = 0) -> list[Exception]:
    """Submit tasks and pump during the shortage; the errors that the pumping raised.

    Each task is rejected, or has a terminal event when the shortage is over; then everything works as before.

    :param subject: has ``2 + busy`` slots.
    :param busy: how many tasks run all the time.  With one, a worker has to be started during the shortage,
        whether the executor starts one for each task or only if none is idle.
    """
    first = trial.probe()
    subject.run(first)  # so that what the executor creates for its first task exists
    if subject.outcome(first) != SUCCESS:
        raise NotApplicable(f"a task failed before the shortage began: {subject.info(first)!r:.160}")
    gate = trial.gate()
    running = trial.probes(busy, gate.waiting_step)
    subject.submit(*running)
    subject.await_started(*running)
    _await_waiting(trial, subject, running)
    probes = trial.probes(2 if running else 4)  # submit() may block if tasks that cannot end have all slots
    errors = []

    def pump() -> None:
        error = subject.rejection(subject.pump)
        if error is not None:
            errors.append(error)

    shortage.begin()
    try:
        rejections = [subject.rejection(lambda: subject.submit(probe)) for probe in probes]  # noqa: B023
        # Long enough for the tasks to meet the shortage too, if they start at all.
        trial.wait_for(
            lambda: all(subject.outcome(probe) for probe in probes),
            pump=pump,
            budget_s=4 * trial.budgets.quiet_s,
        )
    finally:
        shortage.relieve()
    gate.open()
    was_running = f"a task that was running during a shortage of {shortage.what}"
    for probe in running:
        await_outcome(subject, probe, was_running)
        subject.expect_outcome(probe, SUCCESS, was_running)
    accepted = [probe for probe, rejection in zip(probes, rejections, strict=True) if rejection is None]
    for probe in accepted:
        await_outcome(subject, probe, f"a task that was accepted during a shortage of {shortage.what}")
    expect_capacity(trial, subject, 2 + busy, f"after a shortage of {shortage.what}")
    for probe in probes:
        expect(
            len(probe.runs) <= (probe in accepted),
            expected="accepted tasks to run at most once, and rejected tasks never",
            actual=f"{subject.describe([probe])}; it was {'accepted' if probe in accepted else 'rejected'}",
        )
    return errors


def _await_waiting(trial: Trial, subject: Subject, running: Sequence[Probe]) -> None:
    """Wait until the probes have opened what they need: the shortage must not hit the suite's own code."""
    if not trial.wait_for(
        lambda: all(WAITING in probe.runs[0].notes for probe in running), pump=subject.pump, patient=True
    ):
        raise Inconclusive(f"a task does not get as far as its gate: {subject.describe(running)}")


def no_descriptors(free: int = 0) -> Shortage:
    """A shortage of file descriptors.

    :param free: how many are left.
    """
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []

    def begin() -> None:
        highest = max(processes.open_descriptors()) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(highest, 64), limits[1]))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for _ in range(min(free, len(taken))):
            os.close(taken.pop())

    def relieve() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in taken:
            os.close(descriptor)

    return Shortage("file descriptors", begin, relieve)


def no_processes(trial: Trial, free: int = 0) -> Shortage:
    """A shortage of processes.

    Call this before the executor is started: its processes inherit the limit.  Other processes use it up, so
    the shortage ends for those that were started meanwhile, too.

    :param free: how many are left.
    """
    if not obey_process_limits():
        raise NotApplicable("the suite runs as root, and cannot drop root's exemption from the process limit")
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    resource.setrlimit(resource.RLIMIT_NPROC, (processes.threads_of_user(os.getuid()) + 24, hard))
    fillers: list[int] = []

    def begin() -> None:
        with contextlib.suppress(OSError):
            while True:
                fillers.append(trial.host.meanwhile(signal.pause))
        for _ in range(min(free, len(fillers))):
            trial.host.kill_own(fillers.pop())

    def relieve() -> None:
        for pid in fillers:
            trial.host.kill_own(pid)

    return Shortage("processes", begin, relieve)


@should()
def works_with_file_descriptors_above_1024(trial: Trial) -> None:
    """An executor works in a host that has more than a thousand file descriptors open.

    Why: a large scheduler has that many connections and log files, and where the limit allows it, the next
    descriptor has a number above 1,024.
    Likely causes: ``select.select()``, which rejects such numbers; a table of descriptors with a fixed size.
    Origin: noxdafox/pebble#48; facebookincubator/submitit#1687 (filedescriptor out of range in select()).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _ROOM_FOR_DESCRIPTORS:
        raise NotApplicable(f"a process may open at most {hard} file descriptors here")
    if soft != resource.RLIM_INFINITY and soft < _ROOM_FOR_DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (_ROOM_FOR_DESCRIPTORS, hard))
    while os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) < _FD_SETSIZE:
        pass  # never closed: this process ends with the rule
    subject = trial.started(parallelism=2, slots=1)
    good, bad = trial.probes(3), trial.probe("raise=on purpose")
    subject.run(*good, bad)
    for probe in good:
        subject.expect_outcome(
            probe, SUCCESS, "a task of a scheduler process with over 1,024 open file descriptors"
        )
    subject.end()


@must(after=("faults.sync-survives-a-worker-death",))
def survives_file_descriptor_exhaustion(trial: Trial) -> None:
    """While the host has no file descriptors left, each task is rejected or gets a terminal event.
    Afterwards the executor works as before.

    Why: another part of the scheduler leaks descriptors, and the error hits whatever opens the next one.
    Likely causes: a slot is taken before the worker is created, and never released; a task is started that
    cannot be watched; the error propagates out of ``sync()``.
    Origin: apache/airflow#28328; apache/airflow#56641.
    """
    _live_through_all(trial, no_descriptors)


@must(
    after=(
        "faults.sync-survives-a-worker-death",
        "faults.a-killed-worker-fails-its-task",
        "faults.other-tasks-survive-a-worker-death",
        "faults.capacity-is-restored-after-worker-deaths",
        "faults.survives-the-death-of-all-workers",
        "faults.submit-survives-a-worker-death",
        "states.a-result-belongs-to-its-task",
    ),
    turn="alone",
)
def survives_process_exhaustion(trial: Trial) -> None:
    """While no new process can be created, each task is rejected or gets a terminal event.  Afterwards the
    executor works as before.

    Why: other processes of the same container or user can use up the limit.
    Likely causes: the error of ``fork()`` propagates out of ``sync()``; the task was removed from the queue
    before ``fork()`` failed; the slot stays taken.
    Origin: apache/airflow#28328; apache/airflow#1157.
    """
    _live_through_all(trial, lambda: no_processes(trial))


@should(
    after=(
        "faults.sync-survives-a-worker-death",
        "faults.survives-file-descriptor-exhaustion",
        "faults.survives-process-exhaustion",
    ),
    turn="alone",
)
def sync_survives_resource_exhaustion(trial: Trial) -> None:
    """While file descriptors or processes are exhausted, ``heartbeat()`` and ``sync()`` do not raise.

    Why: the scheduler calls them unguarded; the shortage passes, but the scheduler has exited.
    Likely causes: an unhandled error of ``fork()`` or ``open()`` while a task is started; a worker is
    replaced while results are collected.
    Origin: apache/airflow#28328; apache/airflow#32045 (an error that stops the scheduler).
    """
    subject = trial.started(parallelism=2, slots=1)
    errors = _live_through(trial, subject, no_descriptors())
    with contextlib.suppress(NotApplicable):
        shortage = no_processes(trial)
        errors += _live_through(trial, trial.started(parallelism=2, slots=1), shortage)
    expect(
        not errors,
        expected=f"{trial.target.adapter.name_of(subject.driver.pump_call)} not to raise during a shortage",
        actual=f"it raised {len(errors)} times, such as {errors[:1]!r:.300}",
    )


@must(after=("faults.sync-survives-a-worker-death",))
def survives_a_full_disk(trial: Trial) -> None:
    """While the disk for temporary files is full, each task is rejected or gets a terminal event.  Afterwards
    the executor works as before.

    Why: sooner or later, logs fill a disk.
    Likely causes: results are passed in files, and the executor waits for one that was never written; a log
    cannot be opened.
    Origin: apache/airflow#69975; apache/airflow#55004 (a lost event).
    """
    directory = tempfile.gettempdir()
    if not private_disk(directory, 1 << 16):
        raise NotApplicable("the suite may not mount a small file system here to fill it")
    subject = trial.started(parallelism=2, slots=1)
    filler = os.path.join(directory, "filler")

    def fill() -> None:
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(b"f" * 4096)

    _live_through(trial, subject, Shortage("disk space", fill, lambda: os.unlink(filler)))
