"""The events of a task: how many, in which order, when, and under which key."""

from __future__ import annotations

import itertools
from functools import partial

from executor_conformance.contract import FAILED, LEGAL_TRANSITIONS, SUCCESS, TERMINAL_STATES, Call, TaskKey
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.rules import must
from executor_conformance.rules.states.counting import expect_one_terminal_event_each
from executor_conformance.verdicts import expect


@must(after=("states.an-event-is-returned-once",))
def exactly_one_terminal_event(trial: Trial) -> None:
    """Every accepted task has exactly one terminal event, however often the scheduler calls ``heartbeat()``
    afterwards.

    Why: a second terminal event is taken for that of the next try, or overwrites a decision made since.
    Likely causes: a result is collected in two places; buffered events are returned again; both the death of
    a worker and its result are reported.
    Origin: apache/airflow#69975; apache/airflow#55004; apache/airflow#71580.
    """
    subject = trial.started(slots=1)
    probes = [trial.probe(*steps) for steps in ((), ("raise=on purpose",), (), ("nap=0.01",))]
    subject.submit(*probes)
    subject.await_terminal(*probes)
    subject.quiet()
    expect_one_terminal_event_each(subject, probes)


@must(
    after=(
        "states.exactly-one-terminal-event",
        "states.submit-does-not-block",
    )
)
def only_legal_transitions(trial: Trial) -> None:
    """The events of a task come in the order ``queued``, ``running``, ``success`` or ``failed``. ``queued``
    and ``running`` may be left out, no state is repeated, and nothing follows a terminal event.

    Why: the scheduler acts on every event; one that is out of order sets a finished task back to running.
    Likely causes: events of several workers are merged without ordering them; ``running`` is reported when
    the result is collected; a state is reported again at every ``sync()``.
    Origin: apache/airflow#21316; apache/airflow#66374; the transition table of this specification.
    """
    subject = trial.started(slots=1)
    gate = trial.gate()
    probes = [*trial.probes(4, gate.step), trial.probe("raise=on purpose")]
    subject.submit(*probes)
    subject.quiet()
    gate.open()
    subject.await_terminal(*probes)
    subject.quiet()
    for probe in probes:
        last: str | None = None
        for event in subject.events_of(probe):
            legal = sorted(LEGAL_TRANSITIONS.get(last, ()))
            expect(
                event.state in legal,
                expected=f"{' or '.join(map(repr, legal)) or 'no event'} "
                + (f"after {last!r}" if last else "as the first event"),
                actual=f"{event.state!r}; {subject.describe([probe])}",
            )
            last = event.state


@must()
def no_terminal_event_before_the_task_ends(trial: Trial) -> None:
    """A terminal event comes only after the task has ended.

    Why: downstream tasks are started because of this event.
    Likely causes: success is reported when the task is handed to a worker; the end of a wrapper process is
    taken for the end of the task.
    Origin: apache/airflow#72716; apache/airflow#23846.
    """
    slots = trial.slots(2)
    subject = trial.started(slots)
    gate = trial.gate()
    probes = trial.probes(slots, gate.step)
    subject.submit(*probes)
    subject.await_started(*probes)
    subject.quiet()
    for probe in probes:
        expect(
            subject.outcome(probe) is None,
            expected="no terminal event while the task is running",
            actual=f"{subject.outcome(probe)!r}; {subject.describe([probe])}",
        )
    gate.open()
    subject.await_terminal(*probes)
    for probe in probes:
        event = next(event for event in subject.events_of(probe) if event.state in TERMINAL_STATES)
        ended = [run.finished_ns for run in probe.runs if run.finished_ns is not None]
        expect(
            ended and ended[0] <= event.at_ns,
            expected="a terminal event after the end of the task",
            actual=subject.describe([probe]),
        )


@must(needs=(Capability.KEYS,), after=("states.an-event-is-returned-once",))
def events_carry_the_submitted_key(trial: Trial) -> None:
    """Each event carries the key of its own task, with all five fields as they were submitted.

    Why: the keys of two tries, or of two mapped instances, of a task differ in one field only. If keys are
    mixed up, the wrong one is marked.
    Likely causes: the key is rebuilt from parts; a dict is indexed by ``task_id`` alone; results are matched
    to tasks by order; keys are shortened, lowercased, stripped or normalized to fit the labels of another
    system.
    Origin: apache/airflow#71580; Airflow's TaskInstanceKey has grown from three fields to five.
    """
    subject = trial.started(parallelism=3, slots=1)
    base = TaskKey("dag", "task", "run", 1, -1)
    keys = [
        base,
        base._replace(dag_id="dag.other"),
        base._replace(task_id="group.task"),
        base._replace(run_id="manual__2026-01-01T00:00:00+00:00"),
        base._replace(try_number=2),
        base._replace(map_index=0),
        base._replace(map_index=1),
        base._replace(try_number=2, map_index=1),
        TaskKey("ünïcode ☃", "a b\tc", "", 11, 111),
        base._replace(task_id="Task"),
        base._replace(task_id="task "),
        *(base._replace(task_id=name) for name in ("caf\u00e9", "cafe\u0301")),
        *(base._replace(task_id="t" * 200 + end) for end in "ab"),
    ]
    # Tasks succeed and fail in turn, and the later ones are faster, so that a mix-up shows as a wrong state.
    probes = [
        trial.probe(
            "nap=0.02" if number < 3 else "nap=0", *(("raise=on purpose",) if number % 2 else ()), key=key
        )
        for number, key in enumerate(keys)
    ]
    subject.submit(*probes)
    # An event under a wrong key is missing under its own.
    trial.wait_for(lambda: all(map(subject.outcome, probes)), pump=subject.pump)
    subject.quiet()
    submitted = {tuple(key) for key in keys}
    unknown = [event.key for event in subject.history if event.key not in submitted]
    expect(
        not unknown,
        expected="events for submitted keys only",
        actual=f"events for unknown keys: {unknown[:3]}",
    )
    ended = [event.key for event in subject.history if event.state in TERMINAL_STATES]
    twice = [probe.key for probe in probes if ended.count(probe.key) > 1]
    without = [probe.key for probe in probes if probe.key not in ended]
    expect(
        not (twice and without),
        expected="one terminal event for each submitted key",
        actual=f"several for {twice[:1]}, and none for {without[:1]}",
    )
    subject.await_terminal(*probes)
    for number, probe in enumerate(probes):
        subject.expect_outcome(probe, FAILED if number % 2 else SUCCESS, f"{probe.key}")
    expect_one_terminal_event_each(subject, probes)
    _expect_pairs_are_distinguished(trial, [(base, keys[-3]), (keys[-2], keys[-1])])


def _expect_pairs_are_distinguished(trial: Trial, pairs: list[tuple[TaskKey, TaskKey]]) -> None:
    """Let each pair start and end in both orders: if two keys are taken for one, some event is wrong."""
    subject = trial.started(parallelism=2, slots=2)
    runs = itertools.count()
    for pair, last_ends_first in itertools.product([*pairs, *(pair[::-1] for pair in pairs)], (False, True)):
        run_id = f"run-{next(runs)}"
        gates = [trial.gate() for _ in pair]
        probes = [
            trial.probe(gate.step, key=key._replace(run_id=run_id))
            for gate, key in zip(gates, pair, strict=True)
        ]
        subject.submit(*probes)
        order = [0, 1]
        last = probes[1]
        if last_ends_first and trial.wait_for(partial(getattr, last, "started"), pump=subject.pump):
            order.reverse()
        for place in order:
            gates[place].open()
            subject.await_terminal(probes[place])
            subject.expect_outcome(probes[place], SUCCESS, f"{probes[place].key}")
        expect_one_terminal_event_each(subject, probes)


@must()
def an_event_is_returned_once(trial: Trial) -> None:
    """``get_event_buffer()`` returns each event once.

    Why: the scheduler handles every event that it gets, so it handles a repeated event twice.
    Likely causes: the buffer is returned but not cleared; a copy is cleared instead.
    Origin: Airflow's BaseExecutor.get_event_buffer; apache/airflow#55004.
    """
    subject = trial.started(slots=1)
    probes = trial.probes(2)
    subject.submit(*probes)
    subject.await_terminal(*probes)
    subject.drain_all()  # a ``running`` event from the same moment may still be in the buffer
    again = [*subject.drain(), *subject.drain()]
    expect(
        not again,
        expected=f"{trial.target.adapter.name_of(Call.GET_EVENT_BUFFER)} not to return an event again",
        actual=", ".join(f"{event.state!r} again for {event.key}" for event in again[:1]),
    )


@must(
    needs=(
        Capability.EVENT_FILTER,
        Capability.KEYS,
    ),
    after=(
        "states.no-terminal-event-before-the-task-ends",
        "states.events-carry-the-submitted-key",
    ),
)
def dag_filter_drains_only_matching_events(trial: Trial) -> None:
    """``get_event_buffer(dag_ids)`` returns only the events of these DAGs, and leaves the others in the
    buffer.

    Why: several schedulers, or a backfill, may share an executor, and one must not swallow the events of
    another.
    Likely causes: the whole buffer is cleared whatever the filter; the filter is ignored; the filter is
    compared with the whole key.
    Origin: Airflow's BaseExecutor.get_event_buffer(dag_ids).
    """
    subject = trial.started(slots=1)
    wanted = [trial.probe(key=TaskKey("wanted", f"task-{n}", "run")) for n in range(2)]
    others = [trial.probe(key=TaskKey("other", f"task-{n}", "run")) for n in range(2)]
    similar = trial.probe(key=TaskKey("wanted-too", "task", "run"))
    subject.submit(*wanted, *others, similar)
    subject.await_finished(*wanted, *others, similar)

    def take_wanted() -> None:
        subject.beat()
        subject.drain([])  # selects no DAG; it does not mean all DAGs
        subject.drain(["wanted"])

    trial.require(
        lambda: all(subject.outcome(probe) for probe in wanted),
        expected="the events of the selected DAG",
        actual=lambda: subject.describe(wanted),
        pump=take_wanted,
    )
    trial.quiet(take_wanted)  # until the events of the other DAGs are in the buffer, too
    unwanted = {event.key[0] for event in subject.history} - {"wanted"}
    expect(
        not unwanted,
        expected="events of the selected DAG 'wanted' only",
        actual=f"also events of {', '.join(map(repr, unwanted))}",
    )
    subject.await_terminal(*others, similar)
    expect_one_terminal_event_each(subject, [*wanted, *others, similar])
