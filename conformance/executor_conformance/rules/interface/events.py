"""The form of the event buffer."""

from __future__ import annotations

from executor_conformance.contract import STATES
from executor_conformance.harness.events import short_repr
from executor_conformance.harness.trial import Trial
from executor_conformance.rules import must, should
from executor_conformance.verdicts import Stalled, expect


@must(gateway=True, events_only=True)
def event_buffer_maps_keys_to_state_and_info(trial: Trial) -> None:
    """``get_event_buffer()`` returns a dict from the submitted key, unchanged, to a tuple ``(state, info)``.

    Why: the scheduler looks up tasks by key and unpacks the tuple.
    Likely causes: a list of events is returned; the key is converted to a string; the state is returned
    without an info.
    Origin: Airflow's BaseExecutor.get_event_buffer and the scheduler's process_executor_events.
    """
    subject = trial.started(slots=1)
    probe = trial.probe()
    subject.submit(probe)
    if not trial.wait_for(lambda: subject.history, pump=subject.pump, patient=True):
        raise Stalled(expected="an event for the submitted task", actual=subject.describe([probe]))
    unknown = [event.key for event in subject.history if event.key != tuple(probe.key)]
    expect(
        not unknown,
        expected=f"events for the submitted key {tuple(probe.key)} only",
        actual=f"events for {', '.join(map(str, unknown[:3]))}",
    )


@should()
def a_returned_event_buffer_never_changes(trial: Trial) -> None:
    """The dict that ``get_event_buffer()`` returns never changes afterwards.

    Why: the scheduler is still working through the dict when more events arrive.
    Likely causes: the internal dict itself is returned and filled again; the dict is cleared after it was
    returned.
    Origin: Airflow's BaseExecutor hands out the old dict and makes a new one.
    """
    subject = trial.started(slots=1)
    returned: list[tuple[object, list[object]]] = []

    def pump_and_keep() -> None:
        subject.beat()
        buffer = trial.call("get_event_buffer()", subject.driver.events)
        subject.reported.take(buffer)
        if isinstance(buffer, dict) and buffer:
            returned.append((buffer, list(buffer.items())))

    for probe in trial.probes(2):
        subject.submit(probe)
        trial.require(
            lambda: subject.outcome(probe),  # noqa: B023
            expected="a terminal event",
            stalled=True,
            actual=lambda: subject.describe([probe]),  # noqa: B023
            pump=pump_and_keep,
        )
    for buffer, items in returned:
        now = list(buffer.items())  # type: ignore[attr-defined]
        expect(
            now == items,
            expected="a dict returned by get_event_buffer() not to change",
            actual=f"it was returned as {short_repr(items)} and is now {short_repr(now)}",
        )


@must(gateway=True, events_only=True)
def only_known_states_are_reported(trial: Trial) -> None:
    """A reported state is ``queued``, ``running``, ``success`` or ``failed``, as a ``str`` or a ``str`` enum.

    Why: the scheduler compares states with its own; an unknown state leaves the task in its old state.
    Likely causes: another vocabulary (done, error, finished); upper case; an exit code or a bool as state.
    Origin: Airflow's TaskInstanceState; the transition table of this specification.
    """
    subject = trial.started(slots=1)
    good, bad = trial.probe(), trial.probe("raise=on purpose")
    subject.submit(good, bad)

    # await_terminal() would wait in vain: an unknown state is not terminal.
    def keys_with_a_last_state() -> set[object]:
        return {event.key for event in subject.history if event.state not in ("queued", "running")}

    trial.wait_for(lambda: len(keys_with_a_last_state()) >= 2, pump=subject.pump, patient=True)
    if not keys_with_a_last_state():
        raise Stalled(expected="events for 2 tasks", actual=subject.describe([good, bad]))
    unknown = [event.state for event in subject.history if event.state not in STATES]
    expect(
        not unknown,
        expected=f"one of the states {', '.join(STATES)}",
        actual=f"{unknown[0] if unknown else ''!r}",
    )
