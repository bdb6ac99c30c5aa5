"""How many tasks run at the same time: N, no more and no fewer, or any number in unlimited mode."""

from __future__ import annotations

from executor_conformance.contract import SUCCESS
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.rules import must, should
from executor_conformance.rules.parallelism.counting import expect_at_most, is_running, most_at_once
from executor_conformance.verdicts import AboveTheLimit, NotApplicable, expect

#: Many executors default to 32, and some treat "unlimited" as their default.
_MORE_THAN_THE_USUAL_DEFAULT = 40


@must(
    needs=(Capability.CHOSEN_PARALLELISM,),
    after=("states.sync-does-not-block", "interface.command-kinds-are-accurate"),
)
def at_most_n_tasks_run_at_once(trial: Trial) -> None:
    """At most N tasks run at the same time.

    Why: the limit protects the machine, and the systems that tasks connect to.
    Likely causes: tasks are handed to workers without counting the running ones; a slot is released too
    early; the limit applies separately to each kind of task, or to each ``heartbeat()``.
    Origin: apache/airflow#71914; apache/airflow#72048 (slot not held).
    """
    for parallelism in (1, 2, 3):
        try:
            subject = trial.started(parallelism)
        except AboveTheLimit:
            break  # an executor may have an upper bound
        gates = [trial.gate() for _ in range(3 * parallelism + 2)]
        probes = [
            trial.probe(gate.step, *(("raise=on purpose",) if number % 3 == 1 else ()))
            for number, gate in enumerate(gates)
        ]
        for number, probe in enumerate(probes):
            _submit_in_turn(subject, probe, number)
            subject.pump()
        opened = 0
        while opened < len(gates):
            subject.require(
                lambda: any(map(is_running, probes)),  # noqa: B023
                expected="a queued task to start",
                stalled=True,
                actual=lambda: "no task is running",
            )
            subject.quiet()
            running = [number for number, probe in enumerate(probes) if is_running(probe)]
            expect_at_most(parallelism, len(running))
            for number in running:  # They all end together, so that one pump releases several slots.
                gates[number].open()
            opened += len(running)
            subject.await_terminal(*(probes[number] for number in running))
        expect_at_most(parallelism, most_at_once(probes))


def _submit_in_turn(subject: Subject, probe: Probe, number: int) -> None:
    """Submit in every way that the executor offers, in turn: one limit must hold for all of them together."""
    if number % 4 == 2 and subject.has("queue_command"):
        subject.submit(probe, priority=100)
    elif number % 4 == 3 and subject.can(Capability.CALLABLE):
        subject.submit_callable(probe)
    else:
        subject.submit(probe)


@must(needs=(Capability.CHOSEN_PARALLELISM,))
def n_tasks_run_at_once(trial: Trial) -> None:
    """N tasks really run at the same time.

    Why: if fewer than N run, users pay for capacity that is never used.
    Likely causes: one worker too few; workers are started only for the tasks waiting at that moment; the
    number of processors is the actual limit.
    Origin: apache/airflow#56444; apache/airflow#54830 (fewer workers than parallelism).
    """
    for parallelism in (2, 5, 12):
        try:
            subject = trial.started(parallelism)
        except AboveTheLimit:
            break  # an executor may have an upper bound
        gate = trial.gate()
        probes = trial.probes(parallelism, gate.step)
        subject.submit(*probes)
        subject.require(
            lambda: all(probe.started for probe in probes),  # noqa: B023
            expected=f"with parallelism={parallelism}, {parallelism} tasks to run at the same time",
            actual=lambda: f"{sum(probe.started for probe in probes)} running",  # noqa: B023
        )
        gate.open()
        subject.await_terminal(*probes)


@must(after=("parallelism.n-tasks-run-at-once",))
def no_slot_is_idle_while_tasks_wait(trial: Trial) -> None:
    """No slot is idle while tasks are queued: a slow task does not delay the others.

    Why: task durations differ by orders of magnitude; the tasks behind a slow one must still run.
    Likely causes: each worker has its own queue; tasks are started in batches, and each batch must finish
    before the next; workers prefetch tasks.
    Origin: apache/airflow#37979; apache/airflow#71380.
    """
    parallelism = trial.slots(3)
    if parallelism == 1:
        raise NotApplicable(f"{trial.context.fixed}, and one task runs at a time")
    subject = trial.started(parallelism)
    gate = trial.gate()
    held = trial.probes(parallelism - 1, gate.step)
    quick = trial.probes(8)
    # A slow task, three quick ones, another slow one: no fixed assignment to workers can pass by luck.
    subject.submit(held[0], *quick[:3], *held[1:], *quick[3:])
    subject.require(
        lambda: all(subject.outcome(probe) for probe in quick),
        expected=f"while slow tasks hold {len(held)} of {parallelism} slots, 8 quick tasks to finish",
        actual=lambda: f"{sum(bool(subject.outcome(probe)) for probe in quick)} finished",
    )
    for number in range(1, 5):  # Each of them has the whole budget.
        late = trial.probe()
        subject.submit(late)
        subject.require(
            lambda: subject.outcome(late),  # noqa: B023
            expected="while the slow tasks are still running, each of 4 more tasks to finish",
            actual=lambda: f"{number - 1} finished",  # noqa: B023
        )
    gate.open()
    subject.await_terminal(*held)


@must(after=("parallelism.zero-is-rejected-or-unlimited",))
def unlimited_mode_has_no_hidden_limit(trial: Trial) -> None:
    """Where parallelism 0 means unlimited, dozens of tasks run at the same time, and all of them finish.

    Why: in most executors unlimited mode is a separate code path, and the less tested one.
    Likely causes: a hidden limit; the process of each task is never reaped.
    Origin: Airflow 2's UnlimitedParallelism; apache/airflow#2658.
    """
    subject = trial.started_without_limit()
    gate = trial.gate()
    probes = trial.probes(_MORE_THAN_THE_USUAL_DEFAULT, gate.step)
    subject.submit(*probes)
    for count in range(8, len(probes) + 1, 8):  # Starting dozens of processes takes a while.
        subject.await_started(*probes[:count])
    gate.open()
    subject.await_terminal(*probes)
    for probe in probes:
        subject.expect_outcome(probe, SUCCESS)


@should(
    after=(
        "parallelism.unlimited-mode-has-no-hidden-limit",
        "interface.bookkeeping-has-the-expected-types",
    )
)
def unlimited_mode_always_has_slots_available(trial: Trial) -> None:
    """Where parallelism 0 means unlimited, ``slots_available`` is at least 1, however many tasks run.

    Why: the scheduler submits as many tasks as there are slots available.  If there are none, unlimited mode
    runs nothing.
    Likely causes: the tasks in flight are subtracted from 0; in unlimited mode the number is never computed.
    Origin: Airflow 2.11's BaseExecutor, which returns sys.maxsize there.
    """
    subject = trial.started_without_limit()
    available = [subject.optional("slots_available")]
    gate = trial.gate()
    held = trial.probes(8, gate.step)
    subject.submit(*held)
    subject.await_started(*held)
    subject.quiet()
    available.append(subject.optional("slots_available"))
    gate.open()
    subject.await_terminal(*held)
    expect(
        all(isinstance(count, int) and count >= 1 for count in available),
        expected="slots_available to be at least 1 with parallelism=0, both idle and with 8 tasks running",
        actual=f"{available[0]} when idle, {available[1]} with 8 tasks running",
    )
