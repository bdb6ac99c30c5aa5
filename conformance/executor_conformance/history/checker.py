"""Checks a history: what was submitted, what ran, and what the executor reported, in order of time.

The checker is pure: events go in one by one, violations come out, and nothing is kept of a task once it has
run and been reported.  So a history may be as long as the log of a scheduler that has run for months.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from executor_conformance.contract import FAILED, LEGAL_TRANSITIONS, STATES, SUCCESS, TERMINAL_STATES


class Kind(str, enum.Enum):
    """What happened."""

    SUBMITTED = "submitted"
    STARTED = "started"
    FINISHED = "finished"
    KILLED = "killed"
    OBSERVED = "observed"
    WITHDRAWN = "withdrawn"
    ENDED = "ended"

    __str__ = str.__str__


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    :param key: of the try; ``None`` for ``ended``.
    :param state: for ``observed`` what the executor reported; for ``finished`` how the task itself ended, if
        that is known.
    :param line: its line, counted from 1; the checker needs it.
    """

    kind: Kind
    key: Hashable = None
    state: str | None = None
    line: int = 0


@dataclass(frozen=True)
class Violation:
    """A rule that the history shows to be violated.

    :param rule: its id.
    :param lines: of the events that show it, the offending one last.
    """

    rule: str
    message: str
    lines: tuple[int, ...]

    def __str__(self) -> str:
        where = ", ".join(map(str, self.lines))
        return f"line{'s' if len(self.lines) > 1 else ''} {where}: {self.rule}: {self.message}"


class _Try:
    """What is known of one try in flight."""

    __slots__ = ("ended", "finished_as", "killed", "reported", "reported_at", "started", "submitted")

    def __init__(self, submitted: int) -> None:
        self.submitted = submitted
        self.started = 0
        #: line of its end, by itself or by a kill
        self.ended = 0
        self.finished_as: str | None = None
        self.killed = False
        self.reported: str | None = None
        self.reported_at = 0

    @property
    def is_over(self) -> bool:
        return self.reported in TERMINAL_STATES and (self.ended > 0 or not self.started)


@dataclass
class HistoryChecker:
    """Takes events in the order in which they happened.

    :param parallelism: how many tasks may run at once; 0 means without limit.
    :param starts_are_known: the history has the ``started`` of every task that ran.
    """

    parallelism: int = 0
    starts_are_known: bool = True
    counts: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    _tries: dict[Hashable, _Try] = field(default_factory=dict)
    _running: int = 0
    _ended_at: int = 0

    @property
    def in_flight(self) -> int:
        """Tries that were accepted and are not over."""
        return len(self._tries)

    def take(self, event: Event) -> list[Violation]:
        """The violations that this event shows."""
        self.counts[event.kind] += 1
        if event.kind is Kind.ENDED:
            return self._end(event)
        if event.kind is Kind.SUBMITTED:
            return self._submit(event)
        one = self._tries.get(event.key)
        if one is None:
            return [self._stray(event)]
        if event.kind is Kind.STARTED:
            return self._start(one, event)
        if event.kind is Kind.WITHDRAWN:
            self._running -= bool(one.started and not one.ended)
            del self._tries[event.key]
            return []
        violations = (self._observe if event.kind is Kind.OBSERVED else self._finish)(one, event)
        if one.is_over:
            del self._tries[event.key]
        return violations

    def _submit(self, event: Event) -> list[Violation]:
        if self._ended_at:
            return [
                Violation(
                    "lifecycle.submit-after-end-is-rejected",
                    f"{_name_of(event.key)} was accepted after end()",
                    (self._ended_at, event.line),
                )
            ]
        # Accepted again while it is in flight: harmless as long as it does not run twice at once.
        self._tries.setdefault(event.key, _Try(event.line))
        return []

    def _stray(self, event: Event) -> Violation:
        if event.kind is Kind.OBSERVED:
            rule, what = "states.exactly-one-terminal-event", f"was reported {event.state!r}"
        else:
            rule, what = "states.a-burst-is-reported-completely", str(event.kind)
        return Violation(
            rule,
            f"{_name_of(event.key)} {what}, and was not in flight: never submitted, or over before",
            (event.line,),
        )

    def _start(self, one: _Try, event: Event) -> list[Violation]:
        violations = []
        if one.started and not one.ended:
            violations.append(
                Violation(
                    "states.no-concurrent-runs-of-one-key",
                    f"{_name_of(event.key)} started again while still running",
                    (one.submitted, one.started, event.line),
                )
            )
        elif one.started:
            rule = (
                "faults.a-task-is-not-rerun-after-a-worker-death"
                if one.killed
                else "states.a-burst-is-reported-completely"
            )
            violations.append(
                Violation(
                    rule,
                    f"{_name_of(event.key)} was submitted once and started again after its end",
                    (one.submitted, one.started, one.ended, event.line),
                )
            )
            self._running += 1
        else:
            self._running += 1
        if one.reported in TERMINAL_STATES:
            violations.append(
                Violation(
                    "states.no-terminal-event-before-the-task-ends",
                    f"{_name_of(event.key)} started after it had been reported {one.reported!r}",
                    (one.reported_at, event.line),
                )
            )
        one.started, one.ended, one.finished_as, one.killed = event.line, 0, None, False
        if 0 < self.parallelism < self._running:
            violations.append(
                Violation(
                    "parallelism.at-most-n-tasks-run-at-once",
                    f"{self._running} tasks ran at once, with parallelism {self.parallelism}",
                    (event.line,),
                )
            )
        return violations

    def _finish(self, one: _Try, event: Event) -> list[Violation]:
        if one.started and not one.ended:
            self._running -= 1
        one.ended = event.line
        if event.kind is Kind.KILLED:
            one.killed, one.finished_as = True, FAILED
        else:
            one.finished_as = event.state
        return []

    def _observe(self, one: _Try, event: Event) -> list[Violation]:
        state = event.state or ""
        before, before_at = one.reported, one.reported_at
        one.reported, one.reported_at = state, event.line
        if state not in LEGAL_TRANSITIONS.get(before, frozenset()):
            again = before in TERMINAL_STATES and state in TERMINAL_STATES
            return [
                Violation(
                    "states.exactly-one-terminal-event" if again else "states.only-legal-transitions",
                    f"{_name_of(event.key)} was reported {state!r} after {before!r}",
                    (before_at, event.line),
                )
            ]
        if state not in TERMINAL_STATES:
            return []
        if one.started and not one.ended:
            return [
                Violation(
                    "states.no-terminal-event-before-the-task-ends",
                    f"{_name_of(event.key)} was reported {state!r} while it ran",
                    (one.started, event.line),
                )
            ]
        if state == SUCCESS and not one.started and self.starts_are_known:
            return [
                Violation(
                    "states.no-terminal-event-before-the-task-ends",
                    f"{_name_of(event.key)} was reported 'success' and never ran",
                    (one.submitted, event.line),
                )
            ]
        if one.finished_as is not None and one.finished_as != state:
            truth = "was killed" if one.killed else f"ended as {one.finished_as!r}"
            rule = (
                "states.an-exception-is-a-failure"
                if state == SUCCESS
                else "states.exit-status-decides-the-outcome"
            )
            if one.killed:
                rule = "faults.a-killed-worker-fails-its-task"
            return [
                Violation(
                    rule,
                    f"{_name_of(event.key)} was reported {state!r}, but it {truth}",
                    (one.ended, event.line),
                )
            ]
        return []

    def _end(self, event: Event) -> list[Violation]:
        self._ended_at = event.line
        violations = [
            Violation(
                _never_reported(one),
                f"{_name_of(key)} was {'killed' if one.killed else 'accepted'} but got no terminal event",
                tuple(line for line in (one.submitted, one.started, one.ended, event.line) if line),
            )
            for key, one in self._tries.items()
            if one.reported not in TERMINAL_STATES
        ]
        self._tries.clear()
        self._running = 0
        return violations


def _never_reported(one: _Try) -> str:
    if one.killed:
        return "faults.a-killed-worker-fails-its-task"
    return "shutdown.end-finishes-running-tasks" if one.started else "shutdown.end-finishes-queued-tasks"


def _name_of(key: Hashable) -> str:
    return "/".join(map(str, key)) if isinstance(key, tuple) else str(key)


class NotAnEventLog(ValueError):
    """A line is not an event; the text has its number and what is wrong."""


def check_lines(lines: Iterable[str | bytes], checker: HistoryChecker) -> Iterator[Violation]:
    """Check a history in JSON Lines; see the guide for the format.

    :raises NotAnEventLog: a line is not an event.
    """
    read = json.loads
    kinds = {str(kind): kind for kind in Kind}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = read(line)
        except ValueError as error:
            raise NotAnEventLog(f"line {number} is not JSON: {error}") from None
        yield from checker.take(_event(data, kinds, number))


def _event(data: Any, kinds: dict[str, Kind], number: int) -> Event:
    if not isinstance(data, dict):
        raise NotAnEventLog(f"line {number} is not an object")
    kind = kinds.get(data.get("event", ""))
    if kind is None:
        raise NotAnEventLog(f"line {number}: event {data.get('event')!r} is not one of {', '.join(kinds)}")
    state = data.get("state")
    if kind is Kind.OBSERVED and state not in STATES:
        raise NotAnEventLog(f"line {number}: state {state!r} is not one of {', '.join(STATES)}")
    if kind is Kind.FINISHED and state is not None and state not in TERMINAL_STATES:
        raise NotAnEventLog(f"line {number}: a task finishes as 'success' or 'failed', not as {state!r}")
    if kind is Kind.ENDED:
        return Event(kind, line=number)
    key = data.get("key")
    parts = key if isinstance(key, list) else [key]
    if not parts or not all(isinstance(part, (str, int)) for part in parts):
        raise NotAnEventLog(
            f"line {number}: key {key!r} is neither a string nor a list of strings and numbers"
        )
    if isinstance(key, list):
        key = tuple(key)
    return Event(kind, key, state, number)
