"""How many terminal events a task has."""

from __future__ import annotations

from executor_conformance.contract import TERMINAL_STATES
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.subject import Subject
from executor_conformance.verdicts import Miscounted


def expect_one_terminal_event_each(subject: Subject, probes: list[Probe]) -> None:
    """Each of these tasks must have exactly one terminal event so far.

    :raises Miscounted: one of them has none, or more than one.
    """
    counts = dict.fromkeys((tuple(probe.key) for probe in probes), 0)
    for event in subject.history:
        if event.state in TERMINAL_STATES and event.key in counts:
            counts[event.key] += 1
    wrong = {key: count for key, count in counts.items() if count != 1}
    if wrong:
        key, count = next(iter(wrong.items()))
        raise Miscounted(
            expected=f"exactly one terminal event for each of {len(probes)} tasks",
            actual=f"a different number for {len(wrong)} of them; {key} has {count}",
        )
