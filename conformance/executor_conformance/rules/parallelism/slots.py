"""Slots: what the executor reports about them, and that failed tasks release theirs."""

from __future__ import annotations

from collections.abc import Sequence

from executor_conformance.contract import SUCCESS
from executor_conformance.harness.linux import monotonic
from executor_conformance.harness.probes import SLOW_TASK_S, Probe
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.rules import must, should
from executor_conformance.rules.faults.recovery import expect_capacity
from executor_conformance.rules.parallelism.counting import expect_at_most
from executor_conformance.verdicts import NotApplicable, expect

#: The rule about many tasks runs this many, in batches, within this many seconds, and never fewer than these.
_MANY_TASKS, _BATCH, _MANY_TASKS_S, _FEWEST_TASKS, _FEWEST_SLOW_TASKS = 2000, 50, 3.0, 600, 100
#: If tasks are slow, all but every tenth are run by a shell.
_PYTHON_TASK_EVERY = 10


def _slots(subject: Subject) -> tuple[int | None, int | None]:
    """``slots_available`` and ``slots_occupied``; ``None`` where the executor does not have one of them."""
    available = subject.optional("slots_available") if subject.has("slots_available") else None
    occupied = subject.optional("slots_occupied") if subject.has("slots_occupied") else None
    if available is None and occupied is None:
        raise NotApplicable("the executor has neither slots_available nor slots_occupied")
    return available, occupied


def _slots_are(subject: Subject, parallelism: int, in_flight: int) -> bool:
    available, occupied = _slots(subject)
    free = parallelism - in_flight
    return (occupied is None or (_is_count(occupied) and occupied == in_flight)) and (
        available is None or (_is_count(available) and available in (free, max(free, 0)))
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@must(
    after=(
        "interface.bookkeeping-has-the-expected-types",
        "parallelism.at-most-n-tasks-run-at-once",
        "parallelism.no-slot-is-idle-while-tasks-wait",
        "parallelism.failed-tasks-release-their-slots",
    )
)
def slot_counts_are_accurate(trial: Trial) -> None:
    """``slots_occupied`` is always the number of tasks in flight, and ``slots_available`` what is left of N.

    Why: the scheduler submits as many tasks as there are slots available.  Too high a number floods the
    executor, and too low a number starves it.
    Likely causes: a task that was handed to a worker is no longer counted; a slot is not released when a
    task fails; the number is computed from another limit.
    Origin: apache/airflow#28206; apache/airflow#36335; apache/airflow#43448; apache/airflow#42932;
    apache/airflow#71914.
    """
    parallelism = 2
    subject = trial.started(parallelism)
    subject.pump()
    gates = [trial.gate() for _ in range(3)]
    probes = [
        trial.probe(gates[0].step),
        trial.probe(gates[1].step, "raise=on purpose"),
        trial.probe(gates[2].step),
    ]
    queued = trial.probes(3)

    def expect_slots(in_flight: int, when: str) -> None:
        available = parallelism - in_flight
        subject.require(
            lambda: _slots_are(subject, parallelism, in_flight),
            expected=f"{when}, slots_available {available}{' or 0' if available < 0 else ''} "
            f"and slots_occupied {in_flight}",
            actual=lambda: "slots_available {}, slots_occupied {}".format(*_slots(subject)),
            budget_s=trial.budgets.arrival_s / 2,
        )

    expect_slots(0, "before the first task")
    for count, probe in enumerate(probes[:2], 1):
        subject.submit(probe)
        subject.await_started(probe)
        subject.quiet()
        expect_slots(count, f"with {count} running and 0 queued")
    subject.submit(probes[2], *queued)
    subject.quiet()
    expect_slots(6, "with 2 running and 4 queued")
    gates[0].open()
    subject.await_terminal(probes[0])
    gates[1].open()
    subject.await_terminal(probes[1], *queued)
    expect_slots(1, "after 5 of 6 tasks ended, one of them as failed")
    gates[2].open()
    subject.await_terminal(probes[2])
    expect_slots(0, "after all tasks ended")


@must(after=("parallelism.slot-counts-are-accurate",))
def running_is_accurate(trial: Trial) -> None:
    """``running``, where offered, contains the key of every running task, and of no task that has ended.

    Why: the scheduler checks ``running`` before it submits a key again, and uses it to adopt or clear tasks.
    Likely causes: a base class fills it, and the executor bypasses the base class; a key is removed only on
    success.
    Origin: apache/airflow#13542; apache/airflow#35675; apache/airflow#36998.
    """
    subject = trial.started(slots=2)
    subject.optional("running")
    gate = trial.gate()
    held, failing = trial.probe(gate.step), trial.probe("raise=on purpose")

    def in_running(probe: Probe) -> object:
        return _is_in(subject, "running", probe)

    subject.submit(held)
    subject.await_started(held)
    subject.require(
        lambda: in_running(held),
        expected="running to contain the key of a running task",
        actual=lambda: f"running is {subject.optional('running')!r}",
        budget_s=trial.budgets.arrival_s / 2,
    )
    subject.run(failing)
    subject.quiet()
    expect(
        in_running(held),
        expected="the key of a running task to stay in running",
        actual="it was removed when another task failed",
    )
    expect(
        not in_running(failing),
        expected="the key of a failed task to be removed from running",
        actual="it is still there",
    )
    gate.open()
    subject.await_terminal(held)
    subject.require(
        lambda: not in_running(held),
        expected="the key of a task that has ended to be removed from running",
        actual=lambda: "it is still there",
        budget_s=trial.budgets.arrival_s / 2,
    )


@should(after=("parallelism.running-is-accurate", "parallelism.at-most-n-tasks-run-at-once"))
def queued_tasks_lists_waiting_keys(trial: Trial) -> None:
    """Where ``queued_tasks`` and ``running`` are offered, the key of every queued task is in one of them, and
    the key of a task that has ended is in neither.

    Why: a scheduler that finds a key in neither of them submits the task again.
    Likely causes: tasks without a slot wait in a private queue; ``queued_tasks`` is inherited and never
    filled.
    Origin: Airflow's BaseExecutor.has_task; apache/airflow#35675.
    """
    slots = trial.slots(2)
    subject = trial.started(slots)
    subject.optional("queued_tasks")
    subject.optional("running")
    gate = trial.gate()
    held, queued = trial.probes(slots, gate.step), trial.probes(2)
    subject.submit(*held, *queued)
    subject.await_started(*held)
    subject.quiet()

    def is_known(probe: Probe) -> bool:
        return any(_is_in(subject, name, probe) for name in ("queued_tasks", "running"))

    expect(
        all(map(is_known, queued)),
        expected="the keys of queued tasks to be in queued_tasks or running",
        actual=f"{sum(map(is_known, queued))} of {len(queued)} are",
    )
    gate.open()
    subject.await_terminal(*held, *queued)
    subject.require(
        lambda: not any(map(is_known, queued)),
        expected="the keys of tasks that have ended to be removed from queued_tasks and running",
        actual=lambda: f"{sum(map(is_known, queued))} of {len(queued)} are still there",
        budget_s=trial.budgets.arrival_s / 2,
    )


def _is_in(subject: Subject, name: str, probe: Probe) -> bool:
    collection = subject.optional(name)
    return bool(subject.trial.call("key in running", lambda: subject.driver.holds(collection, probe.key)))


@must(
    after=(
        "parallelism.at-most-n-tasks-run-at-once",
        "parallelism.n-tasks-run-at-once",
        "states.an-exception-is-a-failure",
        "states.death-by-signal-is-a-failure",
        "states.a-command-that-cannot-run-never-succeeds",
    )
)
def failed_tasks_release_their_slots(trial: Trial) -> None:
    """After tasks have failed, N tasks run at the same time again.

    Why: if each failure loses a slot, the scheduler runs no tasks at all after some hours.
    Likely causes: the slot is released only on success; a worker whose task raised is not replaced.
    Origin: apache/airflow#13542; apache/airflow#28206; apache/airflow#36335; apache/airflow#43448.
    """
    parallelism = trial.slots(2)
    subject = trial.started(parallelism)
    failing = trial.probes(2 * parallelism, "raise=on purpose")
    if subject.can(Capability.EXIT_STATUS):
        failing += trial.probes(parallelism, "exit=3")
        if not trial.facts.tasks_in_host:
            failing += trial.probes(parallelism, "kill=9")
    subject.submit(*failing)
    subject.await_terminal(*failing)
    if subject.can(Capability.ARGV):
        for _ in range(parallelism):
            missing = trial.program("/nonexistent/program")
            if subject.rejection(lambda: subject.submit(missing)) is None:  # noqa: B023
                subject.await_terminal(missing)
    gate = trial.gate()
    held = trial.probes(2 * parallelism + 1, gate.step)
    subject.submit(*held)
    subject.require(
        lambda: sum(probe.started for probe in held) >= parallelism,
        expected=f"after {len(failing)} failed tasks, {parallelism} tasks to run at the same time",
        actual=lambda: f"{sum(probe.started for probe in held)} running",
    )
    subject.quiet()
    expect_at_most(parallelism, sum(probe.started for probe in held))
    gate.open()
    subject.await_terminal(*held)


@must(
    after=(
        "parallelism.n-tasks-run-at-once",
        "states.exactly-one-terminal-event",
        "states.a-burst-is-reported-completely",
    ),
    turn="background",
)
def no_slot_is_lost_in_thousands_of_tasks(trial: Trial) -> None:
    """Two thousand tasks on two slots all run and succeed, and afterwards two tasks run at the same time
    again.

    If 2,000 tasks take longer than three seconds, fewer are run: at least 600, or at least 100 if tasks are
    slow and the executor runs no shell commands.

    Why: workers are replaced after a number of tasks so that leaked memory is freed; if one is not replaced,
    the executor slows down for days, then stops.
    Likely causes: a worker that has run its number of tasks counts as idle; it exits with a task that it has
    taken already; its replacement is started only when it is missed.
    Origin: python/cpython#115634 (max_tasks_per_child); celery/celery#496 (CELERYD_MAX_TASKS_PER_CHILD).
    """
    parallelism = 2
    subject = trial.started(parallelism)
    is_slow = trial.facts.first_task_s > SLOW_TASK_S
    by_shell = is_slow and subject.can(Capability.ARGV)
    fewest = _FEWEST_SLOW_TASKS if is_slow and not by_shell else _FEWEST_TASKS
    began, count = monotonic(), 0
    earlier: list[Probe] = []
    while count < _MANY_TASKS and (count < fewest or monotonic() - began < _MANY_TASKS_S):
        batch = [
            trial.shell_probe(exit_status=0) if by_shell and number % _PYTHON_TASK_EVERY else trial.probe()
            for number in range(_BATCH)
        ]
        subject.submit(*batch)  # before the earlier ones have ended, so that a task is always waiting
        _expect_success(subject, earlier, count)
        count += len(batch)
        earlier = batch
    _expect_success(subject, earlier, count)
    trial.measurements["tasks"] = count
    expect_capacity(trial, subject, parallelism, f"after {count} tasks")


def _expect_success(subject: Subject, probes: Sequence[Probe], count: int) -> None:
    """Each of these tasks, the last of the first ``count``, must run once and succeed."""
    first = count - len(probes) + 1
    subject.await_terminal(*probes)
    for number, probe in enumerate(probes, first):
        subject.expect_outcome(probe, SUCCESS, f"task {number}")
        expect(
            len(probe.runs) == 1,
            expected=f"task {number} to run once",
            actual=f"it ran {len(probe.runs)} times",
        )
