"""The host runs in an environment that few developers have: a daemon, a container, a service."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from executor_conformance.contract import FAILED, SUCCESS
from executor_conformance.harness.linux import become_first_process
from executor_conformance.harness.trial import Trial
from executor_conformance.rules import must, should
from executor_conformance.verdicts import NotApplicable, expect


def _expect_to_work(trial: Trial, where: str) -> None:
    """Run tasks that succeed and tasks that fail, and end the executor.

    :param where: describes the host, for the messages.
    """
    subject = trial.started(parallelism=2, slots=1)
    good, bad = trial.probes(3), trial.probes(2, "raise=on purpose")
    subject.submit(*good, *bad)
    subject.await_terminal(*good, *bad)
    for probe in good:
        subject.expect_outcome(probe, SUCCESS, f"a task {where}")
    for probe in bad:
        subject.expect_outcome(probe, FAILED, f"a task that raised {where}")
    subject.end()


class _OnlyWrites:
    """A stream that an application has put in the place of ``sys.stdout``."""

    def write(self, text: str) -> int:
        return len(text)


@must()
def works_with_replaced_standard_streams(trial: Trial) -> None:
    """Tasks run in a host whose ``sys.stdin``, ``sys.stdout`` and ``sys.stderr`` are not files: objects
    without ``fileno()`` or ``flush()``, or ``None``.

    Why: test runners, notebooks and services replace these objects; ``pythonw`` and daemons have none.
    Likely causes: ``sys.stdout.flush()`` before a fork or in the child; a child that redirects
    ``sys.stdout.fileno()``; the error ends the worker before it has reported anything.
    Origin: joblib/joblib#856 (None in a service); girder/girder_worker#60; joblib/loky#180.
    """
    replacements: tuple[tuple[Callable[[], object], Callable[[], object]], ...] = (
        (io.StringIO, io.StringIO),
        (io.StringIO, _OnlyWrites),
        (lambda: None, lambda: None),
    )
    for make_input, make_output in replacements:
        kept = sys.stdin, sys.stdout, sys.stderr
        sys.stdin, sys.stdout, sys.stderr = make_input(), make_output(), make_output()
        what = type(sys.stdout).__name__.strip("_")
        try:
            _expect_to_work(trial, f"of a scheduler process whose sys.stdout is of type {what}")
        finally:
            sys.stdin, sys.stdout, sys.stderr = kept


@should(after=("lifecycle.host-file-descriptors-stay-open", "faults.works-with-replaced-standard-streams"))
def works_with_closed_standard_streams(trial: Trial) -> None:
    """Tasks run in a host whose file descriptors 0, 1 and 2 are closed.

    Why: a daemon closes them, and the next files that the host opens get these numbers.
    Likely causes: a pipe of the executor has the number of a standard stream, and the child redirects or
    closes it; descriptors above 2 are taken for the executor's, and lower ones are not.
    Origin: getdango/dango#339 (a log file gets descriptor 0, and the child crashes); Anantys-oss/koan#273;
    python/cpython#5689 (subprocess mixes up low descriptors).
    """

    def judge() -> None:
        for number in (0, 1, 2):
            with contextlib.suppress(OSError):
                os.close(number)
        sys.stdin = sys.stdout = sys.stderr = None
        _expect_to_work(trial, "of a scheduler process with closed standard streams")

    trial.host.in_another_host(judge)


@should()
def works_where_sigchld_is_ignored(trial: Trial) -> None:
    """In a host that ignores SIGCHLD, no failed task is reported as a success, each task has a terminal
    event, and no call raises.

    Why: the setting is inherited, for example from a shell that ran ``trap '' CHLD`` or from an old init
    system.
    Likely causes: the kernel discards the exit status of a child, so ``waitpid()`` fails with
    ChildProcessError; ``subprocess`` then reports 0, a success.
    Origin: enricai/leerie#58 (a setting that was inherited makes an exit status 255); php/php-src#11871;
    containers/bubblewrap#705 (it waits forever).
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    subject = trial.started(parallelism=2, slots=1)
    good, bad = trial.probes(3), trial.probes(2, "raise=on purpose")
    subject.submit(*good, *bad)
    subject.await_terminal(*good, *bad)
    for probe in bad:
        subject.expect_outcome(
            probe, FAILED, "a task that raised in a scheduler process that ignores SIGCHLD"
        )
    subject.end()


@must(after=("lifecycle.host-file-descriptors-stay-open",))
def works_as_the_first_process_of_a_container(trial: Trial) -> None:
    """Tasks run in a host that is the first process, pid 1, of its pid namespace.

    Why: it is what a scheduler is in a container without an init process.
    Likely causes: a process whose parent has pid 1 takes itself for orphaned, and exits; a host with pid 1
    reaps every child as an orphan, its tasks among them.
    Origin: sgl-project/sglang#31361; spulec/PyQS#59 (both: the parent has pid 1, so the worker exits).
    """

    def judge() -> None:
        if not become_first_process():
            raise NotApplicable("the suite may not create a pid namespace here")
        _expect_to_work(trial, "of a scheduler process with pid 1")

    trial.host.in_another_host(judge)


@must(after=("parallelism.at-most-n-tasks-run-at-once",))
def a_clock_step_ends_no_task(trial: Trial) -> None:
    """When the system clock is set forward or back by two days, running tasks continue, queued tasks start,
    and all of them end with their own outcomes.

    Why: clocks are set by NTP, by administrators, and when a virtual machine is resumed.
    Likely causes: ``time.time()`` or ``datetime.now()`` for a timeout or a heartbeat, instead of
    ``time.monotonic()``; polling that is scheduled by the system clock.
    Origin: benoitc/gunicorn#1709; dask/distributed#8597 (timeouts that use the system clock).
    """
    import time_machine  # only here: it makes each later import of the suite slower

    for days, direction in ((2, "forward"), (-2, "back")):
        slots = trial.slots(2)
        subject = trial.started(slots)
        gate = trial.gate()
        held, queued = trial.probes(slots, gate.step), trial.probes(2)
        subject.submit(*held, *queued)
        subject.await_started(*held)
        with time_machine.travel(datetime.now(timezone.utc) + timedelta(days=days)):
            what = f"the clock was set {direction} by two days"
            subject.quiet()
            expect(
                not any(map(subject.outcome, [*held, *queued])),
                expected=f"no terminal event for running and queued tasks after {what}",
                actual=subject.describe([*held, *queued]),
            )
            gate.open()
            subject.await_terminal(*held, *queued)
            for probe in (*held, *queued):
                subject.expect_outcome(probe, SUCCESS, f"a task that was in flight when {what}")
            subject.end()
