"""The types of ``slots_available``, ``slots_occupied``, ``running`` and ``queued_tasks``."""

from __future__ import annotations

from executor_conformance.contract import TaskKey
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.rules import must
from executor_conformance.verdicts import NotApplicable, expect

_ATTRIBUTES = ("slots_available", "slots_occupied", "running", "queued_tasks")


@must()
def bookkeeping_has_the_expected_types(trial: Trial) -> None:
    """``slots_available`` and ``slots_occupied`` are ints; ``running`` and ``queued_tasks`` support ``key in
    ...``.

    Why: the scheduler compares the numbers, and asks whether a key is in the collections.
    Likely causes: a method instead of a property; a float; None while no task is running.
    Origin: Airflow's BaseExecutor.slots_available, .running, .queued_tasks.
    """
    subject = trial.started(slots=1)
    present = [name for name in _ATTRIBUTES if subject.has(name)]
    if not present:
        raise NotApplicable(f"the executor has none of {', '.join(_ATTRIBUTES)}")
    key = trial.probe().key
    _expect_types(trial, subject, present, key)
    gate = trial.gate()
    held = trial.probe(gate.step)
    subject.submit(held)
    subject.await_started(held)
    subject.pump()
    _expect_types(trial, subject, present, key)
    gate.open()
    subject.await_terminal(held)


def _expect_types(trial: Trial, subject: Subject, names: list[str], key: TaskKey) -> None:
    for name in names:
        value = subject.optional(name)
        if name.startswith("slots"):
            expect(
                isinstance(value, int) and not isinstance(value, bool),
                expected=f"{name} to be an int",
                actual=repr(value),
            )
            continue
        expression = f"'key in {name}'"
        answer = trial.call(
            f"key in {name}",
            lambda: subject.driver.holds(value, key),  # noqa: B023
            name=expression,
        )
        expect(
            answer is False,
            expected=f"{expression} to be False for a key that was never submitted",
            actual=repr(answer),
        )
