"""What goes wrong: workers die, tasks misbehave, the machine runs short.  One fault costs one task at most.

A worker is what the tasks were seen to run in; see ``harness/workers.py``.  Kills come from outside, as the
kernel's do when memory is short.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import resource
import select
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from executor_conformance.contract import FAILED, SUCCESS, TERMINAL_STATES
from executor_conformance.driving import Capability
from executor_conformance.harness import processes
from executor_conformance.harness.linux import monotonic, obey_process_limits, private_disk
from executor_conformance.harness.probes import Gate, Probe
from executor_conformance.harness.trial import Subject, Trial, expect
from executor_conformance.harness.workers import idle_processes, workers_of
from executor_conformance.rules import must, should
from executor_conformance.verdicts import NotApplicable

#: The event of a death comes within so many seconds; a slow machine makes twice that of it, at the most.
_TOLD_S, _MOST_EXCUSED = 1.0, 2.0
_DEATHS = 4

# -- a worker dies -------------------------------------------------------------------------------------------


def _two_running(trial: Trial, *steps: str) -> tuple[Subject, Gate, Probe, Probe]:
    """An executor with two slots and a task in each; the first of them is doomed."""
    trial.need_processes()
    subject = trial.started(parallelism=2)
    gate = trial.gate()
    doomed, other = trial.probes(2, *steps, gate.step)
    subject.submit(doomed, other)
    subject.await_started(doomed, other)
    return subject, gate, doomed, other


def _need_another_process(one: Probe, other: Probe) -> None:
    """Of tasks that share a process, as coroutines do, none can be spared when it is killed or stopped."""
    if one.runs[0].pid == other.runs[0].pid:
        raise NotApplicable("its tasks share a process, as was seen by their pid")


def _kill_worker(trial: Trial, doomed: Probe, other: Probe, number: int = signal.SIGKILL) -> int:
    worker = workers_of(trial, [doomed, other])[0]
    processes.kill(worker, number)
    return worker


def _await_outcome(subject: Subject, probe: Probe, what: str) -> None:
    subject.until(
        lambda: subject.outcome(probe),
        awaited=f"a terminal event for {what}",
        seen=lambda: subject.story([probe]),
    )


def _expect_capacity(trial: Trial, subject: Subject, parallelism: int, when: str) -> None:
    """N tasks at once again.

    A task that is handed to a worker which has just died may fail instead, if it never started: nobody can
    promise more.  Each death may cost one such task.
    """
    for _ in range(parallelism + 1):
        gate = trial.gate()
        held = trial.probes(parallelism, gate.step)
        subject.submit(*held)
        subject.until(
            lambda: all(probe.started or subject.outcome(probe) for probe in held),  # noqa: B023
            awaited=f"{parallelism} tasks at once {when}",
            seen=lambda: f"{sum(probe.started for probe in held)} at once; {subject.story(held)}",  # noqa: B023
            stalled=True,
        )
        ran = [probe for probe in held if probe.started]
        gate.open()
        for probe in held:
            _await_outcome(subject, probe, f"{probe} {when}")
        for probe in ran:
            expect(
                subject.outcome(probe) == SUCCESS,
                awaited=f"'success' for a task that ran {when}",
                seen=f"{subject.outcome(probe)!r}; {subject.story([probe])}",
            )
        if len(ran) == parallelism:
            return
    expect(False, awaited=f"{parallelism} tasks at once {when}", seen="one task after the other failed")


@must()
def pumping_survives_a_death(trial: Trial) -> None:
    """After a worker was killed, ``heartbeat()``, ``sync()`` and ``get_event_buffer()`` do not raise.

    Why: the scheduler calls them unguarded; an exception there ends the scheduling of everything.
    Likely causes: the end of the worker's pipe is an EOFError that nobody expects; the dead worker is asked
    for its result; a broken pool raises out of everything.
    Origin: apache/airflow#64476; apache/airflow#47873; apache/airflow#32045 (an error that ends the
    scheduler).
    """
    subject, gate, doomed, other = _two_running(trial)
    _kill_worker(trial, doomed, other)
    trial.comes_true(lambda: subject.outcome(doomed), pump=subject.pump)
    gate.open()
    trial.comes_true(lambda: subject.outcome(other), pump=subject.pump)
    for _ in range(10):
        subject.pump()


@must(needs=(Capability.RUNS_ONCE,))
def a_killed_workers_task_is_not_run_again(trial: Trial) -> None:
    """A task whose worker was killed is not run a second time by the executor.

    Why: whether a try may be repeated is the scheduler's decision, and half of its work may be done.
    Likely causes: the task is put back into the queue when the worker dies; the message is acknowledged only
    when the task ends, so that the broker delivers it again.
    Origin: Dask runs the task of a killed worker again; apache/airflow#45606; apache/airflow#16829.
    """
    subject, gate, doomed, other = _two_running(trial)
    _kill_worker(trial, doomed, other)
    trial.comes_true(lambda: subject.outcome(doomed), pump=subject.pump)
    gate.open()
    later = trial.probes(6)
    if subject.refusal(lambda: subject.submit(*later)) is None:
        trial.comes_true(lambda: all(map(subject.outcome, [other, *later])), pump=subject.pump)
    subject.quiet()
    expect(len(doomed.runs) == 1, awaited="one run of the task", seen=subject.story([doomed]))


@must(
    after=(
        "faults.pumping-survives-a-death",
        "faults.a-killed-workers-task-is-not-run-again",
        "states.death-by-signal-is-a-failure",
    )
)
def a_killed_worker_fails_its_task(trial: Trial) -> None:
    """When a worker is killed, the task that it ran is reported ``failed``, once, and soon.

    Why: without the event the task counts as running for ever, and holds its slot.
    Likely causes: only results are waited for, and not the end of the worker; the worker is replaced and its
    task forgotten; success is what is reported when nothing was said.
    Origin: apache/airflow#13542; apache/airflow#28206; Airflow's LocalExecutor never reports the task of a
    killed worker.
    """
    for number in (signal.SIGKILL, signal.SIGSEGV):
        subject, _, doomed, other = _two_running(trial)
        _kill_worker(trial, doomed, other, number)
        _await_outcome(subject, doomed, f"the task whose worker was killed by {number.name}")
        expect(
            subject.outcome(doomed) == FAILED,
            awaited=f"'failed' for the task whose worker was killed by {number.name}",
            seen=repr(subject.outcome(doomed)),
        )
        subject.quiet()
        terminal = [event for event in subject.events_of(doomed) if event.state in TERMINAL_STATES]
        expect(len(terminal) == 1, awaited="one terminal event for it", seen=subject.story([doomed]))


@must(
    needs=(Capability.ARGV, Capability.CALLABLE),
    after=(
        "interface.command-kinds-tell-the-truth",
        "states.death-by-signal-is-a-failure",
        "states.a-hard-exit-means-its-status",
        "faults.a-killed-worker-fails-its-task",
        "faults.capacity-is-restored",
    ),
)
def a_callable_that_leaves_has_failed(trial: Trial) -> None:
    """A callable that leaves by ``os._exit``, or dies of a signal, is reported ``failed`` like a command.

    Why: C code below a callable crashes as well as that below a command; it may take its worker along.
    Likely causes: of a callable only an exception counts; it is run by other code than commands are.
    Origin: the contract; apache/airflow#65833 (exit code lost).
    """
    subject = trial.started()
    if not subject.has_callables_elsewhere():
        raise NotApplicable("its callables run in the host's own process, as was seen by their pid")
    for step in ("_exit=3", f"kill={int(signal.SIGKILL)}"):
        call = trial.probe(step)
        subject = trial.started()
        subject.submit_callable(call)
        subject.await_terminal(call)
        subject.expect_outcome(call, FAILED, f"a callable that ended by {step}")


@should(after=("faults.a-killed-worker-fails-its-task",))
def the_failure_has_a_reason(trial: Trial) -> None:
    """The ``failed`` event of a task whose worker was killed carries a reason.

    Why: the task's own log says nothing; whoever looks for the cause has only this.
    Likely causes: info is always None; the exit status of the worker is not looked at.
    Origin: apache/airflow#65833; apache/airflow#43300 (the exit code is lost).
    """
    subject, _, doomed, other = _two_running(trial)
    _kill_worker(trial, doomed, other)
    _await_outcome(subject, doomed, "the task whose worker was killed")
    expect(subject.info(doomed), awaited="a reason in the info of the event", seen=repr(subject.info(doomed)))


@must(after=("faults.pumping-survives-a-death",))
def the_other_tasks_go_on(trial: Trial) -> None:
    """When a worker is killed, the tasks of the others go on, and those that wait are run.

    Why: one task that uses too much memory must not take the tasks of all other DAGs with it.
    Likely causes: one dead worker breaks the whole pool; the dead worker held the lock of the shared queue;
    tasks that wait are bound to a worker.
    Origin: concurrent.futures' BrokenProcessPool; agronholm/apscheduler#362; apache/airflow#71380.
    """
    subject, gate, doomed, other = _two_running(trial)
    _need_another_process(doomed, other)
    waiting = trial.probes(3)
    subject.submit(*waiting)
    subject.pump()
    _kill_worker(trial, doomed, other)
    # Not before it is noticed: what breaks everything does so then.
    trial.comes_true(lambda: subject.outcome(doomed) or subject.outcome(other), pump=subject.pump)
    gate.open()
    for probe in (other, *waiting):
        what = f"{probe}, which {'ran' if probe is other else 'waited'} when another's worker was killed"
        _await_outcome(subject, probe, what)
        expect(
            subject.outcome(probe) == SUCCESS and len(probe.runs) == 1,
            awaited=f"one run and 'success' for {what}",
            seen=f"{subject.story([probe])}, with info {subject.info(probe)!r:.160}",
        )


@must(
    after=(
        "faults.a-killed-workers-task-is-not-run-again",
        "faults.a-killed-worker-fails-its-task",
        "faults.the-other-tasks-go-on",
        "interface.bookkeeping-has-the-agreed-types",
        "parallelism.slots-are-true-to-the-journal",
    )
)
def capacity_is_restored(trial: Trial) -> None:
    """After workers were killed one by one, N tasks run at once again, and the slots are counted so.

    Why: a slot lost with each death is a scheduler that slows down for weeks, and then stands still.
    Likely causes: the dead worker is not replaced; its task is never taken out of ``running``.
    Origin: apache/airflow#36335; apache/airflow#43448; apache/airflow#42932; apache/airflow#35675;
    apache/airflow#36998.
    """
    subject, gate, doomed, other = _two_running(trial)
    for _ in range(3):
        _kill_worker(trial, doomed, other)
        _await_outcome(subject, doomed, "the task whose worker was killed")
        doomed = trial.probe(gate.step)
        subject.submit(doomed)
        subject.until(
            lambda: doomed.started,  # noqa: B023
            awaited="the slot of a killed worker's task to be used again",
            seen=lambda: subject.story([doomed]),  # noqa: B023
        )
    gate.open()
    subject.await_terminal(doomed, other)
    _expect_capacity(trial, subject, 2, "after workers were killed")
    subject.pump()
    if subject.has("slots_occupied"):
        occupied = subject.optional("slots_occupied")
        expect(occupied == 0, awaited="slots_occupied to be 0 when nothing is left", seen=repr(occupied))
    if subject.has("slots_available"):
        available = subject.optional("slots_available")
        expect(available == 2, awaited="slots_available to be 2 when nothing is left", seen=repr(available))


@must(after=("faults.capacity-is-restored",))
def all_workers_may_die_at_once(trial: Trial) -> None:
    """After all workers were killed at the same time, each of their tasks fails, and work goes on.

    Why: the kernel, an operator or the end of a container kills them together.
    Likely causes: only one death is handled in each pump; with no worker left nobody reads the queue.
    Origin: apache/airflow#13542; the kernel's out-of-memory killer.
    """
    subject, _, doomed, other = _two_running(trial)
    waiting = trial.probes(2)
    subject.submit(*waiting)
    for worker in workers_of(trial, [doomed, other]):
        processes.kill(worker)
    for probe in (doomed, other):
        _await_outcome(subject, probe, "a task when all workers were killed")
        expect(subject.outcome(probe) == FAILED, awaited="'failed' for it", seen=repr(subject.outcome(probe)))
    for probe in waiting:
        _await_outcome(subject, probe, "a task that waited when all workers were killed")
    _expect_capacity(trial, subject, 2, "after all workers were killed")


@must(after=("faults.the-other-tasks-go-on",))
def an_idle_worker_may_die(trial: Trial) -> None:
    """An idle worker may be killed, whichever it is and whatever it holds: tasks go on, N at once.

    Why: the kernel chooses by size, and a worker that has done much is large.
    Likely causes: idle workers wait on a shared queue, and the one that dies holds its lock; a message is
    half written; the host writes to the dead one's pipe; the dead one is never replaced.
    Origin: Airflow's LocalExecutor, multiprocessing.Pool: all workers wait for the dead one's lock.
    """
    for subject, worker in _with_each_idle_worker(trial):
        processes.kill(worker)
        subject.quiet()
        _expect_capacity(trial, subject, 2, "after an idle worker was killed")


def _with_each_idle_worker(trial: Trial) -> Iterator[tuple[Subject, int]]:
    """A new executor for each of its idle workers, and the pid of that worker."""
    trial.need_processes()
    position, found = 0, 1
    while position < found:
        subject = trial.started(parallelism=2)
        workers = idle_processes(subject).workers
        if not workers:
            raise NotApplicable("no worker was seen to stay when its task had ended")
        found = max(found, len(workers))
        yield subject, workers[min(position, len(workers) - 1)]
        position += 1


@must(
    after=(
        "faults.a-killed-worker-fails-its-task",
        "faults.capacity-is-restored",
        "faults.an-idle-worker-may-die",
    )
)
def a_worker_may_die_between_two_tasks(trial: Trial) -> None:
    """A task that is handed over just after an idle worker was killed is run, or reported ``failed``.

    Why: between the death and its discovery the host deals with a worker that is not there.
    Likely causes: the order is written to a pipe that nobody reads any more, and forgotten; the error of that
    write is taken for the end of everything.
    Origin: apache/airflow#69975; Airflow 2's LocalExecutor loses a task when an idle worker is killed.
    """
    for subject, worker in _with_each_idle_worker(trial):
        processes.kill(worker)
        _expect_capacity(trial, subject, 2, "just after an idle worker was killed")


@must(after=("faults.an-idle-worker-may-die", "faults.a-worker-may-die-between-two-tasks"))
def a_worker_may_die_during_start(trial: Trial) -> None:
    """A worker that is killed while ``start()`` makes it does not hold up what comes.

    Why: memory is shortest when everything starts.
    Likely causes: start() waits for a sign from each worker; a lock is held by the one that dies.
    Origin: the contract; apache/airflow#41992 (a start that waits for ever).
    """
    trial.need_processes()
    subject = trial.started(parallelism=2)
    made = sorted(trial.processes(), key=lambda process: (process.started, process.pid))
    gate = trial.gate()
    held = trial.probes(2, gate.step)
    subject.submit(*held)
    subject.await_started(*held)
    workers = workers_of(trial, held)
    places = [place for place, process in enumerate(made) if process.pid in workers]
    if not places:
        raise NotApplicable("start() makes no worker")
    gate.open()
    subject.await_terminal(*held)
    subject.end()
    for place in places:
        subject = trial.build(parallelism=2)
        before = {process.pid for process in trial.processes()}
        hand = trial.meanwhile(lambda: _kill_when_made(trial, place, before))  # noqa: B023
        refusal = subject.refusal(subject.start)
        trial.comes_true(lambda: not processes.is_alive(hand))  # noqa: B023
        trial.kill_own(hand)
        if refusal is None:  # else it was said, and nobody waits for anything
            _expect_capacity(trial, subject, 2, "after a worker was killed during start()")


def _kill_when_made(trial: Trial, place: int, before: set[int]) -> None:
    """Kill the process that is made as number ``place`` after these."""
    made: list[int] = []
    while len(made) <= place:
        made += sorted({process.pid for process in trial.processes()} - before - set(made))
    processes.kill(made[place])


@must(
    after=(
        "faults.a-killed-worker-fails-its-task",
        "faults.the-other-tasks-go-on",
        "shutdown.running-tasks-are-finished",
        "shutdown.events-of-the-end-stay",
        "shutdown.end-returns-after-a-worker-died",
    )
)
def a_worker_may_die_during_end(trial: Trial) -> None:
    """``end()`` returns when a worker is killed while it waits, and what was to come of the tasks comes.

    Why: the end of a scheduler is often the end of a machine that is short of something.
    Likely causes: end() waits for a result that never comes; it waits for a dead worker to take its pill.
    Origin: apache/airflow#67870; apache/airflow#14085; apache/airflow#18989; apache/airflow#23944.
    """
    subject, gate, doomed, other = _two_running(trial)
    worker = workers_of(trial, [doomed, other])[0]

    def kill_and_open() -> None:
        trial.await_call("end()")
        processes.kill(worker)
        gate.open()
        signal.pause()  # the gate is open for as long as this process holds it

    hand = trial.meanwhile(kill_and_open)
    subject.end()
    subject.drain_all()
    trial.kill_own(hand)
    for probe, state in ((doomed, FAILED), (other, SUCCESS)):
        expect(
            subject.outcome(probe) == state,
            awaited=f"{state!r} for {probe} after end(), in which the worker of {doomed} was killed",
            seen=subject.story([probe]),
        )


@must(
    after=(
        "shutdown.terminate-stops-what-runs",
        "shutdown.terminate-stops-the-stubborn",
        "shutdown.terminate-leaves-no-worker",
        "parallelism.no-slot-stays-idle",
    )
)
def a_stopped_worker_holds_up_nobody(trial: Trial) -> None:
    """While a worker is stopped (SIGSTOP) the other slots go on, and ``terminate()`` still works.

    Why: a stopped worker cannot be told from a long task; it must not be worse than one.
    Likely causes: the host waits for an answer of each worker in turn; terminate() sends SIGTERM, which a
    stopped process does not get, and waits.
    Origin: apache/airflow#71380; apache/airflow#18989.
    """
    trial.need_processes()
    subject = trial.started(parallelism=3)
    gate = trial.gate()
    stopped, other = trial.probes(2, gate.step)
    subject.submit(stopped, other)
    subject.await_started(stopped, other)
    _need_another_process(stopped, other)
    worker = workers_of(trial, [stopped, other])[0]
    processes.kill(worker, signal.SIGSTOP)
    quick = trial.probes(6)
    subject.submit(*quick)
    for probe in quick:
        _await_outcome(subject, probe, "a task beside a stopped worker")
    gate.open()
    _await_outcome(subject, other, "a task that ran when another's worker was stopped")
    if subject.can(Capability.TERMINATE):
        subject.terminate()
        trial.until(
            lambda: not processes.is_alive(worker),
            awaited="a stopped worker to be gone after terminate()",
            seen=lambda: str(processes.look(worker)),
        )


@must()
def a_killed_workers_task_is_stopped(trial: Trial) -> None:
    """When a worker is killed, the process of its task does not live on.

    Why: the scheduler starts the next try, and two run at once.
    Likely causes: the task is a child that does not notice its parent's death; it has a session of its own.
    Origin: apache/airflow#880; apache/airflow#1157; the tasks of Airflow's LocalExecutor finish what their
    killed worker began.
    """
    subject, _, doomed, other = _two_running(trial)
    worker = _kill_worker(trial, doomed, other)
    task = doomed.runs[0].pid
    if worker == task:
        raise NotApplicable("the worker was seen to be the task's own process")
    subject.until(
        lambda: not processes.is_alive(task),
        awaited="the task's process to be gone after its worker was killed",
        seen=lambda: f"it is still there: {processes.look(task)}",
    )


@should(
    after=(
        "faults.a-killed-workers-task-is-stopped",
        "shutdown.terminate-takes-the-children-too",
        "shutdown.no-zombie-is-left",
    )
)
def a_killed_workers_task_takes_its_children_along(trial: Trial) -> None:
    """When a worker is killed, what its task has started does not live on either.

    Why: a task is often a shell, and its child does the work, now beside that of the next try.
    Likely causes: nobody ends the process group of a task that was killed; only the direct child is known.
    Origin: apache/airflow#1157; apache/airflow#13215.
    """
    trial.need_processes()
    subject = trial.started(parallelism=2)
    gate = trial.gate()
    doomed, other = trial.probes(2, f"child={gate.path}", gate.step)
    subject.submit(doomed, other)
    subject.until(
        lambda: all(probe.runs and probe.runs[0].children for probe in (doomed, other)),
        awaited="2 tasks to start a child process each",
        seen=lambda: subject.story([doomed, other]),
        stalled=True,
    )
    _kill_worker(trial, doomed, other)
    children = doomed.runs[0].children
    subject.until(
        lambda: not any(map(processes.is_alive, children)),
        awaited="the task's own child to be gone after the worker was killed",
        seen=lambda: f"it is still there: {processes.look(children[0])}",
    )


# -- a task misbehaves ---------------------------------------------------------------------------------------


def _beside_others(
    trial: Trial, *steps: str, states: tuple[str, ...], what: str, callable_too: bool = False
) -> None:
    """Run a bad task among good ones, twice: as a command and, if need be, as a callable."""
    for as_callable in (False, True) if callable_too else (False,):
        subject = trial.started(parallelism=2)
        if as_callable and not (subject.can(Capability.CALLABLE) and _calls_have_processes(trial, subject)):
            return
        good = trial.probes(5)
        bad = trial.probe(*steps)
        subject.submit(*good[:2])
        if as_callable:
            subject.submit_callable(bad)
        else:
            subject.submit(bad)
        subject.submit(*good[2:])
        _await_outcome(subject, bad, what)
        expect(
            subject.outcome(bad) in states,
            awaited=f"{' or '.join(map(repr, states))} for {what}",
            seen=f"{subject.outcome(bad)!r} with info {subject.info(bad)!r:.160}",
        )
        for probe in good:
            _await_outcome(subject, probe, f"a good task beside {what}")
            expect(
                subject.outcome(probe) == SUCCESS,
                awaited=f"'success' for a good task beside {what}",
                seen=f"{subject.outcome(probe)!r} with info {subject.info(probe)!r:.160}",
            )
        _expect_capacity(trial, subject, 2, f"after {what}")


def _calls_have_processes(trial: Trial, subject: Subject) -> bool:
    """Whether callables run elsewhere than in the host, which commands do in any case."""
    if trial.facts.tasks_in_host:
        return True  # the rule knows
    probe = trial.probe()
    subject.submit_callable(probe)
    subject.await_terminal(probe)
    return not any(run.pid == trial.host for run in probe.runs)


@must()
def a_flood_of_output_stalls_nothing(trial: Trial) -> None:
    """A task that writes far more than a pipe holds to its output and error streams ends like any other.

    Why: tasks log; one that nobody reads stops in the middle of its work, and holds its slot.
    Likely causes: output goes to a pipe that is read only at the end; nobody reads it at all.
    Origin: the subprocess module's warning about wait() with pipes; apache/airflow#71380.
    """
    size = 1 << 20
    _beside_others(trial, f"say={size}", f"cry={size}", states=(SUCCESS,), what="a task that writes 2 MiB")


@must(
    after=(
        "faults.the-other-tasks-go-on",
        "interface.command-kinds-tell-the-truth",
        "parallelism.failed-tasks-give-their-slots-back",
    )
)
def a_task_may_close_every_descriptor(trial: Trial) -> None:
    """A task that closes every descriptor it has harms only itself.

    Why: daemonising code does so first thing; what it closes may be the worker's line to the host.
    Likely causes: the result travels on a descriptor that the task shares; what it did not say is waited for.
    Origin: python-daemon's and supervisord's way to start; the contract: one bad task costs one task.
    """
    trial.need_processes()
    _beside_others(
        trial,
        "closeall",
        states=(SUCCESS, FAILED),
        what="a task that closes every descriptor",
        callable_too=True,
    )


@must(after=("interface.command-kinds-tell-the-truth",))
def a_daemon_left_by_a_task_holds_up_nothing(trial: Trial) -> None:
    """A task that leaves a daemon behind ends when it ends, and not when the daemon does.

    Why: the daemon holds the task's streams and pipes open; whoever waits for their end waits for ever.
    Likely causes: the end of a pipe is taken for the end of the task; the whole process group is waited for.
    Origin: python/cpython#119710; python/cpython#75628 (waits for the last holder of a pipe).
    """
    trial.need_processes()
    gate = trial.gate()
    _beside_others(
        trial, f"daemon={gate.path}", states=(SUCCESS,), what="a task that leaves a daemon", callable_too=True
    )


@must(
    needs=(Capability.CALLABLE,),
    after=(
        "states.an-exception-is-a-failure",
        "interface.command-kinds-tell-the-truth",
        "parallelism.failed-tasks-give-their-slots-back",
    ),
)
def an_exception_that_cannot_travel_is_a_failure(trial: Trial) -> None:
    """An exception that cannot be pickled, or cannot be unpickled, fails its task and nothing else.

    Why: exceptions of libraries hold locks, sockets, or arguments that their class does not take again.
    Likely causes: the result is pickled in a thread that dies of it; the host unpickles unguarded.
    Origin: apache/airflow#64476; apache/airflow#49099 (the scheduler ends); python/cpython#103061;
    python/cpython#79492; agronholm/pythonfutures#30 (pools that hang).
    """
    for step, what in (
        ("raise-unpicklable", "an exception that cannot be pickled"),
        ("raise-unloadable", "an exception that cannot be unpickled"),
    ):
        _beside_others(trial, step, states=(FAILED,), what=what, callable_too=True)


@must(after=("states.an-exception-is-a-failure", "parallelism.failed-tasks-give-their-slots-back"))
def a_task_out_of_stack_or_memory_fails_alone(trial: Trial) -> None:
    """A task that runs out of stack or of the memory that it may have fails, and nothing else.

    Why: these strike in the middle of whatever runs, also in the code that would report it.
    Likely causes: only Exception is caught around the task; the report itself needs memory.
    Origin: apache/airflow#64476; the contract: one bad task costs one task.
    """
    _beside_others(trial, "recurse", states=(FAILED,), what="a task without end of recursion")
    if not trial.facts.tasks_in_host:
        _beside_others(
            trial,
            f"allocate={1 << 30}",
            states=(FAILED,),
            what="a task that may not have the memory it asks for",
        )


@must(
    after=(
        "states.what-cannot-be-executed-fails",
        "parallelism.failed-tasks-give-their-slots-back",
        "interface.takes-queue-and-executor-config",
    )
)
def one_bad_task_stalls_no_other(trial: Trial) -> None:
    """Among bad tasks of every kind, and strange queues and configs, the good ones are all run.

    Why: one user's mistake must not be the outage of all others.
    Likely causes: an error in the hand-over leaves the loop over what waits; the bad one stays first in line.
    Origin: apache/airflow#71380; apache/airflow#37979.
    """
    subject = trial.started(parallelism=2)
    bad: list[tuple[Probe, dict[str, Any]]] = [
        (trial.probe("raise=on purpose"), {}),
        (trial.probe("raise=" + "x" * 5000), {}),
    ]
    if subject.can(Capability.ARGV):
        bad += [(trial.program(path), {}) for path in ("/nonexistent/program", "/", "/dev/null")]
    if subject.can(Capability.EXIT_STATUS):
        bad.append((trial.probe("exit=3"), {}))
    if subject.can(Capability.QUEUE_AND_CONFIG):
        bad.append((trial.probe(), {"queue": "nobody-reads-this"}))
        bad.append((trial.probe(), {"executor_config": {"odd": threading.Lock()}}))
    good = trial.probes(len(bad) + 1)
    accepted = []
    subject.submit(good[0])
    for (probe, extra), another in zip(bad, good[1:], strict=True):
        if subject.refusal(lambda: subject.submit(probe, **extra)) is None and "queue" not in extra:  # noqa: B023
            accepted.append(probe)
        subject.submit(another)
    for probe in good:
        _await_outcome(subject, probe, "a good task among bad ones")
        expect(
            subject.outcome(probe) == SUCCESS,
            awaited="'success' for a good task among bad ones",
            seen=f"{subject.outcome(probe)!r} with info {subject.info(probe)!r:.160}",
        )
    for probe in accepted:
        _await_outcome(subject, probe, "a bad task that was accepted")


@must(after=("states.sync-waits-for-no-task",))
def a_backlog_never_blocks_the_host(trial: Trial) -> None:
    """Handing over more than any pipe or queue holds blocks nothing while all slots are taken.

    Why: the scheduler hands over thousands of tasks in one loop, and serves all executors with it.
    Likely causes: commands are written to a pipe that only an idle worker reads; a queue has a bound.
    Origin: apache/airflow#70526 (the scheduler stands still in the write to its LocalExecutor's queue).
    """
    subject = trial.started(parallelism=2)
    gate = trial.gate()
    held = trial.probes(2, gate.step)
    subject.submit(*held)
    subject.await_started(*held)
    backlog = [trial.probe("note=" + "x" * 90_000) for _ in range(20)]
    for probe in backlog:
        subject.submit(probe)
        subject.pump()
    gate.open()
    for probe in (*held, *backlog):
        _await_outcome(subject, probe, "a task of a large backlog")
        expect(
            subject.outcome(probe) == SUCCESS,
            awaited="'success' for a task of a large backlog",
            seen=f"{subject.outcome(probe)!r} with info {subject.info(probe)!r:.160}",
        )


#: What ``select()`` is made for, and what leaves room for an executor beside them.
_FD_SETSIZE, _ROOM_FOR_DESCRIPTORS = 1024, 2048


# -- the host is short of something --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shortage:
    """Something that the host can run short of."""

    what: str
    begin: Callable[[], None]
    relieve: Callable[[], None]


def _live_through(trial: Trial, subject: Subject, shortage: _Shortage) -> list[Exception]:
    """Submit tasks and pump during the shortage; the errors that the pumping raised.

    What was submitted is refused, or gets its event, at the latest after the shortage; then all is as before.
    """
    first = trial.probe()
    subject.run(first)  # whatever it makes for its first task is made
    if subject.outcome(first) != SUCCESS:
        raise NotApplicable(f"no task runs as it is prepared here: {subject.info(first)!r:.160}")
    probes = trial.probes(4)
    errors = []

    def pump() -> None:
        error = subject.refusal(subject.pump)
        if error is not None:
            errors.append(error)

    shortage.begin()
    try:
        refusals = [subject.refusal(lambda: subject.submit(probe)) for probe in probes]  # noqa: B023
        # As long as it takes for the tasks to meet the shortage too, if they start at all.
        trial.comes_true(
            lambda: all(subject.outcome(probe) for probe in probes),
            pump=pump,
            budget_s=4 * trial.budgets.quiet_s,
        )
    finally:
        shortage.relieve()
    accepted = [probe for probe, refusal in zip(probes, refusals, strict=True) if refusal is None]
    for probe in accepted:
        _await_outcome(subject, probe, f"a task that was accepted when {shortage.what}")
    _expect_capacity(trial, subject, 2, f"after {shortage.what}")
    for probe in probes:
        expect(
            len(probe.runs) <= (probe in accepted),
            awaited="one run at most of what was accepted, and none of what was refused",
            seen=f"{subject.story([probe])}; it was {'accepted' if probe in accepted else 'refused'}",
        )
    return errors


def _no_descriptors() -> _Shortage:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []

    def begin() -> None:
        highest = max(processes.open_descriptors()) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(highest, 64), limits[1]))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))

    def relieve() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in taken:
            os.close(descriptor)

    return _Shortage("the host had no descriptor left", begin, relieve)


def _no_processes(trial: Trial) -> _Shortage:
    """To be made before the executor is started: a limit of processes is inherited."""
    if not obey_process_limits():
        raise NotApplicable("the suite runs as root, and may not give up root's right to have any number")
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    resource.setrlimit(resource.RLIMIT_NPROC, (processes.threads_of_user(os.getuid()) + 24, hard))
    fillers: list[int] = []

    def begin() -> None:
        with contextlib.suppress(OSError):
            while True:
                fillers.append(trial.meanwhile(signal.pause))

    def relieve() -> None:
        for pid in fillers:
            trial.kill_own(pid)

    return _Shortage("no process could be made", begin, relieve)


@should()
def descriptors_may_have_large_numbers(trial: Trial) -> None:
    """An executor works in a host that has more than a thousand descriptors open.

    Why: connections and log files of a large scheduler are that many, and the next descriptor has a number
    above 1,024 wherever the limit allows it.
    Likely causes: ``select.select()``, which takes none of these; a table of descriptors with a fixed size.
    Origin: noxdafox/pebble#48; facebookincubator/submitit#1687 (filedescriptor out of range in select()).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _ROOM_FOR_DESCRIPTORS:
        raise NotApplicable(f"a process may have {hard} descriptors here, and no more")
    if soft != resource.RLIM_INFINITY and soft < _ROOM_FOR_DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (_ROOM_FOR_DESCRIPTORS, hard))
    while os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) < _FD_SETSIZE:
        pass  # this process ends with the rule
    subject = trial.started(parallelism=2)
    good, bad = trial.probes(3), trial.probe("raise=on purpose")
    subject.run(*good, bad)
    for probe in good:
        subject.expect_outcome(probe, SUCCESS, "a task of a host with many descriptors")
    subject.end()


@must(after=("faults.pumping-survives-a-death",))
def the_host_may_run_out_of_descriptors(trial: Trial) -> None:
    """While the host has no descriptor left, tasks are refused or get their event; then all is well.

    Why: another part of the scheduler leaks them; the error comes from whatever opens the next one.
    Likely causes: a slot is taken before the worker is made, and not given back; a task is started that
    nobody can watch; the error leaves through sync().
    Origin: apache/airflow#28328; apache/airflow#56641.
    """
    _live_through(trial, trial.started(parallelism=2), _no_descriptors())


@must(
    after=(
        "faults.pumping-survives-a-death",
        "faults.a-killed-worker-fails-its-task",
        "faults.the-other-tasks-go-on",
        "faults.capacity-is-restored",
        "faults.all-workers-may-die-at-once",
        "faults.a-worker-may-die-between-two-tasks",
        "states.a-result-belongs-to-its-task",
    )
)
def the_host_may_run_out_of_processes(trial: Trial) -> None:
    """While no process can be made, tasks are refused or get their event; then all is well.

    Why: the limit of a container or a user is reached by whatever else runs there.
    Likely causes: the error of fork leaves through sync(); the task is gone from the queue by then; the slot
    stays taken.
    Origin: apache/airflow#28328; apache/airflow#1157.
    """
    shortage = _no_processes(trial)
    _live_through(trial, trial.started(parallelism=2), shortage)


@should(
    after=(
        "faults.pumping-survives-a-death",
        "faults.the-host-may-run-out-of-descriptors",
        "faults.the-host-may-run-out-of-processes",
    )
)
def pumping_survives_a_shortage(trial: Trial) -> None:
    """While descriptors or processes are short, ``heartbeat()`` and ``sync()`` do not raise.

    Why: the scheduler calls them unguarded; the shortage passes, and the scheduler is gone.
    Likely causes: the error of fork or open leaves the hand-over; a worker is replaced in the middle of the
    collecting.
    Origin: apache/airflow#28328; apache/airflow#32045 (an error that ends the scheduler).
    """
    subject = trial.started(parallelism=2)
    errors = _live_through(trial, subject, _no_descriptors())
    with contextlib.suppress(NotApplicable):
        shortage = _no_processes(trial)
        errors += _live_through(trial, trial.started(parallelism=2), shortage)
    expect(
        not errors, awaited="no error out of the pumping", seen=f"{len(errors)}, such as {errors[:1]!r:.300}"
    )


@must(after=("faults.pumping-survives-a-death",))
def the_disk_may_be_full(trial: Trial) -> None:
    """While the disk for temporary files is full, tasks are refused or get their event; then all is well.

    Why: logs fill it, some night.
    Likely causes: results travel in files, and what was not written is waited for; a log cannot be opened.
    Origin: apache/airflow#69975; apache/airflow#55004 (an event that is lost).
    """
    directory = tempfile.gettempdir()
    if not private_disk(directory, 1 << 16):
        raise NotApplicable("no file system can be mounted here to be filled")
    subject = trial.started(parallelism=2)
    filler = os.path.join(directory, "filler")

    def fill() -> None:
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(b"f" * 4096)

    _live_through(trial, subject, _Shortage("the disk was full", fill, lambda: os.unlink(filler)))


@must(after=("shutdown.terminate-stops-what-runs",))
def the_hosts_signal_handlers_do_no_harm(trial: Trial) -> None:
    """Work goes on in a host that handles SIGTERM, SIGINT and SIGCHLD itself, and no SIGTERM or SIGINT comes.

    Why: schedulers shut down in an orderly way by just these.
    Likely causes: workers inherit the handlers, which keep them from dying; end() signals its own process
    group; the executor's own SIGCHLD handler was what noticed the ends.
    Origin: apache/airflow#18989; apache/airflow#14085.
    """
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
    caught: list[int] = []

    def handler(number: int, _frame: object) -> None:
        caught.append(number)

    for number in numbers:
        signal.signal(number, handler)
    subject = trial.started(parallelism=2)
    good, bad = trial.probes(4), trial.probe("raise=on purpose")
    subject.run(*good, bad)
    for probe in good:
        subject.expect_outcome(probe, SUCCESS, "a task of a host that handles SIGCHLD")
    subject.expect_outcome(bad, FAILED, "a failing task of a host that handles SIGCHLD")
    if subject.can(Capability.TERMINATE) and not trial.facts.tasks_in_host:
        stopped = trial.started(parallelism=2)
        held = trial.probes(2, trial.gate().step)
        stopped.submit(*held)
        stopped.await_started(*held)
        stopped.terminate()
        trial.until(
            lambda: not any(processes.is_alive(probe.runs[0].pid) for probe in held),
            awaited="terminate() to stop tasks whose host handles SIGTERM",
            seen=lambda: stopped.story(held),
        )
    subject.end()
    sent = sorted({signal.Signals(number).name for number in caught if number != signal.SIGCHLD})
    expect(not sent, awaited="no SIGTERM or SIGINT to reach the host", seen=f"it got {', '.join(sent)}")


@must()
def threads_of_the_host_do_no_harm(trial: Trial) -> None:
    """Tasks run and end while threads of the host log, import and hold locks.

    Why: a fork takes over every lock as it is at that moment, and no thread to release it.
    Likely causes: a forked worker takes a lock (of logging, of a queue, of the executor) that a thread of the
    host held; it flushes the host's log files before it exits (``logging.shutdown()``, ``sys.exit()``); the
    child waits for threads that it does not have.
    Origin: apache/airflow#71707 (a lock held across the fork); aws/amazon-mwaa-docker-images#495 (a log's).
    """
    over = threading.Event()
    logger = logging.getLogger("executor_conformance.noise")
    logger.addHandler(logging.StreamHandler(open(os.devnull, "w")))  # noqa: SIM115 - for as long as the host
    logger.propagate = False
    lock = threading.Lock()

    def make_noise() -> None:
        while not over.is_set():
            with lock:
                logger.warning("noise")
                importlib.import_module("json")
                over.wait(0.001)

    with _a_thread_that_writes_to_its_log():
        threads = [threading.Thread(target=make_noise, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            subject = trial.started(parallelism=3)
            probes = trial.probes(20)
            subject.submit(*probes)
            for probe in probes:
                _await_outcome(subject, probe, "a task of a host with busy threads")
                expect(
                    subject.outcome(probe) == SUCCESS,
                    awaited="'success' for a task of a host with busy threads",
                    seen=f"{subject.outcome(probe)!r} with info {subject.info(probe)!r:.160}",
                )
            subject.end()
        finally:
            over.set()


@contextlib.contextmanager
def _a_thread_that_writes_to_its_log() -> Iterator[None]:
    """It is in the middle of that, and so holds the lock of the file, because the log's reader is slow."""
    reader, writer = os.pipe()
    logger = logging.getLogger("executor_conformance.slow")
    logger.addHandler(logging.StreamHandler(open(writer, "w")))  # noqa: SIM115 - for as long as the host
    logger.propagate = False
    message = "x" * (1 << 20)  # more than a pipe holds
    thread = threading.Thread(target=logger.warning, args=(message,), daemon=True)
    thread.start()
    poll = select.poll()
    poll.register(writer, select.POLLOUT)
    try:
        while poll.poll(0):
            thread.join(0.001)
        yield
    finally:
        unread = len(message) + len("\n")
        while unread:
            unread -= len(os.read(reader, unread))
        thread.join()
        os.close(reader)


@should(
    after=(
        "faults.pumping-survives-a-death",
        "faults.a-killed-worker-fails-its-task",
        "queued_time.the-end-of-a-task-is-told-within-a-second",
    )
)
def a_death_is_told_within_a_second(trial: Trial) -> None:
    """The ``failed`` event of a task whose worker was killed is in the buffer within a second.

    Why: what has to be done about it, another try or a word to somebody, cannot begin before.
    Likely causes: whether workers live is asked by a timer; nobody waits for their end, only for what they
    say; a join with a timeout for each of them in turn.
    Origin: apache/airflow#28206 and apache/airflow#13542 (tasks of dead workers are found by a timeout).
    """
    took_s: list[float] = []
    late = 0
    for _ in range(_DEATHS):
        subject, gate, doomed, other = _two_running(trial)
        began = monotonic()
        _kill_worker(trial, doomed, other)
        _await_outcome(subject, doomed, "the task whose worker was killed")
        took_s.append(monotonic() - began)
        if took_s[-1] > _TOLD_S:
            late += took_s[-1] > _TOLD_S * min(max(trial.slowdown(), 1.0), _MOST_EXCUSED)
        gate.open()
    trial.measurements["told_s"] = [round(seconds, 4) for seconds in took_s]
    expect(
        late < 2,  # a single one may be the machine's
        awaited=f"the event within {_TOLD_S:.0f} s of the death",
        seen=f"{late} of {len(took_s)} came later, the latest after {max(took_s):.2f} s",
    )
