"""How many tasks run at once: never more than was asked for, never fewer; what is no number is refused.

The gates of the probes hold tasks where they are, so that how many run is not a matter of timing.
"""

from __future__ import annotations

import resource
import threading
from typing import Any

from executor_conformance.contract import SUCCESS
from executor_conformance.driving import Capability
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.trial import Subject, Trial, expect
from executor_conformance.rules import must, should
from executor_conformance.verdicts import NotApplicable

#: 32 is the default of many executors, and what "unlimited" comes to in some.
_MORE_THAN_A_DEFAULT = 40


def _refusal(trial: Trial, value: Any) -> tuple[Exception | None, Subject | None]:
    """Build and start with ``value``: the refusal, or the subject that was started all the same."""
    subject: Subject | None = None

    def build_and_start() -> None:
        nonlocal subject
        subject = trial.build(parallelism=value)
        subject.start()

    refusal = Subject.refusal(subject, build_and_start)  # type: ignore[arg-type]
    if refusal is not None:
        made = [process for process in trial.processes() if not process.is_zombie]
        expect(
            not made,
            awaited=f"parallelism={value!r} to be refused before any process exists",
            seen=f"it was refused with {refusal!r}, but {len(made)} processes had been made",
        )
        return refusal, None
    return None, subject


def _expect_refused(trial: Trial, value: Any) -> Exception:
    refusal, subject = _refusal(trial, value)
    if refusal is None:
        assert subject is not None
        expect(
            False,
            awaited=f"parallelism={value!r} to be refused with an error before anything is started",
            seen="it was accepted, and " + _what_becomes_of_a_task(trial, subject),
        )
    assert refusal is not None
    return refusal


def _what_becomes_of_a_task(trial: Trial, subject: Subject) -> str:
    probe = trial.probe()

    def submit_and_wait() -> None:
        subject.submit(probe)
        trial.comes_true(
            lambda: subject.outcome(probe), pump=subject.pump, budget_s=trial.budgets.arrival_s / 4
        )

    refusal = subject.refusal(submit_and_wait)
    if refusal is not None:
        return f"then a task led to {type(refusal).__name__}: {refusal}"
    if subject.outcome(probe):
        return f"a task ended with {subject.outcome(probe)!r}"
    return "a task that was submitted " + (
        "started but was never reported" if probe.started else "never started"
    )


@must()
def negative_is_refused(trial: Trial) -> None:
    """A negative parallelism is refused with an error before any process exists.

    Why: ``range(-1)`` makes no worker, and every task waits for ever without an error.
    Likely causes: the value is only compared with 0; it is passed to range() as it is.
    Origin: apache/airflow#2658; apache/airflow#22711; apache/airflow#57495; apache/airflow#41055.
    """
    for value in (-1, -5):
        _expect_refused(trial, value)


@must()
def zero_is_refused_or_unlimited(trial: Trial) -> None:
    """Parallelism 0 is refused with an error, or means that there is no limit; it never stalls.

    Why: both meanings are in use; no worker at all is what nobody means.
    Likely causes: ``range(0)`` workers are made; 0 is taken as false and a default comes in its place.
    Origin: apache/airflow#2658; apache/airflow#57495.
    """
    refusal, subject = _refusal(trial, 0)
    if refusal is not None:
        return
    assert subject is not None
    gate = trial.gate()
    probes = trial.probes(8, gate.step)
    subject.submit(*probes)
    subject.until(
        lambda: all(probe.started for probe in probes),
        awaited="parallelism=0, which was accepted, to run 8 tasks at once",
        seen=lambda: f"{sum(probe.started for probe in probes)} running at once",
    )


@must()
def nan_is_refused(trial: Trial) -> None:
    """NaN as parallelism is refused with an error before any process exists.

    Why: it comes out of computed configurations; every comparison with it is false, so checks let it pass.
    Likely causes: only ``value < 1`` is checked; the type is not.
    Origin: the contract: what is not valid is refused before anything is started.
    """
    _expect_refused(trial, float("nan"))


@should()
def true_is_refused(trial: Trial) -> None:
    """``True`` as parallelism is refused with an error.

    Why: it is an int to Python, and a mistake in every configuration.
    Likely causes: isinstance(value, int) is also true for bool; the value is only compared.
    Origin: Airflow's LocalExecutor takes True for one worker.
    """
    _expect_refused(trial, True)


@should()
def a_fraction_is_refused(trial: Trial) -> None:
    """1.5 as parallelism is refused with an error before any process exists.

    Why: there is no half worker; it fails later, in range(), where nobody sees why.
    Likely causes: the type is not checked; the value is cut off by int().
    Origin: Airflow's LocalExecutor raises TypeError, but only in start().
    """
    _expect_refused(trial, 1.5)


@should()
def a_text_is_refused(trial: Trial) -> None:
    """``"4"`` as parallelism is refused with an error before any process exists.

    Why: configuration files and environment variables give text.
    Likely causes: the value is converted by int(); it is compared or multiplied before it is checked.
    Origin: the contract: what is not valid is refused before anything is started.
    """
    _expect_refused(trial, "4")


@should(after=("parallelism.negative-is-refused",))
def a_refusal_shows_the_value(trial: Trial) -> None:
    """The error that refuses a parallelism shows the value it refuses.

    Why: the value comes from a configuration file, an environment variable or a default, and the reader of
    the error has to find out which.
    Likely causes: a fixed text; an error from deep inside, such as range() or a semaphore.
    Origin: apache/airflow#57495.
    """
    for value in (-1, -7):
        refusal = _expect_refused(trial, value)
        expect(
            str(value) in str(refusal),
            awaited=f"the error to show the value {value}",
            seen=f"{type(refusal).__name__}: {refusal}",
        )


@must()
def huge_is_refused_or_lazy(trial: Trial) -> None:
    """10**9 as parallelism is refused, or taken without an attempt to start so many workers.

    Why: it is how people write "no limit"; a worker for each would take the machine down.
    Likely causes: all workers are started at once in start(); a list or a semaphore for each slot is made.
    Origin: apache/airflow#2658.
    """
    limit = 6 << 30  # so that a list of a thousand million slots is an error and not the end of the machine
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    before = threading.active_count()
    refusal, subject = _refusal(trial, 10**9)
    expect(
        not isinstance(refusal, MemoryError),
        awaited="10**9 to be refused as a number, or taken without making something for each slot",
        seen=f"it ran out of {limit >> 30} GiB of memory",
    )
    if refusal is None:
        assert subject is not None
        probe = trial.probe()
        subject.run(probe)
        subject.expect_outcome(probe, SUCCESS, "a task with parallelism=10**9")
    made = len(trial.processes()) + threading.active_count() - before
    expect(
        made <= 64,
        awaited="workers made as they are needed",
        seen=f"{made} processes and threads for one task",
    )


@must()
def none_is_an_error_or_the_default(trial: Trial) -> None:
    """``None`` as parallelism is refused with an error, or means the default; tasks run then.

    Why: "not set" comes as None from many configurations.
    Likely causes: None is stored and compared later, in the middle of a hand-over; ``or 0`` makes no worker.
    Origin: the contract; ``max_workers=None`` is the default in concurrent.futures.
    """
    refusal, subject = _refusal(trial, None)
    if refusal is not None:
        return
    assert subject is not None
    probe = trial.probe()
    subject.run(probe)
    subject.expect_outcome(probe, SUCCESS, "a task with parallelism=None, which was accepted")


@must(after=("states.sync-waits-for-no-task", "interface.command-kinds-tell-the-truth"))
def never_more_than_n(trial: Trial) -> None:
    """At most N tasks run at once.

    Why: parallelism protects the machine, and what the tasks connect to.
    Likely causes: tasks are handed over without looking at what runs; a slot is given back too early; the
    limit holds for each kind of task, or each pump, by itself.
    Origin: apache/airflow#71914; apache/airflow#72048 (slot not held).
    """
    for parallelism in (1, 2, 3):
        subject = trial.started(parallelism)
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
            subject.until(
                lambda: any(map(_runs_now, probes)),  # noqa: B023
                awaited="a waiting task to start",
                stalled=True,
                seen=lambda: "none of them runs",
            )
            subject.quiet()
            running = [number for number, probe in enumerate(probes) if _runs_now(probe)]
            _expect_at_most(parallelism, len(running))
            for number in running:  # all that run end at once, so that several slots come free in one pump
                gates[number].open()
            opened += len(running)
            subject.await_terminal(*(probes[number] for number in running))
        _expect_at_most(parallelism, _most_at_once(probes))


def _runs_now(probe: Probe) -> bool:
    return probe.started and not probe.finished


def _submit_in_turn(subject: Subject, probe: Probe, number: int) -> None:
    """By each way that the executor offers: a limit that holds for each by itself is none."""
    if number % 4 == 2 and subject.has("queue_command"):
        subject.submit(probe, priority=100)
    elif number % 4 == 3 and subject.can(Capability.CALLABLE):
        subject.submit_callable(probe)
    else:
        subject.submit(probe)


def _expect_at_most(parallelism: int, seen: int) -> None:
    expect(seen <= parallelism, awaited=f"at most {parallelism} tasks at once", seen=f"{seen} at once")


def _most_at_once(probes: list[Probe]) -> int:
    """The largest number of runs that overlap, by the journal."""
    moments = []
    for probe in probes:
        for run in probe.runs:
            if run.finished_ns is not None:
                moments += [(run.started_ns, 1), (run.finished_ns, -1)]
    now = most = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return most


@must()
def n_is_reached(trial: Trial) -> None:
    """N tasks really run at the same time.

    Why: fewer than N is capacity that was paid for and is never used.
    Likely causes: one worker too few; workers are started for tasks that wait at that moment only; the
    number of processors is the real limit.
    Origin: apache/airflow#56444; apache/airflow#54830 (fewer workers than parallelism).
    """
    for parallelism in (2, 5, 12):
        subject = trial.started(parallelism)
        gate = trial.gate()
        probes = trial.probes(parallelism, gate.step)
        subject.submit(*probes)
        subject.until(
            lambda: all(probe.started for probe in probes),  # noqa: B023
            awaited=f"{parallelism} tasks at once with parallelism={parallelism}",
            seen=lambda: f"{sum(probe.started for probe in probes)} at once",  # noqa: B023
        )
        gate.open()
        subject.await_terminal(*probes)


@must(after=("parallelism.n-is-reached",))
def no_slot_stays_idle(trial: Trial) -> None:
    """While tasks wait, every slot is used: a slow task holds up none of the others.

    Why: tasks differ in length by orders of magnitude; behind a slow one the rest must go on.
    Likely causes: each worker has a queue of its own; tasks are handed over in batches and the batch is
    waited for; a worker fetches ahead.
    Origin: apache/airflow#37979; apache/airflow#71380.
    """
    parallelism = 3
    subject = trial.started(parallelism)
    gate = trial.gate()
    held = trial.probes(parallelism - 1, gate.step)
    quick = trial.probes(8)
    # a slow one first, then some that are quick, then another slow one: no static division can be lucky
    subject.submit(held[0], *quick[:3], held[1], *quick[3:])
    subject.until(
        lambda: all(subject.outcome(probe) for probe in quick),
        awaited=f"8 quick tasks to finish while {len(held)} of {parallelism} slots are held by slow ones",
        seen=lambda: f"{sum(bool(subject.outcome(probe)) for probe in quick)} finished",
    )
    for number in range(1, 5):  # the budget is for each of them
        late = trial.probe()
        subject.submit(late)
        subject.until(
            lambda: subject.outcome(late),  # noqa: B023
            awaited="4 more tasks to finish, one after the other, while the slow ones are still running",
            seen=lambda: f"{number - 1} finished",  # noqa: B023
        )
    gate.open()
    subject.await_terminal(*held)


@must(after=("parallelism.zero-is-refused-or-unlimited",))
def unlimited_has_no_limit(trial: Trial) -> None:
    """Where parallelism 0 means unlimited, dozens of tasks run at once, and all end.

    Why: unlimited mode is another code path in most executors, and the less tested one.
    Likely causes: a hidden limit; one process for each task is never reaped.
    Origin: Airflow 2's UnlimitedParallelism; apache/airflow#2658.
    """
    subject = trial.started_without_limit()
    gate = trial.gate()
    probes = trial.probes(_MORE_THAN_A_DEFAULT, gate.step)
    subject.submit(*probes)
    for count in range(8, len(probes) + 1, 8):  # so many processes take their time
        subject.await_started(*probes[:count])
    gate.open()
    subject.await_terminal(*probes)
    for probe in probes:
        subject.expect_outcome(probe, SUCCESS)


@should(
    after=(
        "parallelism.unlimited-has-no-limit",
        "interface.bookkeeping-has-the-agreed-types",
    )
)
def unlimited_has_slots_available(trial: Trial) -> None:
    """Where parallelism 0 means unlimited, ``slots_available`` is never below 1, however many tasks run.

    Why: the scheduler submits as many tasks as there are slots available; without a limit that must not mean
    none.
    Likely causes: what is in flight is taken from 0; without a limit the number is never computed.
    Origin: Airflow 2.11's BaseExecutor, which answers sys.maxsize there.
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
        awaited="a slot to be available with parallelism=0, idle and with 8 tasks running",
        seen=f"slots_available {available[0]}, and then {available[1]}",
    )


@should(
    after=(
        "states.no-terminal-event-before-the-end",
        "parallelism.never-more-than-n",
    )
)
def first_come_first_served(trial: Trial) -> None:
    """Tasks of one priority start in the order in which they were submitted.

    Why: nobody is overtaken for ever, and what happened can be understood afterwards.
    Likely causes: waiting tasks are kept on a stack or in a set; they are ordered by key.
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
    expect(order == expected, awaited=f"the order {', '.join(expected)}", seen=", ".join(order))


@must(
    after=(
        "states.no-terminal-event-before-the-end",
        "parallelism.never-more-than-n",
    )
)
def higher_priority_first(trial: Trial) -> None:
    """Where tasks can be queued with a priority, the highest waiting one starts first, and among equals the
    one that was queued first.

    Why: it is all that the argument is for.
    Likely causes: the priority is ignored; the order is upside down; numbers are compared as text.
    Origin: apache/airflow#70942; apache/airflow#72057.
    """
    subject = trial.started(parallelism=1)
    if not subject.has("queue_command"):
        raise NotApplicable("the executor has no queue_command(), so nothing has a priority")
    gate = trial.gate()
    first = trial.probe(gate.step)
    subject.submit(first, priority=1)
    subject.await_started(first)
    # Pairs: priority, and which of those with this priority it is.
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
    expect(order == expected, awaited=f"the priorities to start as {expected}", seen=str(order))
    fives = [number for priority, number in started if priority == 5]
    expect(
        fives == [1, 2, 3],
        awaited="tasks of one priority to start in the order in which they were queued",
        seen=f"of three, number {', then '.join(map(str, fives))}",
    )


def _slots(subject: Subject) -> tuple[int | None, int | None]:
    available = subject.optional("slots_available") if subject.has("slots_available") else None
    occupied = subject.optional("slots_occupied") if subject.has("slots_occupied") else None
    if available is None and occupied is None:
        raise NotApplicable("the executor has neither slots_available nor slots_occupied")
    return available, occupied


def _slots_are(subject: Subject, parallelism: int, in_flight: int) -> bool:
    available, occupied = _slots(subject)
    free = parallelism - in_flight
    return (occupied is None or (type(occupied) is int and occupied == in_flight)) and (
        available is None or (type(available) is int and available in (free, max(free, 0)))
    )


@must(
    after=(
        "interface.bookkeeping-has-the-agreed-types",
        "parallelism.never-more-than-n",
        "parallelism.no-slot-stays-idle",
        "parallelism.failed-tasks-give-their-slots-back",
    )
)
def slots_are_true_to_the_journal(trial: Trial) -> None:
    """``slots_occupied`` is the number of tasks in flight, ``slots_available`` what is left of N, always.

    Why: the scheduler submits as many tasks as there are slots available; a number that is too high floods
    the executor, one that is too low starves it.
    Likely causes: what was handed to a worker is no longer counted; a slot is not given back when a task
    fails; the number is computed from another limit.
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
    waiting = trial.probes(3)

    def expect_slots(in_flight: int, when: str) -> None:
        subject.until(
            lambda: _slots_are(subject, parallelism, in_flight),
            awaited=f"{in_flight} slots occupied and {parallelism - in_flight} available {when}",
            seen=lambda: "slots_available {}, slots_occupied {}".format(*_slots(subject)),
            budget_s=trial.budgets.arrival_s / 2,
        )

    expect_slots(0, "before the first task")
    for count, probe in enumerate(probes[:2], 1):
        subject.submit(probe)
        subject.await_started(probe)
        subject.quiet()
        expect_slots(count, f"with {count} tasks running")
    subject.submit(probes[2], *waiting)
    subject.quiet()
    expect_slots(6, "with 2 tasks running and 4 waiting")
    gates[0].open()
    subject.await_terminal(probes[0])
    gates[1].open()
    subject.await_terminal(probes[1], *waiting)
    expect_slots(1, "with 5 of 6 tasks ended, one of them failed")
    gates[2].open()
    subject.await_terminal(probes[2])
    expect_slots(0, "with all tasks ended")


@must(after=("parallelism.slots-are-true-to-the-journal",))
def running_is_true_to_the_journal(trial: Trial) -> None:
    """``running``, where offered, has the key of each task that runs, and of none that has ended.

    Why: the scheduler asks it before it submits a key again, and adopts or clears tasks by it.
    Likely causes: it is filled by a base class that is bypassed; a key is removed only on success.
    Origin: apache/airflow#13542; apache/airflow#35675; apache/airflow#36998.
    """
    subject = trial.started()
    subject.optional("running")
    gate = trial.gate()
    held, failing = trial.probe(gate.step), trial.probe("raise=on purpose")

    def is_running(probe: Probe) -> object:
        return _is_in(subject, "running", probe)

    subject.submit(held)
    subject.await_started(held)
    subject.until(
        lambda: is_running(held),
        awaited="the key of a running task to be in running",
        seen=lambda: f"running is {subject.optional('running')!r}",
        budget_s=trial.budgets.arrival_s / 2,
    )
    subject.run(failing)
    subject.quiet()
    expect(is_running(held), awaited="the key of a running task to stay in running", seen="it was removed")
    expect(
        not is_running(failing), awaited="the key of a failed task to leave running", seen="it is still there"
    )
    gate.open()
    subject.await_terminal(held)
    subject.until(
        lambda: not is_running(held),
        awaited="the key of an ended task to leave running",
        seen=lambda: "it is still there",
        budget_s=trial.budgets.arrival_s / 2,
    )


@should(after=("parallelism.running-is-true-to-the-journal", "parallelism.never-more-than-n"))
def what_waits_is_known(trial: Trial) -> None:
    """Where ``queued_tasks`` and ``running`` are offered, one of them has the key of each task that waits,
    and neither that of one that has ended.

    Why: who asks both whether a task is known already, and is told no, submits it again.
    Likely causes: what was handed over and has no slot yet is in a queue of the executor's own; the name is
    inherited, and nothing is put there.
    Origin: Airflow's BaseExecutor.has_task; apache/airflow#35675.
    """
    subject = trial.started()
    subject.optional("queued_tasks")
    subject.optional("running")
    gate = trial.gate()
    held, waiting = trial.probes(2, gate.step), trial.probes(2)
    subject.submit(*held, *waiting)
    subject.await_started(*held)
    subject.quiet()

    def is_known(probe: Probe) -> bool:
        return any(_is_in(subject, name, probe) for name in ("queued_tasks", "running"))

    expect(
        all(map(is_known, waiting)),
        awaited="the keys of waiting tasks to be in queued_tasks, or in running",
        seen=f"{sum(map(is_known, waiting))} of {len(waiting)} are",
    )
    gate.open()
    subject.await_terminal(*held, *waiting)
    subject.until(
        lambda: not any(map(is_known, waiting)),
        awaited="the keys of ended tasks to leave queued_tasks and running",
        seen=lambda: f"{sum(map(is_known, waiting))} of {len(waiting)} are still there",
        budget_s=trial.budgets.arrival_s / 2,
    )


def _is_in(subject: Subject, name: str, probe: Probe) -> bool:
    collection = subject.optional(name)
    return bool(subject.trial.call("key in running", lambda: subject.driver.holds(collection, probe.key)))


@must(
    after=(
        "parallelism.never-more-than-n",
        "parallelism.n-is-reached",
        "states.an-exception-is-a-failure",
        "states.death-by-signal-is-a-failure",
        "states.what-cannot-be-executed-fails",
    )
)
def failed_tasks_give_their_slots_back(trial: Trial) -> None:
    """After tasks have failed, N tasks run at once again.

    Why: a slot that is lost with each failure ends, hours later, in a scheduler that runs nothing.
    Likely causes: the slot is given back on success only; a worker that raised is not replaced.
    Origin: apache/airflow#13542; apache/airflow#28206; apache/airflow#36335; apache/airflow#43448.
    """
    parallelism = 2
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
            if subject.refusal(lambda: subject.submit(missing)) is None:  # noqa: B023
                subject.await_terminal(missing)
    gate = trial.gate()
    held = trial.probes(2 * parallelism + 1, gate.step)
    subject.submit(*held)
    subject.until(
        lambda: sum(probe.started for probe in held) >= parallelism,
        awaited=f"{parallelism} tasks at once after {len(failing)} have failed",
        seen=lambda: f"{sum(probe.started for probe in held)} at once",
    )
    subject.quiet()
    _expect_at_most(parallelism, sum(probe.started for probe in held))
    gate.open()
    subject.await_terminal(*held)
