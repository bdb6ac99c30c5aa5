"""The order in which queued tasks start."""

from __future__ import annotations

from executor_conformance.harness.trial import Trial
from executor_conformance.rules import must, should
from executor_conformance.verdicts import NotApplicable, expect


@should(
    after=(
        "states.no-terminal-event-before-the-task-ends",
        "parallelism.at-most-n-tasks-run-at-once",
    )
)
def first_come_first_served(trial: Trial) -> None:
    """Tasks of equal priority start in the order in which they were submitted.

    Why: no task is overtaken forever, and the order of execution can be explained afterwards.
    Likely causes: queued tasks are kept on a stack or in a set; queued tasks are sorted by key.
    Origin: apache/airflow#70942; apache/airflow#72057.
    """
    subject = trial.started(parallelism=1)
    gate = trial.gate()
    first = trial.probe(gate.step)
    subject.submit(first)
    subject.await_started(first)
    rest = trial.probes(6)
    subject.submit(*rest)
    subject.quiet()
    gate.open()
    subject.await_terminal(first, *rest)
    order = [run.probe for run in trial.journal.all_runs()]
    expected = [probe.name for probe in (first, *rest)]
    expect(
        order == expected,
        expected=f"tasks to start in the order {', '.join(expected)}",
        actual=f"they started in the order {', '.join(order)}",
    )


@must(
    after=(
        "states.no-terminal-event-before-the-task-ends",
        "parallelism.at-most-n-tasks-run-at-once",
    )
)
def higher_priority_first(trial: Trial) -> None:
    """Where tasks can be queued with a priority, the queued task with the highest priority starts first, and
    among equals the one that was queued first.

    Why: users set a priority so that urgent tasks do not wait behind the others.
    Likely causes: the priority is ignored; the order is reversed; priorities are compared as strings.
    Origin: apache/airflow#70942; apache/airflow#72057.
    """
    subject = trial.started(parallelism=1)
    if not subject.has("queue_command"):
        raise NotApplicable("the executor has no queue_command(), so tasks have no priority")
    gate = trial.gate()
    first = trial.probe(gate.step)
    subject.submit(first, priority=1)
    subject.await_started(first)
    # Pairs of a priority and a number that counts the tasks with this priority.
    turns = [*((priority, 1) for priority in (2, 10, 1, 5, 100, -3, 0, 1000, 7, 3)), (5, 2), (1, 2), (5, 3)]
    by_turn = {turn: trial.probe() for turn in turns}
    for (priority, _), probe in by_turn.items():
        subject.submit(probe, priority=priority)
    subject.quiet()
    gate.open()
    subject.await_terminal(*by_turn.values())
    turn_of = {probe.name: turn for turn, probe in by_turn.items()}
    started = [turn_of[run.probe] for run in trial.journal.all_runs() if run.probe in turn_of]
    order, expected = [priority for priority, _ in started], sorted((turn[0] for turn in turns), reverse=True)
    expect(
        order == expected,
        expected=f"tasks to start in this order of priorities: {', '.join(map(str, expected))}",
        actual=f"they started in the order {', '.join(map(str, order))}",
    )
    fives = [number for priority, number in started if priority == 5]
    expect(
        fives == [1, 2, 3],
        expected="tasks of equal priority to start in the order in which they were queued",
        actual=f"the three tasks of priority 5 started in the order {', '.join(map(str, fives))}",
    )
