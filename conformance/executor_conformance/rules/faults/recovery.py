"""Checks that an executor reports its tasks and fills all its slots after a fault."""

from __future__ import annotations

from executor_conformance.contract import FAILED, SUCCESS
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.verdicts import expect


def await_outcome(subject: Subject, probe: Probe, what: str) -> None:
    """Pump until the task has a terminal event.

    :param what: describes the task, for the message.
    """
    subject.require(
        lambda: subject.outcome(probe),
        expected=f"a terminal event for {what}",
        actual=lambda: subject.describe([probe]),
    )


def await_failure(subject: Subject, probe: Probe, what: str) -> None:
    """Pump until the task of a killed worker has a terminal event, which must be :func:`state_of_killed`.

    :param what: describes the task, for the message.
    """
    await_outcome(subject, probe, what)
    _expect_state(subject, probe, what, state_of_killed(subject, probe))


def state_of_killed(subject: Subject, probe: Probe) -> str:
    """The terminal state of a task whose worker was killed: ``failed``, unless it was rightly run again and
    has ended.
    """
    return SUCCESS if probe.finished and not subject.can(Capability.RUNS_ONCE) else FAILED


def await_success(subject: Subject, probe: Probe, what: str) -> None:
    """Pump until the task has a terminal event, which must be ``success``.

    :param what: describes the task, for the message.
    """
    await_outcome(subject, probe, what)
    _expect_state(subject, probe, what, SUCCESS)


def _expect_state(subject: Subject, probe: Probe, what: str, state: str) -> None:
    expect(
        subject.outcome(probe) == state,
        expected=f"{state!r} for {what}",
        actual=f"{subject.outcome(probe)!r} with info {subject.info(probe)!r:.160}",
    )


def expect_capacity(trial: Trial, subject: Subject, parallelism: int, when: str) -> None:
    """Expect that ``parallelism`` tasks run at once again; as many as before, where that is fixed.

    No executor can promise that for a task handed to a worker that has just died: such a task may fail
    without having started.  Each death may cost one, so there are ``parallelism + 1`` attempts.

    :param when: what has happened before, for the messages.
    """
    parallelism = max(trial.facts.slots, 1) if trial.context.fixed else parallelism
    expected = f"{parallelism} tasks to run at once {when}" if parallelism > 1 else f"a task to run {when}"
    for _ in range(parallelism + 1):
        # One task need not be held, and cannot be where the executor runs it within a call.
        gate = trial.gate() if parallelism > 1 else None
        held = trial.probes(parallelism, *([gate.step] if gate else []))
        subject.submit(*held)
        subject.require(
            lambda: all(probe.started or subject.outcome(probe) for probe in held),  # noqa: B023
            expected=expected,
            actual=lambda: f"{sum(probe.started for probe in held)} started; {subject.describe(held)}",  # noqa: B023
            stalled=True,
        )
        ran = [probe for probe in held if probe.started]
        if gate:
            gate.open()
        for probe in held:
            await_outcome(subject, probe, f"{probe} {when}")
        for probe in ran:
            expect(
                subject.outcome(probe) == SUCCESS,
                expected=f"'success' for a task that ran {when}",
                actual=f"{subject.outcome(probe)!r}; {subject.describe([probe])}",
            )
        if len(ran) == parallelism:
            return
    expect(
        False,
        expected=expected,
        actual=f"in each of {parallelism + 1} attempts, a task ended without having started",
    )
