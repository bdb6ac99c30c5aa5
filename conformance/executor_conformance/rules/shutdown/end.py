"""``end()`` finishes the accepted tasks, stops every worker and keeps the events."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

from executor_conformance.contract import FAILED, SUCCESS, TERMINAL_STATES, Call, TaskKey
from executor_conformance.harness.linux import monotonic_ns
from executor_conformance.harness.probes import SLOW_TASK_S
from executor_conformance.harness.processes import Process
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability, Observation
from executor_conformance.rules import must, should
from executor_conformance.rules.shutdown.leftovers import (
    describe_processes,
    drain_remaining_events,
    expect_finished,
    expect_workers_gone,
)
from executor_conformance.verdicts import expect

#: How many tasks end before any event is read.
_UNCOLLECTED = 240
#: ``end()`` may return this many seconds after the last task has ended.
_PROMPT_S = 1.0


@must(
    needs=(
        Capability.OWN_WORKERS,
        Observation.VISIBLE_WORKERS,
    )
)
def end_leaves_no_worker(trial: Trial) -> None:
    """No worker is left after ``end()``, whether or not it has run a task.

    Why: a leftover worker keeps its memory and connections, and every restart adds another.
    Likely causes: fewer poison pills than workers; a worker never reads its pill; processes are started but
    not tracked; ``end()`` does not join the workers.
    Origin: apache/airflow#5200; apache/airflow#23944; Airflow sends one poison pill (None, None) per worker.
    """
    end = trial.target.adapter.name_of(Call.END)
    threads_before = {thread.ident for thread in threading.enumerate()}
    idle = trial.started(parallelism=3, slots=1)
    idle.end()
    expect_workers_gone(trial, f"{end} without any task")
    subject = trial.started(parallelism=3, slots=1)
    subject.run(*trial.probes(4))
    subject.end()
    expect_workers_gone(trial, end)
    if trial.facts.tasks_in_host:
        trial.require(
            lambda: {thread.ident for thread in threading.enumerate()} <= threads_before,
            expected=f"every worker thread to be gone after {end}",
            actual=lambda: (
                f"{threading.active_count()} threads are alive; "
                f"there were {len(threads_before)} before the executor was constructed"
            ),
        )


@must(
    needs=(
        Capability.OWN_WORKERS,
        Observation.LOCAL_PROCESSES,
    ),
    after=("shutdown.end-leaves-no-worker",),
)
def no_zombie_is_left(trial: Trial) -> None:
    """No zombie is left after ``end()`` or ``terminate()``: the host has reaped every child that exited.

    Why: a zombie occupies an entry of the process table until the host exits, and hosts run for months.
    Likely causes: processes are killed but not joined; a double fork without a reaper; the code path for
    tasks killed by a signal returns early.
    Origin: apache/airflow#880; apache/airflow#13215.
    """
    end = trial.target.adapter.name_of(Call.END)

    def children() -> list[Process]:
        return [process for process in trial.host.processes() if process.parent == trial.host.pid]

    def zombies() -> list[Process]:
        return [process for process in children() if process.is_zombie]

    def expect_no(
        kind: str, found: Callable[[], list[Process]], after: str, pump: Callable[[], object] | None = None
    ) -> None:
        trial.require(
            lambda: not found(),
            expected=f"no {kind} of the scheduler process to be left after {after}",
            actual=lambda: f"{len(found())} left: {describe_processes(found())}",
            pump=pump,
        )

    subject = trial.started(slots=1)
    subject.run(*trial.probes(3), trial.probe("raise=on purpose"))
    subject.end()
    # Living children count as well: they become zombies a moment later.
    expect_no("child process", children, end)
    subject = trial.started(slots=1)
    killed = trial.probe(f"kill={int(signal.SIGKILL)}")
    subject.submit(killed)
    # Without its event, end() would wait for the task.
    if trial.wait_for(lambda: subject.outcome(killed), pump=subject.pump, patient=True):
        subject.end()
        expect_no("child process", children, f"{end} with a killed task")
    if not subject.can(Capability.TERMINATE):
        return
    subject = trial.started(slots=1)
    running = trial.probes(trial.slots_up_to(2), trial.gate().step)
    subject.submit(*running)
    subject.await_started(*running)
    subject.terminate()
    trial.quiet()  # time for the tasks to exit; whether they do is for other rules
    expect_no("zombie", zombies, "terminate()", lambda: subject.rejection(subject.pump))


@must(after=("shutdown.end-leaves-no-worker",))
def end_finishes_running_tasks(trial: Trial) -> None:
    """``end()`` lets running tasks finish before it returns, and their workers then exit.  Workers that are
    not the executor's own may finish them later.

    Why: ``end()`` is the orderly shutdown; a task that it kills loses its work.
    Likely causes: workers are terminated instead of being sent a poison pill; ``end()`` waits for idle
    workers only.
    Origin: the contract; apache/airflow#14085; apache/airflow#18989.
    """
    end = trial.target.adapter.name_of(Call.END)
    subject = trial.started(slots=1)
    probes = trial.probes(trial.slots_up_to(2), "nap=0.25")
    subject.submit(*probes)
    subject.await_started(*probes)
    subject.end()
    expect_finished(trial, subject, probes, f"{len(probes)} running tasks to finish before {end} returns")
    expect_workers_gone(trial, f"{end} with {len(probes)} tasks running")


@must(needs=(Capability.FINISHES_QUEUED_WORK,), after=("shutdown.end-finishes-running-tasks",))
def end_finishes_queued_tasks(trial: Trial) -> None:
    """``end()`` also runs the tasks that were accepted and have not started yet.  Workers that are not the
    executor's own may run them later.

    Why: a task that is dropped here is never reported, and stays queued forever.
    Likely causes: the poison pills overtake the tasks; ``end()`` waits only for tasks that a worker already
    has; the queue is closed first.
    Origin: the contract (a poison pill stops a worker after the work before it); Airflow's LocalExecutor
    drops queued tasks.
    """
    end = trial.target.adapter.name_of(Call.END)
    slots = trial.slots(2)
    subject = trial.started(slots)
    probes = trial.probes(3 * slots + 1, "nap=0.02")
    subject.submit(*probes[:-2])
    subject.submit(*probes[-2:], priority=1 if subject.has("queue_command") else None)
    subject.end()
    expect_finished(
        trial, subject, probes, f"all {len(probes)} accepted tasks to finish before {end} returns"
    )


@must(
    after=(
        "states.an-event-is-returned-once",
        "states.no-terminal-event-before-the-task-ends",
        "shutdown.end-finishes-running-tasks",
        "states.an-exception-is-a-failure",
    )
)
def events_during_end_are_delivered(trial: Trial) -> None:
    """The events of tasks that end during ``end()`` are in the event buffer after it returns.

    Why: the scheduler drains the buffer one last time after ``end()``; an event that is missing then is lost.
    Likely causes: results are not collected after the workers have exited; ``end()`` clears or closes the
    buffer.
    Origin: apache/airflow#69975 (events lost at shutdown).
    """
    end = trial.target.adapter.name_of(Call.END)
    subject = trial.started(slots=2)
    good, bad = trial.probe("nap=0.2"), trial.probe("nap=0.2", "raise=on purpose")
    subject.submit(good, bad)
    trial.require(
        lambda: good.started and bad.started,
        expected="2 tasks to start",
        stalled=True,
        actual=lambda: subject.describe([good, bad]),
        pump=subject.pump,
    )
    subject.end()
    drain_remaining_events(trial, subject, [good, bad])
    for probe, state in ((good, SUCCESS), (bad, FAILED)):
        events = [event for event in subject.events_of(probe) if event.state in TERMINAL_STATES]
        expect(
            [event.state for event in events] == [state],
            expected=f"one {state!r} event for a task that ended during {end}",
            actual=f"{[event.state for event in events] or 'none'}; {subject.describe([probe])}",
        )


@should(after=("shutdown.end-finishes-running-tasks",))
def end_returns_promptly_after_the_last_task(trial: Trial) -> None:
    """``end()`` returns within one second after the last task has ended, plus the time that it takes on an
    idle executor.

    Why: an operator who stops a scheduler waits for ``end()``, and so does every test that uses an executor.
    Likely causes: ``end()`` sleeps for seconds between two polls; ``end()`` waits until a join times out.
    Origin: Airflow's CeleryExecutor polls every five seconds in end().
    """
    end = trial.target.adapter.name_of(Call.END)
    late_s = idle_s = allowed_s = 0.0
    for _ in range(2):  # once may be the machine's fault
        idle = trial.started(slots=1)
        idle.run(trial.probe())
        began = monotonic_ns()
        idle.end()
        idle_s = (monotonic_ns() - began) / 1e9
        subject = trial.started(slots=1)
        held = trial.probes(trial.slots_up_to(2), "nap=0.3")
        subject.submit(*held)
        subject.await_started(*held)
        subject.end()
        returned = monotonic_ns()
        ended = [run.finished_ns for probe in held for run in probe.runs if run.finished_ns is not None]
        late_s = (returned - max(ended, default=returned)) / 1e9
        allowed_s = idle_s + _PROMPT_S * trial.extension()
        if late_s < allowed_s:
            return
    expect(
        False,
        expected=f"{end} to return within {allowed_s:.2f} s after the last task has ended "
        f"({end} of an idle executor took {idle_s:.2f} s)",
        actual=f"it returned after {late_s:.2f} s, and was too late in an earlier attempt as well",
    )


@must(
    needs=(Capability.CALLABLE,),
    after=(
        "interface.command-kinds-are-accurate",
        "shutdown.end-finishes-running-tasks",
        "shutdown.events-during-end-are-delivered",
    ),
)
def large_results_do_not_block_end(trial: Trial) -> None:
    """``end()`` returns even if the result of a task is larger than the buffer of a pipe.

    Why: a worker that writes a large result blocks until the host reads it; if the host waits for the worker
    to exit first, both wait forever.
    Likely causes: workers are joined before their results are read; the pipe is closed first.
    Origin: the documented deadlock of joining a process that has put items on a multiprocessing queue.
    """
    subject = trial.started(slots=1)
    probes = trial.probes(3, f"return={2 << 20}")
    for probe in probes:
        subject.submit_callable(probe)
    trial.require(
        lambda: all(probe.started for probe in probes),
        expected="3 tasks to start",
        stalled=True,
        actual=lambda: subject.describe(probes),
        pump=subject.beat,
    )
    subject.end()
    drain_remaining_events(trial, subject, probes)
    for probe in probes:
        subject.expect_outcome(probe, SUCCESS, "a task with a result of 2 MiB")


@must(
    after=(
        "states.a-burst-is-reported-completely",
        "shutdown.end-finishes-queued-tasks",
        "shutdown.events-during-end-are-delivered",
    ),
    turn="background",
)
def end_returns_with_hundreds_of_uncollected_outcomes(trial: Trial) -> None:
    """``end()`` returns, and every outcome is reported, if hundreds of tasks with long keys and long errors
    end while the host collects no event.

    Why: a scheduler that waits forever in ``end()`` is not restarted.
    Likely causes: the pipe for results is full, so a worker blocks before it reads its poison pill, and
    ``end()`` waits for that worker; ``end()`` takes a fixed number of results, then joins.
    Origin: apache/airflow#67870 and apache/airflow#67881 (64 KiB of small results are enough).
    """
    subject = trial.started(parallelism=4, slots=1)
    by_shell = trial.facts.first_task_s > SLOW_TASK_S and subject.can(Capability.ARGV)
    probes = []
    for number in range(_UNCOLLECTED):
        key = TaskKey(f"dag-{'d' * 240}", f"task-{number}-{'t' * 230}", f"run-{'r' * 240}", 1, -1)
        if number % 3 == 0:
            probes.append(trial.probe(f"raise={'long error ' * 150}", key=key))
        elif by_shell:
            probes.append(trial.shell_probe(exit_status=0, key=key))
        else:
            probes.append(trial.probe(key=key))
    subject.submit(*probes)
    in_python = len(probes) // 3 if by_shell else len(probes)
    needed_s = in_python * trial.facts.first_task_s / trial.slots_up_to(4)
    trial.call(Call.END, subject.driver.end, allowance_s=trial.budgets.stop_s + 2 * needed_s)
    drain_remaining_events(trial, subject, probes)
    unreported = [probe for probe in probes if not subject.outcome(probe)]
    expect(
        not unreported,
        expected=f"a terminal event for each of {len(probes)} tasks after "
        f"{trial.target.adapter.name_of(Call.END)}",
        actual=f"none for {len(unreported)} of them; {subject.describe(unreported[:2])}",
    )
    for number, probe in enumerate(probes):
        subject.expect_outcome(probe, SUCCESS if number % 3 else FAILED, f"task {number} of {len(probes)}")
