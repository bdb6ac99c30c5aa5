"""A poison pill is no task, and a task is no poison pill."""

from __future__ import annotations

from executor_conformance.contract import TaskKey
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.rules import must
from executor_conformance.verdicts import expect


@must()
def the_poison_pill_is_never_an_event(trial: Trial) -> None:
    """After ``end()`` the event buffer holds events of submitted tasks only.

    Why: the scheduler looks up the task of every key; a key without a task raises an error in its loop.
    Likely causes: workers acknowledge the pill with a result; the pill goes through the code for tasks.
    Origin: Airflow's poison pill is (None, None), a key and a command like any other.
    """
    subject = trial.started(parallelism=3, slots=1)
    probes = trial.probes(2)
    subject.run(*probes)
    subject.end()
    subject.drain_all()
    submitted = {tuple(probe.key) for probe in probes}
    unknown = [event for event in subject.history if event.key not in submitted]
    expect(
        not unknown,
        expected="events of submitted tasks only",
        actual=f"{len(unknown)} with unknown keys: "
        + "; ".join(f"{event.state!r} for {event.key}" for event in unknown[:3]),
    )


@must(
    needs=(
        Capability.KEYS,
        Capability.ARGV,
    ),
    after=(
        "states.events-carry-the-submitted-key",
        "parallelism.n-tasks-run-at-once",
        "parallelism.no-slot-is-idle-while-tasks-wait",
        "parallelism.failed-tasks-release-their-slots",
        "states.a-command-that-cannot-run-never-succeeds",
    ),
)
def a_pill_lookalike_is_an_ordinary_task(trial: Trial) -> None:
    """A task whose key or command looks like a poison pill is run or rejected, and stops no worker.

    Why: users must not be able to stop a worker with a key or a command; each such task would cost the
    executor a worker.
    Likely causes: the pill is recognized by its key alone; the pill is a value that a task can have, such as
    None.
    Origin: Airflow's poison pill is (None, None).
    """
    parallelism = trial.slots(2)
    command = list(trial.probe().work.argv or ())
    no_command: object = None
    for what, key, lookalike in (
        ("the key (None, None)", (None, None), command),
        ("a key of five None values", TaskKey(*[None] * 5), command),  # type: ignore[arg-type]
        ("the command None", TaskKey("dag", "pill-1", "run"), no_command),
        ("the command (None, None)", TaskKey("dag", "pill-2", "run"), (None, None)),
        ("an empty command", TaskKey("dag", "pill-3", "run"), []),
        ("the command ['STOP']", TaskKey("dag", "pill-4", "run"), ["STOP"]),
    ):
        subject = trial.started(parallelism)
        probe = trial.probe(key=key)  # type: ignore[arg-type]
        for _ in range(parallelism):
            if subject.rejection(lambda: subject.submit_raw(key, lookalike)) is not None:  # noqa: B023
                break
            subject.require(
                lambda: subject.outcome(probe),  # noqa: B023
                expected=f"a task with {what} to be rejected, or to have a terminal event",
                actual=lambda: "it was accepted and has no terminal event",
            )
        gate = trial.gate()
        held = trial.probes(parallelism, gate.step)
        subject.submit(*held)
        subject.require(
            lambda: all(one.started for one in held),  # noqa: B023
            expected=f"{parallelism} tasks to run at once after a task with {what}",
            actual=lambda: f"{sum(one.started for one in held)} started",  # noqa: B023
        )
        gate.open()
        subject.await_terminal(*held)
