"""What the executor reported: its event buffers as plain data, and the history made from them."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from executor_conformance.contract import TERMINAL_STATES
from executor_conformance.harness.linux import monotonic_ns
from executor_conformance.harness.probes import Probe
from executor_conformance.verdicts import Broken

_DESCRIBED = 3
_LONGEST_REPR = 120


@dataclass(frozen=True)
class Observation:
    """One event as the host saw it, at CLOCK_MONOTONIC nanoseconds."""

    key: tuple[Any, ...]
    state: str
    info: object
    at_ns: int


class EventHistory:
    """Every event of one executor, in the order in which it was drained.

    :param began_ns: the zero of the times in messages, in CLOCK_MONOTONIC nanoseconds.
    """

    def __init__(self, began_ns: int) -> None:
        self._began_ns = began_ns
        self.events: list[Observation] = []
        self._by_key: dict[tuple[Any, ...], list[Observation]] = {}
        self._ended: set[tuple[Any, ...]] = set()

    def take(self, raw: object) -> list[Observation]:
        """Add what ``get_event_buffer()`` returned; the new events.

        :raises Broken: it is not an event buffer.
        """
        now = monotonic_ns()
        fresh = [Observation(key, state, info, now) for key, state, info in _plain_events(raw)]
        self.events.extend(fresh)
        for event in fresh:
            self._by_key.setdefault(event.key, []).append(event)
            if event.state in TERMINAL_STATES:
                self._ended.add(event.key)
        return fresh

    def forget(self) -> None:
        """Keep nothing of what was reported so far."""
        self.events.clear()
        self._by_key.clear()
        self._ended.clear()

    @property
    def ended(self) -> int:
        """How many keys have a terminal event."""
        return len(self._ended)

    def of(self, probe: Probe) -> list[Observation]:
        """What was reported for this key, in order."""
        return self._by_key.get(tuple(probe.key), [])

    def terminal(self, probe: Probe) -> Observation | None:
        """The first terminal event of this key."""
        return next((event for event in self.of(probe) if event.state in TERMINAL_STATES), None)

    def describe(self, probes: Iterable[Probe]) -> str:
        """What is known of the first few of these tasks, for messages."""
        descriptions = []
        for probe in list(probes)[:_DESCRIBED]:
            runs = ", ".join(
                f"started at {self._at(run.started_ns)} in process {run.pid}, "
                + ("has not ended" if run.finished_ns is None else f"ended at {self._at(run.finished_ns)}")
                for run in probe.runs
            )
            events = ", ".join(f"{event.state} at {self._at(event.at_ns)}" for event in self.of(probe))
            descriptions.append(f"{probe}: {runs or 'never started'}; events: {events or 'none'}")
        return "; ".join(descriptions)

    def _at(self, time_ns: int) -> str:
        if not time_ns:
            return "an unrecorded time"  # by a shell
        return f"{(time_ns - self._began_ns) / 1e9:.3f} s"


def short_repr(value: object) -> str:
    """The ``repr`` of anything, cut, whatever its ``__repr__`` does."""
    try:
        text = repr(value)
    except BaseException:
        text = "<its repr() fails>"
    return text if len(text) <= _LONGEST_REPR else text[: _LONGEST_REPR - 3] + "..."


def _plain_events(raw: object) -> list[tuple[tuple[Any, ...], str, object]]:
    """Events as plain data, so that no ``__eq__`` or ``__hash__`` of the executor decides anything."""
    if not isinstance(raw, dict):
        raise Broken(expected="get_event_buffer() to return a dict", actual=short_repr(raw))
    events = []
    for key, value in dict.items(raw):
        if not isinstance(value, tuple) or tuple.__len__(value) != 2:
            raise Broken(expected="each event to be a tuple (state, info)", actual=short_repr(value))
        state, info = tuple.__iter__(value)
        events.append((_plain_key(key), _plain_state(state), info))
    return events


def _plain_key(key: object) -> tuple[Any, ...]:
    if not isinstance(key, tuple):
        return (f"not a key: {short_repr(key)}",)
    fields: list[object] = []
    for field in tuple.__iter__(key):
        if isinstance(field, str):
            fields.append(str.__str__(field))
        elif field is None or type(field) in (int, bool):
            fields.append(field)
        elif isinstance(field, int):
            fields.append(int.__int__(field))
        else:
            fields.append(f"not a field: {short_repr(field)}")
    return tuple(fields)


def _plain_state(state: object) -> str:
    if isinstance(state, enum.Enum):
        state = state.value
    if isinstance(state, str):
        return str.__str__(state)
    return f"not a state: {short_repr(state)}"
