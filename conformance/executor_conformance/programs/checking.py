"""Checks what a program did: its history, and the outcome of each of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from executor_conformance.contract import FAILED, SUCCESS
from executor_conformance.harness.linux import monotonic_ns
from executor_conformance.harness.probes import Gate, Probe
from executor_conformance.harness.subject import Subject
from executor_conformance.history.checker import Event, HistoryChecker, Kind
from executor_conformance.verdicts import Broken

#: The timeline of a failure shows this many of the last events.
_EVENTS_LOGGED = 8


class RuleViolated(Broken):
    """A program violates a rule.

    :param rule: its id.
    :param expected: empty for the statement of that rule.
    :param is_safety: something happened that must never happen, so one occurrence is proof.  Otherwise
        something did not happen in time.
    """

    def __init__(self, rule: str, *, expected: str, actual: str, is_safety: bool) -> None:
        super().__init__(expected=expected, actual=actual)
        self.rule = rule
        self.is_safety = is_safety


@dataclass
class ProgramTask:
    """One task of a program.  Times are CLOCK_MONOTONIC nanoseconds; 0: not yet.

    :param number: its number in the timeline.
    :param fails: it raises.
    :param gate: it waits there until it is released.
    """

    number: int
    probe: Probe
    fails: bool
    gate: Gate | None = None
    killed_ns: int = 0
    submitted_ns: int = 0
    released: bool = False

    @property
    def is_held(self) -> bool:
        """Whether it waits at its gate, or will."""
        return self.gate is not None and not self.released and not self.killed_ns


@dataclass(frozen=True)
class Performed:
    """A program that has been run to its end.

    :param parallelism: of the executor; 0 means no limit.
    :param ended_by: ``"end"`` or ``"terminate"``, whichever was called first, at ``ended_ns``.
    :param killed: workers were killed.
    """

    subject: Subject
    tasks: Sequence[ProgramTask]
    parallelism: int
    began_ns: int
    ended_by: str
    ended_ns: int
    killed: bool

    def check(self, log: Callable[[str], None]) -> None:
        """Check everything that happened.

        :param log: called with lines that complete the timeline of a violation.
        :raises RuleViolated: a rule was violated.
        """
        events = sorted((timed for task in self.tasks for timed in self._events_of(task)), key=_time)
        checker = HistoryChecker(self.parallelism)
        for line, (at_ns, event) in enumerate([*events, (monotonic_ns(), Event(Kind.ENDED))], 1):
            for violation in checker.take(replace(event, line=line)):
                self._log_events(events, at_ns, log)
                log(f"{self._ms(at_ns):8.1f} ms  ! {' '.join(violation.message.split())}")
                raise RuleViolated(
                    violation.rule,
                    expected="",
                    actual=f"{violation.message} ({self._ms(at_ns):.1f} ms after the start)",
                    is_safety=True,
                )
        self._check_outcomes()

    def _events_of(self, task: ProgramTask) -> list[tuple[int, Event]]:
        key = tuple(task.probe.key)
        events = [(task.submitted_ns, Event(Kind.SUBMITTED, key))]
        for run in task.probe.runs:
            events.append((run.started_ns, Event(Kind.STARTED, key)))
            if run.finished_ns is not None:
                # terminate() may have been called between its last instruction and its exit
                known = self.ended_by != "terminate"
                state = (FAILED if task.fails else SUCCESS) if known else None
                events.append((run.finished_ns, Event(Kind.FINISHED, key, state)))
            elif task.killed_ns or self.ended_by == "terminate":
                at_ns = max(task.killed_ns or self.ended_ns, run.started_ns + 1)
                events.append((at_ns, Event(Kind.KILLED, key)))
        events += [
            (seen.at_ns, Event(Kind.OBSERVED, key, seen.state)) for seen in self.subject.events_of(task.probe)
        ]
        return events

    def _check_outcomes(self) -> None:
        """Check that each task ran once with its intended outcome, unless tasks were killed."""
        if self.killed or self.ended_by == "terminate":
            return
        for task in self.tasks:
            outcome = self.subject.outcome(task.probe)
            expected = FAILED if task.fails else SUCCESS
            if outcome != expected or len(task.probe.runs) != 1:
                raise RuleViolated(
                    "states.an-exception-is-a-failure" if task.fails else "lifecycle.runs-a-task",
                    expected=f"task {task.number} to run once and be reported {expected!r}",
                    actual=f"runs: {len(task.probe.runs)}; reported: {outcome!r}",
                    is_safety=True,
                )

    def _log_events(
        self, events: Sequence[tuple[int, Event]], until_ns: int, log: Callable[[str], None]
    ) -> None:
        """Add the last events up to this time, of any task, to the timeline."""
        names: dict[object, str] = {
            tuple(task.probe.key): f"task {task.number}, try {task.probe.key.try_number}: "
            for task in self.tasks
        }
        before = [(at_ns, event) for at_ns, event in events if at_ns <= until_ns]
        for at_ns, event in before[-_EVENTS_LOGGED:]:
            if event.kind is not Kind.SUBMITTED:
                text = f"{event.kind} {event.state or ''}".strip()
                log(f"{self._ms(at_ns):8.1f} ms    {names.get(event.key, '')}{text}")

    def _ms(self, at_ns: int) -> float:
        return (at_ns - self.began_ns) / 1e6


def _time(timed: tuple[int, Event]) -> int:
    return timed[0]
