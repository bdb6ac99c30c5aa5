"""``terminate()`` kills workers and running tasks at once, and reports every accepted task."""

from __future__ import annotations

import os
from collections.abc import Callable

from executor_conformance.contract import FAILED, SUCCESS
from executor_conformance.harness import processes
from executor_conformance.harness.linux import monotonic, monotonic_ns
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability, Observation
from executor_conformance.rules import may, must, should
from executor_conformance.rules.shutdown.leftovers import (
    drain_remaining_events,
    expect_workers_gone,
    pump_stopped,
)
from executor_conformance.verdicts import NotApplicable, expect

#: Whether the outcome of a killed task is collected may be a race, so there are this many tries, unless they
#: take more seconds.
_TRIES, _TRIES_S = 12, 3.0


@must(
    needs=(
        Observation.LOCAL_PROCESSES,
        Capability.OWN_WORKERS,
        Capability.TERMINATE,
    ),
    after=(
        "states.submit-does-not-block",
        "interface.command-kinds-are-accurate",
        "interface.arbitrary-programs-run-as-given",
    ),
)
def terminate_kills_running_tasks(trial: Trial) -> None:
    """``terminate()`` kills running tasks at once, whatever kind of command they run.

    Why: schedulers call it when no time is left, such as before the machine shuts down.
    Likely causes: ``terminate()`` does nothing, or does the same as ``end()``; the worker is killed but its
    task lives on; processes started by ``Popen`` are tracked in a separate list.
    Origin: apache/airflow#1389; Airflow's LocalExecutor.terminate() does nothing.
    """
    _, running, _ = _terminated_at_work(trial)
    _expect_killed(trial, lambda: _pids(running), "running tasks")
    subject = trial.started(parallelism=2, slots=1)
    if not subject.can(Capability.ARGV):
        return
    pid_file = os.path.join(trial.scratch, "pid-of-a-program")
    script = 'echo $$ > "$0.new"; mv "$0.new" "$0"; exec sleep 600'
    subject.submit(trial.program("/bin/sh", "-c", script, pid_file))
    held = []
    if trial.slots_up_to(2) > 1 and subject.runs_callables_outside_host():
        held = trial.probes(1, trial.gate().step)
        subject.submit_callable(held[0])
    subject.await_started(*held)
    subject.require(
        lambda: os.path.exists(pid_file),
        expected="a shell command to start",
        stalled=True,
        actual=lambda: "it did not start",
    )
    with open(pid_file) as file:
        program = int(file.read())
    subject.terminate()
    what = "a running shell command and a running callable" if held else "a running shell command"
    _expect_killed(trial, lambda: [program, *_pids(held)], what)


@must(
    needs=(
        Observation.LOCAL_PROCESSES,
        Capability.OWN_WORKERS,
        Capability.TERMINATE,
    ),
    after=("shutdown.terminate-kills-running-tasks",),
)
def terminate_kills_tasks_that_ignore_sigterm(trial: Trial) -> None:
    """``terminate()`` also kills tasks that ignore SIGTERM and SIGINT.

    Why: a task that handles signals badly is exactly the one that has to be killed.
    Likely causes: SIGTERM is sent, and SIGKILL never follows; ``terminate()`` waits for the task to obey.
    Origin: apache/airflow#18989; apache/airflow#14085.
    """
    subject = trial.started(parallelism=2, slots=2)
    gate = trial.gate()
    running = trial.probes(2, "thread", "ignore=15", "ignore=2", "ignore=1", "note=ready", gate.step)
    subject.submit(*running)

    def notes() -> list[str]:
        return [note for probe in running for run in probe.runs for note in run.notes]

    subject.require(
        lambda: notes().count("ready") == len(running) or "another" in notes(),
        expected="2 tasks to start",
        stalled=True,
        actual=lambda: subject.describe(running),
    )
    if "another" in notes():
        raise NotApplicable("its tasks do not run in the main thread of a process, so they ignore no signal")
    subject.terminate()
    _expect_killed(trial, lambda: _pids(running), "tasks that ignore SIGTERM")


@must(
    needs=(
        Observation.LOCAL_PROCESSES,
        Capability.TERMINATE,
    ),
    after=("shutdown.terminate-kills-running-tasks",),
)
def terminate_reports_running_tasks_as_failed(trial: Trial) -> None:
    """Running tasks that ``terminate()`` kills are reported ``failed``.  Workers that are not the executor's
    own may finish them; they are then reported with their own outcome.

    Why: without the event the scheduler believes that the task is still running.
    Likely causes: the outcome of a killed task is not collected; the events are dropped with the workers; the
    thread that collects them sees first that the executor has stopped.
    Origin: the contract; apache/airflow#13215; pebble 5.2.3 (docs/findings).
    """
    latest = monotonic() + _TRIES_S
    for _ in range(_TRIES):
        subject, running, _ = _terminated_at_work(trial)
        if trial.can(Capability.OWN_WORKERS):
            expect_reported_as_failed(trial, subject, running, "running")
        else:
            _expect_true_reports(trial, subject, running, running, "running")
        if monotonic() > latest:
            break


@must(
    needs=(
        Observation.LOCAL_PROCESSES,
        Capability.TERMINATE,
    ),
    after=(
        "shutdown.terminate-kills-running-tasks",
        "shutdown.terminate-reports-running-tasks-as-failed",
        "parallelism.at-most-n-tasks-run-at-once",
    ),
)
def terminate_reports_queued_tasks_as_failed(trial: Trial) -> None:
    """Tasks that are queued at ``terminate()`` are reported ``failed`` and never start.  Workers that are not
    the executor's own may run them; they are then reported with their own outcome.

    Why: the scheduler waits for the outcome of every accepted task, and nothing may start during a shutdown.
    Likely causes: the queue is dropped; a slot that becomes free during ``terminate()`` is filled from the
    queue.
    Origin: the contract; apache/airflow#19769.
    """
    subject, running, queued = _terminated_at_work(trial)
    if not trial.can(Capability.OWN_WORKERS):
        _expect_true_reports(trial, subject, running, queued, "queued")
        return
    expect_reported_as_failed(trial, subject, queued, "queued")
    started = [probe for probe in queued if probe.started]
    expect(not started, expected="queued tasks not to start at terminate()", actual=f"{len(started)} started")


@must(
    needs=(
        Capability.OWN_WORKERS,
        Observation.LOCAL_PROCESSES,
        Capability.TERMINATE,
    ),
    after=("shutdown.terminate-kills-running-tasks",),
)
def terminate_leaves_no_worker(trial: Trial) -> None:
    """No worker is left after ``terminate()``, busy or idle.

    Why: ``terminate()`` is the last resort; a worker that survives it is never stopped.
    Likely causes: only busy workers are killed; helper processes are forgotten; ``terminate()`` returns early
    if no task is running.
    Origin: apache/airflow#5200; apache/airflow#1157.
    """
    _terminated_at_work(trial)
    expect_workers_gone(trial, "terminate() with 2 tasks running and 2 queued")
    subject = trial.started(parallelism=3, slots=1)
    subject.run(*trial.probes(3))  # workers that start on demand have started after this
    held = trial.probe(trial.gate().step)
    subject.submit(held)
    subject.await_started(held)
    subject.terminate()
    expect_workers_gone(trial, "terminate() with 1 task running and 2 slots free")
    subject = trial.started(parallelism=3, slots=1)
    subject.run(*trial.probes(3))
    subject.terminate()
    expect_workers_gone(trial, "terminate() with no task in flight")


@must(
    needs=(Capability.TERMINATE,),
    after=(
        "states.only-legal-transitions",
        "lifecycle.terminate-after-end-is-harmless",
        "shutdown.terminate-kills-running-tasks",
        "shutdown.terminate-reports-running-tasks-as-failed",
    ),
)
def terminate_keeps_buffered_events(trial: Trial) -> None:
    """Events that are in the event buffer before ``terminate()`` are still there afterwards.

    Why: the scheduler drains the buffer one last time at the end; a task whose success is lost runs again.
    Likely causes: ``terminate()`` starts with a new buffer; ``terminate()`` reports every key that it knows
    as failed.
    Origin: apache/airflow#69975 (events lost at shutdown).
    """
    subject = trial.started(parallelism=2, slots=1)
    good, bad = trial.probe(), trial.probe("raise=on purpose")
    subject.submit(good, bad)
    subject.await_finished(good, bad)
    held = trial.probe(trial.gate().step)
    subject.submit(held, trial.probe(), trial.probe())
    trial.require(
        lambda: held.started,
        expected="a task to start",
        stalled=True,
        actual=lambda: subject.describe([held]),
        pump=subject.beat,
    )
    trial.quiet(subject.beat)  # afterwards both events are in the buffer, which has not been drained
    subject.terminate()
    drain_remaining_events(trial, subject, [good, bad])
    subject.expect_outcome(good, SUCCESS, "a task whose success was in the event buffer before terminate()")
    subject.expect_outcome(bad, FAILED, "a task whose failure was in the event buffer before terminate()")


# Only a "may" rule: many executors simply fail everything that is in flight, which is quick and correct.
@may(
    needs=(
        Observation.LOCAL_PROCESSES,
        Capability.TERMINATE,
    ),
    after=("shutdown.terminate-keeps-buffered-events", "states.no-terminal-event-before-the-task-ends"),
)
def terminate_keeps_uncollected_outcomes(trial: Trial) -> None:
    """A task that ended before ``terminate()`` is reported with its own outcome, even if the executor has not
    collected it yet.

    Why: a task that has succeeded and is reported ``failed`` runs again.
    Likely causes: ``terminate()`` reports every key in flight as failed and does not first collect what has
    ended; the workers are killed before their last messages are read.
    Origin: the contract: what is reported of a task is true.
    """
    for patience in (1, 4, 16):  # the executor may clean up after the task first, on a busy machine slowly
        subject, ended = _terminated_after_a_task(trial, patience)
        if subject.outcome(ended) == SUCCESS:
            return
    subject.expect_outcome(ended, SUCCESS, "a task that had ended before terminate()")


@should(
    needs=(
        Observation.LOCAL_PROCESSES,
        Capability.OWN_WORKERS,
        Capability.TERMINATE,
    ),
    after=("shutdown.terminate-kills-running-tasks",),
)
def terminate_kills_children_of_tasks(trial: Trial) -> None:
    """``terminate()`` also kills the processes that running tasks have started.

    Why: a task is often a shell or a driver whose children do the work, and they would carry on with it.
    Likely causes: only the task's own pid is signalled; the task is in the executor's own process group.
    Origin: apache/airflow#1157; apache/airflow#13215.
    """
    subject = trial.started(parallelism=2, slots=1)
    gate = trial.gate()
    probe = trial.probe(f"child={gate.path}", gate.step)
    subject.submit(probe)
    subject.require(
        lambda: probe.runs and probe.runs[0].children,
        expected="a task to start a child process",
        stalled=True,
        actual=lambda: subject.describe([probe]),
    )
    subject.terminate()
    _expect_killed(trial, lambda: probe.runs[0].children, "child processes of a running task")


@must(
    needs=(Observation.LOCAL_PROCESSES, Capability.OWN_WORKERS, Capability.TERMINATE),
    after=(
        "shutdown.terminate-reports-running-tasks-as-failed",
        "shutdown.terminate-kills-running-tasks",
        "faults.a-daemon-started-by-a-task-blocks-nothing",
    ),
)
def terminate_does_not_wait_for_daemons(trial: Trial) -> None:
    """``terminate()`` returns, and reports the task ``failed``, even if the task has started a process in a
    session of its own.  Whether that process is killed, too, is left open.

    Why: ``setsid()`` is how a task says that a process is to outlive it, and ``terminate()`` has no time.
    Likely causes: ``terminate()`` waits for every process below the task, but signals only its process group;
    it reads the task's output up to the end, which the other process keeps open.
    Origin: the contract; ray-project/ray#42861 and pull requests 42992 (killed, too) and 56476 (left alone);
    python/cpython#119710.
    """
    for step in ("detach", "daemon"):
        subject = trial.started(parallelism=2, slots=1)
        outlasting, gate = trial.gate(), trial.gate()
        probe = trial.probe(f"{step}={outlasting.path}", "note=ready", gate.step)
        subject.submit(probe)
        subject.require(
            lambda: (
                probe.runs  # noqa: B023
                and probe.runs[0].notes  # noqa: B023
                and (step == "daemon" or probe.runs[0].children)  # noqa: B023
            ),
            expected="a task to start a process in a session of its own",
            stalled=True,
            actual=lambda: subject.describe([probe]),  # noqa: B023
        )
        subject.terminate()
        _expect_killed(trial, lambda: _pids([probe]), "a task with a process in a session of its own")  # noqa: B023
        expect_reported_as_failed(trial, subject, [probe], "running")
        outlasting.open()


def _terminated_at_work(trial: Trial) -> tuple[Subject, list[Probe], list[Probe]]:
    """An executor that was terminated while tasks that never end had all slots, and two were queued.

    :returns: the executor, the running tasks and the queued tasks.
    """
    slots = trial.slots(2)
    subject = trial.started(slots)
    gate = trial.gate()
    running, queued = trial.probes(slots, gate.step), trial.probes(2)
    subject.submit(*running, *queued)
    subject.await_started(*running)
    subject.pump()
    subject.terminate()
    return subject, running, queued


def _terminated_after_a_task(trial: Trial, patience: int) -> tuple[Subject, Probe]:
    """An executor that was terminated some time after a task had ended, and not pumped in between.

    :param patience: a multiple of the time that the executor usually takes to report a task.
    """
    subject = trial.started(parallelism=2, slots=1)
    latency_s = 0.0
    for probe in trial.probes(3):
        subject.run(probe)
        finished = max((run.finished_ns or 0 for run in probe.runs), default=monotonic_ns())
        latency_s = max(latency_s, (subject.events_of(probe)[-1].at_ns - finished) / 1e9)
    gate = trial.gate()
    ended = trial.probe(gate.step)
    subject.submit(ended)
    subject.await_started(ended)
    gate.open()
    trial.require(
        lambda: ended.finished,
        expected="a task to end",
        stalled=True,
        actual=lambda: subject.describe([ended]),
    )
    trial.quiet(budget_s=patience * (trial.budgets.quiet_s + latency_s))
    subject.terminate()
    drain_remaining_events(trial, subject, [ended])
    if not subject.outcome(ended):
        subject.rejection(subject.beat)
        drain_remaining_events(trial, subject, [ended])
    return subject, ended


def _expect_killed(trial: Trial, pids: Callable[[], list[int]], what: str) -> None:
    trial.require(
        lambda: not any(map(processes.is_alive, pids())),
        expected=f"{what} to be killed by terminate()",
        actual=lambda: f"{sum(map(processes.is_alive, pids()))} of {len(pids())} still alive",
    )


def _pids(probes: list[Probe]) -> list[int]:
    return [run.pid for probe in probes for run in probe.runs]


def _expect_true_reports(
    trial: Trial, subject: Subject, running: list[Probe], probes: list[Probe], state: str
) -> None:
    """For workers that are not the executor's own: each task is reported after ``terminate()``, as ``failed``
    if it was stopped and otherwise with its own outcome.

    :param running: the tasks that had all slots; they may go on.
    :param probes: the tasks that are checked.
    :param state: describes these, for the messages.
    """
    # A service may take its time to stop them; if it does not, this wait is in vain.
    trial.wait_for(lambda: all(map(subject.outcome, probes)), pump=lambda: pump_stopped(subject))
    reported = [probe for probe in probes if subject.outcome(probe)]
    _expect_true_outcomes(subject, reported, state)
    # A task that is reported as failed by now has been stopped.  If it has not, it ends once it may.
    trial.wait_for(lambda: not any(map(processes.is_alive, _pids(reported))))
    for gate in {gate for probe in running for gate in probe.gates}:
        gate.open()
    _expect_terminal_events(trial, subject, probes, state)
    trial.quiet(lambda: pump_stopped(subject))
    _expect_true_outcomes(subject, probes, state)


def _expect_true_outcomes(subject: Subject, probes: list[Probe], state: str) -> None:
    for probe in probes:
        outcome, what = (SUCCESS, "ran to its end") if probe.finished else (FAILED, "did not end")
        subject.expect_outcome(probe, outcome, f"a task that was {state} at terminate() and {what}")


def expect_reported_as_failed(trial: Trial, subject: Subject, probes: list[Probe], state: str) -> None:
    """Check that each of these tasks is reported ``failed`` after ``terminate()``.

    :param state: describes them, for the messages.
    """
    _expect_terminal_events(trial, subject, probes, state)
    for probe in probes:
        subject.expect_outcome(probe, FAILED, f"a task that was {state} at terminate()")


def _expect_terminal_events(trial: Trial, subject: Subject, probes: list[Probe], state: str) -> None:
    def collect() -> None:
        # Either terminate() or the next pump collects the outcomes, and that pump may also be rejected.
        subject.drain()
        if not all(subject.outcome(probe) for probe in probes):
            subject.rejection(subject.beat)

    trial.require(
        lambda: all(subject.outcome(probe) for probe in probes),
        expected=f"a terminal event for each task that was {state} at terminate()",
        actual=lambda: subject.describe(probes),
        pump=collect,
    )
