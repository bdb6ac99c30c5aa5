"""The argument ``parallelism``: which values are accepted, and how others are rejected."""

from __future__ import annotations

import resource
import threading
from typing import Any

from executor_conformance.contract import SUCCESS
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability, Observation
from executor_conformance.rules import must, should
from executor_conformance.verdicts import expect


def _try_to_start(trial: Trial, value: Any) -> tuple[Exception | None, Subject | None]:
    """Build and start an executor with ``value``.

    :returns: the error that rejected the value, or else the started executor.
    """
    subject: Subject | None = None

    def build_and_start() -> None:
        nonlocal subject
        subject = trial.build(parallelism=value)
        subject.start()

    rejection = Subject.rejection(subject, build_and_start)  # type: ignore[arg-type]
    if rejection is not None:
        started = [process for process in trial.host.processes() if not process.is_zombie]
        expect(
            not (started and trial.can(Capability.OWN_WORKERS)),
            expected=f"parallelism={value!r} to be rejected before any process is started",
            actual=f"rejected with {rejection!r}, but by then {len(started)} "
            f"{'process' if len(started) == 1 else 'processes'} had been started",
        )
        return rejection, None
    return None, subject


def _expect_rejected(trial: Trial, value: Any) -> Exception:
    rejection, subject = _try_to_start(trial, value)
    if rejection is None:
        assert subject is not None
        expect(
            False,
            expected=f"parallelism={value!r} to be rejected with an error before anything is started",
            actual="it was accepted; " + _describe_first_task(trial, subject),
        )
    assert rejection is not None
    return rejection


def _describe_first_task(trial: Trial, subject: Subject) -> str:
    """Run one task, and say how that went."""
    probe = trial.probe()

    def submit_and_wait() -> None:
        subject.submit(probe)
        trial.wait_for(
            lambda: subject.outcome(probe), pump=subject.pump, budget_s=trial.budgets.arrival_s / 4
        )

    rejection = subject.rejection(submit_and_wait)
    if rejection is not None:
        return f"running a task afterwards raised {type(rejection).__name__}: {rejection}"
    if subject.outcome(probe):
        return f"a task submitted afterwards was reported as {subject.outcome(probe)!r}"
    return "a task submitted afterwards " + (
        "started but got no terminal event" if probe.started else "never started"
    )


@must(needs=(Capability.CHOSEN_PARALLELISM,))
def negative_is_rejected(trial: Trial) -> None:
    """A negative parallelism is rejected with an error before any process is started.

    Why: ``range(-1)`` starts no worker, and every task waits forever without an error.
    Likely causes: the value is only compared with 0; the value is passed to ``range()`` unchecked.
    Origin: apache/airflow#2658; apache/airflow#22711; apache/airflow#57495; apache/airflow#41055.
    """
    for value in (-1, -5):
        _expect_rejected(trial, value)


@must(needs=(Capability.CHOSEN_PARALLELISM,))
def zero_is_rejected_or_unlimited(trial: Trial) -> None:
    """Parallelism 0 is either rejected with an error or means unlimited; tasks never stall.

    Why: both meanings are in use, but no user wants an executor that accepts 0 and then runs nothing.
    Likely causes: ``range(0)`` starts no worker; 0 is treated as false and replaced by a default.
    Origin: apache/airflow#2658; apache/airflow#57495.
    """
    rejection, subject = _try_to_start(trial, 0)
    if rejection is not None:
        return
    assert subject is not None
    gate = trial.gate()
    probes = trial.probes(8, gate.step)
    subject.submit(*probes)
    subject.require(
        lambda: all(probe.started for probe in probes),
        expected="parallelism=0, which was accepted, to run 8 tasks at the same time",
        actual=lambda: f"{sum(probe.started for probe in probes)} running",
    )


@must(needs=(Capability.CHOSEN_PARALLELISM,))
def nan_is_rejected(trial: Trial) -> None:
    """NaN as parallelism is rejected with an error before any process is started.

    Why: computed configurations can yield NaN.  Every comparison with NaN is false, so range checks let it
    pass.
    Likely causes: the only check is ``value < 1``; the type is not checked.
    Origin: the contract: an invalid value is rejected before anything is started.
    """
    _expect_rejected(trial, float("nan"))


@should(needs=(Capability.CHOSEN_PARALLELISM,))
def true_is_rejected(trial: Trial) -> None:
    """``True`` as parallelism is rejected with an error.

    Why: Python accepts ``True`` as an int, but in a configuration it is always a mistake.
    Likely causes: ``isinstance(value, int)`` is also true for bool; the value is only compared with a number.
    Origin: Airflow's LocalExecutor treats True as one worker.
    """
    _expect_rejected(trial, True)


@should(needs=(Capability.CHOSEN_PARALLELISM,))
def a_float_is_rejected(trial: Trial) -> None:
    """1.5 as parallelism is rejected with an error before any process is started.

    Why: workers cannot be halved.  If 1.5 is accepted, it fails later, in ``range()``, far from its cause.
    Likely causes: the type is not checked; ``int()`` truncates the value.
    Origin: Airflow's LocalExecutor raises TypeError, but only in start().
    """
    _expect_rejected(trial, 1.5)


@should(needs=(Capability.CHOSEN_PARALLELISM,))
def a_string_is_rejected(trial: Trial) -> None:
    """``"4"`` as parallelism is rejected with an error before any process is started.

    Why: configuration files and environment variables yield strings, so a missing conversion is a common
    mistake.
    Likely causes: ``int()`` converts the value; the value is compared or multiplied before it is checked.
    Origin: the contract: an invalid value is rejected before anything is started.
    """
    _expect_rejected(trial, "4")


@should(needs=(Capability.CHOSEN_PARALLELISM,), after=("parallelism.negative-is-rejected",))
def the_error_shows_the_rejected_value(trial: Trial) -> None:
    """The error that rejects a parallelism shows the rejected value.

    Why: the value comes from a configuration file, an environment variable or a default, and users have to
    find out which.
    Likely causes: a hard-coded message; an error raised by lower-level code, such as ``range()`` or a
    semaphore.
    Origin: apache/airflow#57495.
    """
    for value in (-1, -7):
        rejection = _expect_rejected(trial, value)
        expect(
            str(value) in str(rejection),
            expected=f"the error message to contain the rejected value {value}",
            actual=f"{type(rejection).__name__}: {rejection}",
        )


@must(needs=(Capability.CHOSEN_PARALLELISM, Observation.VISIBLE_WORKERS))
def huge_is_rejected_or_starts_workers_lazily(trial: Trial) -> None:
    """``10**9`` as parallelism is rejected, or accepted without an attempt to start that many workers.

    Why: users write it to mean "no limit"; one worker per slot would take the machine down.
    Likely causes: ``start()`` starts every worker; a list entry or a semaphore is created for each slot.
    Origin: apache/airflow#2658.
    """
    limit = 6 << 30  # A list of 10**9 slots then raises MemoryError instead of exhausting the machine.
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    before = threading.active_count()
    rejection, subject = _try_to_start(trial, 10**9)
    expect(
        not isinstance(rejection, MemoryError),
        expected="parallelism=10**9 to be rejected for its value, or accepted without an allocation per slot",
        actual=f"MemoryError with {limit >> 30} GiB of address space",
    )
    if rejection is None:
        assert subject is not None
        probe = trial.probe()
        subject.run(probe)
        subject.expect_outcome(probe, SUCCESS, "a task with parallelism=10**9")
    started = len(trial.host.processes()) + threading.active_count() - before
    expect(
        started <= 64,
        expected="workers to be started on demand: no more than 64 processes and threads for one task",
        actual=f"{started} processes and threads",
    )


@must(needs=(Capability.CHOSEN_PARALLELISM,))
def none_is_rejected_or_the_default(trial: Trial) -> None:
    """``None`` as parallelism is rejected with an error, or it means the default and tasks run.

    Why: many configurations represent "not set" as ``None``.
    Likely causes: ``None`` is stored and compared only later, when a task is handed to a worker;
    ``value or 0`` makes it 0, and no worker is started.
    Origin: the contract; ``max_workers=None`` is the default in concurrent.futures.
    """
    rejection, subject = _try_to_start(trial, None)
    if rejection is not None:
        return
    assert subject is not None
    probe = trial.probe()
    subject.run(probe)
    subject.expect_outcome(probe, SUCCESS, "a task with parallelism=None, which was accepted")
