"""Calls that come twice, too early or too late, or that have nothing to do."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from executor_conformance.contract import SUCCESS, Call
from executor_conformance.harness.events import Observation as Event
from executor_conformance.harness.linux import duration_s
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability, Observation
from executor_conformance.rules import must, should
from executor_conformance.verdicts import expect


@must(
    needs=(
        Observation.VISIBLE_WORKERS,
        Capability.START,
    ),
    after=(
        "parallelism.at-most-n-tasks-run-at-once",
        "shutdown.end-leaves-no-worker",
        "shutdown.no-zombie-is-left",
    ),
)
def second_start_is_harmless(trial: Trial) -> None:
    """A second ``start()`` is rejected or changes nothing; it never adds a second set of workers.

    Why: schedulers restart their loops. A second set of workers doubles the load, and the first set is never
    stopped.
    Likely causes: ``start()`` does not check whether it has been called; it replaces queues and lists that
    the first workers still use.
    Origin: the contract; apache/airflow#13542 (slots lost after executor restarts).
    """
    # The number of ready processes may vary by a few, so a second set of workers has to be larger than that.
    parallelism = 4
    subject = trial.started(parallelism)
    first_gate = trial.gate()
    first = trial.probes(parallelism, first_gate.step)
    subject.submit(*first)
    subject.await_started(*first)
    before = _population(trial)
    subject.quiet()
    before = max(before, _population(trial))
    subject.rejection(subject.start)
    subject.quiet()
    second_gate = trial.gate()
    second = trial.probes(parallelism, second_gate.step)
    subject.submit(*second)
    subject.quiet()
    early = [probe for probe in second if probe.started]
    expect(
        not early,
        expected=f"at most {parallelism} tasks running at once after a second start()",
        actual=f"{parallelism + len(early)} running at once",
    )
    first_gate.open()
    subject.await_terminal(*first)
    subject.await_started(*second)
    subject.require(
        lambda: _population(trial) - before < parallelism,
        expected=f"fewer than {before + parallelism} processes and threads after a second start()",
        actual=lambda: f"{_population(trial)} ({before} before it)",
    )
    second_gate.open()
    subject.await_terminal(*second)
    subject.quiet()
    for probe in (*first, *second):
        subject.expect_outcome(probe, SUCCESS)
        expect(
            len(probe.runs) == 1, expected=f"{probe} to run once", actual=f"it ran {len(probe.runs)} times"
        )
    subject.rejection(subject.start)
    idle = _population(trial)
    subject.end()
    trial.require(
        lambda: not (trial.can(Capability.OWN_WORKERS) and trial.host.processes()),
        expected="every worker, including those of the first start(), to exit after end()",
        actual=lambda: (
            f"still there: {'; '.join(map(str, trial.host.processes()[:4]))} "
            f"({idle} processes and threads before end())"
        ),
    )


def _population(trial: Trial) -> int:
    """The number of the executor's processes, and of the threads of the host."""
    return len(trial.host.processes()) + threading.active_count()


@must(needs=(Capability.START, Capability.REPEATED_END))
def end_before_start_is_harmless(trial: Trial) -> None:
    """``end()`` before ``start()`` returns without an exception.

    Why: schedulers end their executors in a ``finally`` clause, even when the start failed. An exception
    there hides the original one.
    Likely causes: ``end()`` uses an attribute that only ``start()`` sets; it sends poison pills to a queue
    that does not exist yet.
    Origin: apache/airflow#41992; Airflow's LocalExecutor raises AttributeError here.
    """
    trial.build(slots=1).end()


@must(needs=(Capability.REPEATED_END,), after=("states.an-event-is-returned-once",))
def end_twice_is_harmless(trial: Trial) -> None:
    """A second ``end()`` changes nothing and returns without an exception.

    Why: a scheduler's exit handler and its ``finally`` clause may both end the executor.
    Likely causes: ``end()`` uses queues and processes that it has already closed; it sends poison pills to
    workers that have exited.
    Origin: apache/airflow#23944; Airflow's LocalExecutor raises ValueError or BrokenPipeError here.
    """
    subject = trial.started(slots=1)
    subject.run(trial.probe())
    subject.end()
    subject.drain_all()
    subject.end()
    late = subject.drain()
    expect(
        not late,
        expected=f"no events after {trial.target.adapter.name_of(Call.END)} was called a second time",
        actual=_listed(late),
    )


@should(needs=(Capability.START, Capability.TERMINATE))
def terminate_before_start_is_harmless(trial: Trial) -> None:
    """``terminate()`` before ``start()`` returns without an exception.

    Why: a signal can arrive at any moment, and its handler calls ``terminate()``.
    Likely causes: ``terminate()`` uses an attribute that only ``start()`` sets; it signals a worker that does
    not exist yet.
    Origin: the contract: stop now, whatever there is to stop.
    """
    trial.build(slots=1).terminate()


@must(needs=(Capability.TERMINATE,), after=("states.an-event-is-returned-once",))
def terminate_after_end_is_harmless(trial: Trial) -> None:
    """``terminate()`` after ``end()`` changes nothing and returns without an exception.

    Why: the signal that stops a scheduler may arrive while the scheduler is already stopping.
    Likely causes: ``terminate()`` signals processes that no longer exist; it reports finished tasks again.
    Origin: the contract; apache/airflow#18989.
    """
    subject = trial.started(slots=1)
    probe = trial.probe()
    subject.run(probe)
    subject.end()
    subject.drain_all()
    subject.terminate()
    late = subject.drain()
    expect(not late, expected="no events from terminate() after end()", actual=_listed(late))


@must(needs=(Capability.TERMINATE,), after=("shutdown.terminate-reports-queued-tasks-as-failed",))
def end_after_terminate_is_harmless(trial: Trial) -> None:
    """``end()`` after ``terminate()`` returns without an exception, even if tasks were in flight.

    Why: a scheduler that must stop immediately still runs its ``finally`` clause.
    Likely causes: ``end()`` waits for tasks that ``terminate()`` has killed; it waits for workers that have
    exited.
    Origin: the contract; apache/airflow#14085.
    """
    subject = trial.started(slots=1)
    gate = trial.gate()
    held = trial.probes(3, gate.step)
    subject.submit(*held)
    subject.await_started(*held[: trial.slots_up_to(2)])
    subject.terminate()
    # Another rule checks that terminate() stops running tasks; here they must not keep end() waiting.
    gate.open()
    subject.end()


@must(
    after=(
        "states.an-event-is-returned-once",
        "states.exactly-one-terminal-event",
    )
)
def idle_sync_is_harmless(trial: Trial) -> None:
    """``heartbeat()`` and ``sync()`` of an idle executor return immediately and report nothing.

    Why: schedulers call them in every round of their loop, and most of the time nothing has happened.
    Likely causes: ``sync()`` waits for the next result; a ``get()`` from an empty queue raises ``Empty``.
    Origin: Airflow's scheduler loop: an exception in heartbeat() ends the scheduler.
    """
    subject = trial.started(slots=1)
    name_of = trial.target.adapter.name_of
    round_of_the_loop = f"{name_of(subject.driver.pump_call)} and {name_of(Call.GET_EVENT_BUFFER)}"
    for name, call in {name_of(Call.SYNC): subject.sync, round_of_the_loop: subject.pump}.items():
        shortest = min(duration_s(call) for _ in range(3))
        expect(
            shortest < trial.budgets.block_s,
            expected=f"{name} to return within {trial.budgets.block_s:.1f} s while no task runs",
            actual=f"{shortest:.2f} s in the fastest of 3 calls",
        )
    for _ in range(30):
        subject.pump()
    expect(
        not subject.history,
        expected="no events before a task is submitted",
        actual=_listed(subject.history),
    )
    subject.run(trial.probe())
    subject.drain_all()
    count = len(subject.history)
    for _ in range(30):
        subject.pump()
    expect(
        len(subject.history) == count,
        expected="no more events after every task has been reported",
        actual=_listed(subject.history[count:]),
    )


def _listed(events: Sequence[Event]) -> str:
    """The number of events, and the first three, for messages."""
    shown = ", ".join(f"{event.state!r} for {event.key}" for event in events[:3])
    return f"{len(events)} event{'s' if len(events) != 1 else ''}: {shown}"
