"""The forms in which callers submit coroutine functions."""

from __future__ import annotations

from executor_conformance.harness.probes import Probe
from executor_conformance.harness.trial import Trial
from executor_conformance.probes.coroutine import Method


def async_callables(trial: Trial) -> list[tuple[str, Probe, object]]:
    """A plain coroutine function and an object that hides one: description, probe and command of each."""
    steps = ("yield=2", "nap=0.01")  # so that the first step of the coroutine is not its last
    plain, hidden = trial.probes(2, *steps)
    return [
        ("a coroutine function", plain, plain.work.coroutine),
        (
            "an object with an asynchronous __call__",
            hidden,
            Method(trial.journal.path, hidden.name, steps),
        ),
    ]
