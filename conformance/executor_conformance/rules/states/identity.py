"""Which task is which: keys that come again, next tries, identical commands, and results."""

from __future__ import annotations

import itertools
from dataclasses import replace

from executor_conformance.contract import FAILED, SUCCESS, TERMINAL_STATES, TaskKey
from executor_conformance.harness.probes import Gate, Probe
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.rules import must, should
from executor_conformance.rules.states.counting import expect_one_terminal_event_each
from executor_conformance.verdicts import NotApplicable, expect


@must(needs=(Capability.KEYS,), after=("states.submit-does-not-block",), turn="background")
def no_concurrent_runs_of_one_key(trial: Trial) -> None:
    """A key that is submitted again while its task is queued or running never runs twice at the same time.

    Why: two runs of one try write to the same place, and a scheduler that has lost track submits again.
    Likely causes: the executor does not remember which keys are in flight; a queued key is queued a second
    time.
    Origin: apache/airflow#28206; Airflow 3.3's LocalExecutor runs it twice.
    """
    for priority in trial.build().ways_to_submit:
        subject = trial.started()
        gate = trial.gate()
        running = trial.probes(2, gate.step)
        subject.submit(*running)
        subject.await_started(*running)
        _expect_no_overlap(subject, running[0], gate, priority)
        subject = trial.started()
        slots_gate, gate = trial.gate(), trial.gate()
        holders = trial.probes(2, slots_gate.step)
        subject.submit(*holders)
        subject.await_started(*holders)
        queued = trial.probe(gate.step)
        subject.submit(queued)
        subject.quiet()
        _expect_no_overlap(subject, queued, gate, priority, slots_gate=slots_gate)


def _expect_no_overlap(
    subject: Subject, first: Probe, gate: Gate, priority: int | None, slots_gate: Gate | None = None
) -> None:
    """Submit the key of ``first`` again.

    :param gate: holds ``first``.
    :param slots_gate: for a queued ``first``: holds the tasks that have all slots.
    """
    trial = subject.trial
    again = trial.probe(gate.step, key=first.key)
    accepted = subject.rejection(lambda: subject.submit(again, priority=priority)) is None
    both = [first, again]
    if slots_gate is not None:
        slots_gate.open()
        subject.require(
            lambda: any(probe.started for probe in both),
            expected="the queued task to start",
            stalled=True,
            actual=lambda: subject.describe(both),
        )
    trial.quiet(subject.pump, trial.budgets.quiet_s * 2)
    gate.open()
    subject.await_terminal(first)
    subject.quiet()
    runs = sorted((run for probe in both for run in probe.runs), key=lambda run: run.started_ns)
    for earlier, later in itertools.pairwise(runs):
        expect(
            earlier.finished_ns is not None and earlier.finished_ns <= later.started_ns,
            expected=f"at most one run at a time of {tuple(first.key)}, submitted again while in flight",
            actual=f"two at the same time, in processes {earlier.pid} and {later.pid}"
            + ("" if accepted else ", although the executor rejected it the second time"),
        )


@must(needs=(Capability.KEYS,), after=("states.events-carry-the-submitted-key",))
def a_retry_runs_under_its_own_key(trial: Trial) -> None:
    """After a try has ended, the next try of the same task runs and is reported under its own key.

    Why: every retry relies on it; the end of the first try must not be taken for the end of the second.
    Likely causes: keys are remembered forever; the try number is left out when keys are compared.
    Origin: apache/airflow#71580; apache/airflow#72716; apache/airflow#66374.
    """
    subject = trial.started(slots=1)
    key = TaskKey("dag", "retried", "run", 1, -1)
    first, second = trial.probe("raise=on purpose", key=key), trial.probe(key=key._replace(try_number=2))
    subject.run(first)
    subject.run(second)
    subject.quiet()
    subject.expect_outcome(first, FAILED, "the first try")
    subject.expect_outcome(second, SUCCESS, "the second try")
    expect(second.finished, expected="the second try to run", actual="it was reported, but never ran")
    expect_one_terminal_event_each(subject, [first, second])


@should(
    needs=(Capability.KEYS,),
    after=(
        "states.a-retry-runs-under-its-own-key",
        "states.an-exception-is-a-failure",
        "states.only-legal-transitions",
        "states.exactly-one-terminal-event",
        "states.an-event-is-returned-once",
    ),
)
def a_finished_key_can_run_again(trial: Trial) -> None:
    """A key whose task has ended can be submitted again, and its task runs again.

    Why: a deferred or rescheduled task comes back under the same key.
    Likely causes: keys are remembered forever; a key that is submitted again is silently dropped.
    Origin: apache/airflow#21316; apache/airflow#23846.
    """
    subject = trial.started(slots=1)
    first = trial.probe("raise=on purpose")
    subject.run(first)
    subject.expect_outcome(first, FAILED, "the first run")
    again = trial.probe(key=first.key)
    seen_before = len(subject.events_of(first))
    subject.submit(again)
    subject.require(
        lambda: any(event.state in TERMINAL_STATES for event in subject.events_of(first)[seen_before:]),
        expected="a terminal event for a key that was submitted again after its task had ended",
        actual=lambda: subject.describe([again]),
    )
    state = subject.events_of(first)[-1].state
    expect(
        state == SUCCESS and again.finished,
        expected="the second run of a key to succeed",
        actual=f"{state!r} was reported"
        + ("" if again.finished else "; the task did not finish a second run"),
    )


@should(
    needs=(Capability.KEYS,),
    after=(
        "states.a-retry-runs-under-its-own-key",
        "states.only-legal-transitions",
        "states.exactly-one-terminal-event",
    ),
)
def a_key_submitted_again_loses_no_unread_event(trial: Trial) -> None:
    """If a key is submitted again while its terminal event is still in the event buffer, it is rejected, or
    calls of ``get_event_buffer()`` return one event after the other, the older one first.

    Why: a deferred task is submitted again under the same key; if its first event is lost, the scheduler
    takes the end of its second part for the end of its first.
    Likely causes: the event buffer is a dict, and the second event replaces the first; events that are kept
    for later are stored by key.
    Origin: apache/airflow#8622; apache/airflow#72716.
    """
    subject = trial.started(slots=1)
    first = trial.probe("raise=on purpose")
    subject.submit(first)
    subject.await_finished(first)
    trial.quiet(subject.beat)
    again = trial.probe(key=first.key)
    if subject.rejection(lambda: subject.submit(again)) is not None:
        subject.await_terminal(first)
        subject.expect_outcome(first, FAILED, "the first task, whose event was in the event buffer")
        return
    subject.await_finished(again)
    trial.quiet(subject.beat)
    trial.wait_for(
        lambda: len(_terminal_states(subject, first)) > 1,
        pump=subject.pump,
        patient=True,
    )
    states = _terminal_states(subject, first)
    expect(
        states == [FAILED, SUCCESS],
        expected="'failed' and then 'success' for a key that was submitted again while its first event was "
        "in the event buffer, or its rejection",
        actual=", ".join(map(repr, states)) or "no event",
    )


def _terminal_states(subject: Subject, probe: Probe) -> list[str]:
    return [event.state for event in subject.events_of(probe) if event.state in TERMINAL_STATES]


@must(after=("states.exactly-one-terminal-event", "parallelism.n-tasks-run-at-once"))
def identical_commands_all_run(trial: Trial) -> None:
    """Tasks with the same command all run, whether at the same time or one after another.

    Why: a task is identified by its key, and each task is submitted for its effect. If the executor copies
    the success of an earlier one, the task never runs.
    Likely causes: tasks are identified by their command or a hash of it; a library that the executor uses
    assumes that functions are pure, as ``Client.submit()`` of Dask does.
    Origin: dask/distributed#2022; dask/distributed#2015; PrefectHQ/prefect-dask#31 (equal calls run once).
    """
    subject = trial.started(parallelism=2, slots=2)
    gate = trial.gate()
    one = trial.probe(gate.step)
    argv = one.work.argv
    # Separate lists, because some executors remove words from the list that they are given.
    works = [replace(one.work, argv=None if argv is None else list(argv)) for _ in range(2)]
    other, later = (replace(one, key=trial.probe().key, work=work) for work in works)
    subject.submit(one, other)
    subject.require(
        lambda: len(one.runs) == 2,
        expected="two tasks with the same command to run at the same time",
        actual=lambda: f"runs of their command: {len(one.runs)}",
    )
    gate.open()
    subject.await_terminal(one, other)
    subject.submit(later)
    subject.await_terminal(later)
    subject.require(
        lambda: len(one.runs) == 3,
        expected="a third task with the same command, submitted after the others, to run",
        actual=lambda: (
            f"{subject.outcome(later)!r} was reported for it; runs of the command in total: {len(one.runs)}"
        ),
    )
    for probe in (one, other, later):
        subject.expect_outcome(probe, SUCCESS, "one of three tasks with the same command")


@must(needs=(Capability.RESULTS,))
def a_result_belongs_to_its_task(trial: Trial) -> None:
    """Where an executor returns results, each task gets its own.

    Why: a swapped result is wrong data without an error.
    Likely causes: results are matched to tasks in order of arrival; the results of all tasks are kept in one
    variable.
    Origin: concurrent.futures: Future.result() is the value that this call returned.
    """
    subject = trial.started(parallelism=3, slots=1)
    probes = [trial.probe("nap=0.01" if number % 3 == 0 else "nap=0") for number in range(12)]
    subject.submit(*probes)
    subject.await_terminal(*probes)
    if all(subject.info(probe) is None for probe in probes):
        raise NotApplicable("the executor's events carry no results")
    for probe in probes:
        info = subject.info(probe)
        expect(
            type(info) is str and info == probe.name,
            expected=f"{probe.name!r} as the result of {probe}",
            actual=repr(info)[:120],
        )
