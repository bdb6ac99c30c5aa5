"""The end: accepted work is done, workers get their poison pills and are gone, nothing stays behind.

``end()`` is patient and ``terminate()`` is not; what is left of an executor after either is its event buffer.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict

from executor_conformance.contract import FAILED, SUCCESS, TERMINAL_STATES, TaskKey
from executor_conformance.driving import Capability
from executor_conformance.harness import processes
from executor_conformance.harness.linux import monotonic, monotonic_ns, private_disk
from executor_conformance.harness.pace import SlowPace
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.processes import Process
from executor_conformance.harness.trial import SHARED_NAMES, Subject, Trial, expect
from executor_conformance.harness.workers import idle_processes
from executor_conformance.rules import may, must, should
from executor_conformance.verdicts import NotApplicable


def _alive(trial: Trial) -> list[Process]:
    return [process for process in trial.processes() if not process.is_zombie]


_CALM_LOOKS = 4
#: A slow machine excuses so many times that.
_SOON_S, _MOST_EXCUSED = 1.0, 2.0
_WAITING_AT_SHUTDOWN = 16
_FEWEST_CYCLES, _MOST_CYCLES, _CYCLES_S = 3, 8, 15.0
#: In seconds and forks: a worker has taken its pill and gone by then; and how often the host rests.
_REST_S, _REST_FORKS, _RESTS = 0.05, 20, 16


def _expect_gone(trial: Trial, what: str) -> None:
    known: set[int] = set()
    calm = 0

    def is_calm() -> bool:
        # One look can miss a process whose parent ends meanwhile.  What breeds so fast that every look
        # misses it is seen by the dead that it leaves.
        nonlocal calm
        found = trial.processes()
        new = {process.pid for process in found} - known
        known.update(new)
        calm = 0 if any(not process.is_zombie for process in found) or (new and calm) else calm + 1
        return calm >= _CALM_LOOKS

    trial.until(
        is_calm,
        awaited=f"every worker to be gone after {what}",
        seen=lambda: f"{len(_alive(trial))} still there: " + "; ".join(map(str, _alive(trial)[:4])),
    )


@must()
def every_worker_exits(trial: Trial) -> None:
    """After ``end()`` no worker is left, whether it has worked or not.

    Why: a worker that is left holds memory and connections, and the next start adds more.
    Likely causes: fewer pills than workers; a worker does not see its pill; processes are started but not
    kept track of; end() does not join.
    Origin: apache/airflow#5200; apache/airflow#23944; one poison pill (None, None) for
    each of Airflow's workers.
    """
    threads = {thread.ident for thread in threading.enumerate()}
    idle = trial.started(parallelism=3)
    idle.end()
    _expect_gone(trial, "end() of an executor that had no work")
    subject = trial.started(parallelism=3)
    subject.run(*trial.probes(4))
    subject.end()
    _expect_gone(trial, "end()")
    if trial.facts.tasks_in_host:
        trial.until(
            lambda: {thread.ident for thread in threading.enumerate()} <= threads,
            awaited="every worker thread to be gone after end()",
            seen=lambda: f"{threading.active_count()} threads instead of {len(threads)}",
        )


def _drain_the_rest(trial: Trial, subject: Subject, probes: list[Probe]) -> None:
    """Take what is left in the buffer after ``end()``; it need not all come at once."""
    trial.comes_true(
        lambda: all(subject.outcome(probe) for probe in probes),
        pump=subject.drain,
        budget_s=trial.budgets.quiet_s * 4,
    )


@must(after=("shutdown.every-worker-exits",))
def no_zombie_is_left(trial: Trial) -> None:
    """After ``end()``, and after ``terminate()``, every child that has exited has been waited for.

    Why: a zombie keeps its place in the process table until the host ends, and hosts run for months.
    Likely causes: processes are killed but not joined; a double fork without a reaper; the end by a signal is
    another path, which returns early.
    Origin: apache/airflow#880; apache/airflow#13215.
    """
    trial.need_processes()

    def children() -> list[Process]:
        return [process for process in trial.processes() if process.parent == trial.host]

    def zombies() -> list[Process]:
        return [process for process in children() if process.is_zombie]

    def expect_no(
        found: Callable[[], list[Process]], after: str, pump: Callable[[], object] | None = None
    ) -> None:
        trial.until(
            lambda: not found(),
            awaited=f"no zombie among the host's children after {after}",
            seen=lambda: f"{len(found())}: " + "; ".join(map(str, found()[:4])),
            pump=pump,
        )

    subject = trial.started()
    subject.run(*trial.probes(3), trial.probe("raise=on purpose"))
    subject.end()
    expect_no(children, "end()")  # the living too: they become zombies a moment later
    subject = trial.started()
    killed = trial.probe(f"kill={int(signal.SIGKILL)}")
    subject.submit(killed)
    if trial.comes_true(lambda: subject.outcome(killed), pump=subject.pump):  # else it would be waited for
        subject.end()
        expect_no(children, "end(), where a task had been killed")
    if not subject.can(Capability.TERMINATE):
        return
    subject = trial.started()
    running = trial.probes(2, trial.gate().step)
    subject.submit(*running)
    subject.await_started(*running)
    subject.terminate()
    trial.quiet()  # whether it stops them is another rule's affair
    expect_no(zombies, "terminate()", lambda: subject.refusal(subject.pump))


@must(after=("shutdown.every-worker-exits",))
def running_tasks_are_finished(trial: Trial) -> None:
    """``end()`` lets running tasks finish, and their workers go then.

    Why: end() is the orderly way; what runs was promised to be run.
    Likely causes: workers are terminated instead of being given a pill; end() waits for idle workers only.
    Origin: the contract; apache/airflow#14085; apache/airflow#18989.
    """
    subject = trial.started()
    probes = trial.probes(2, "nap=0.25")
    subject.submit(*probes)
    subject.await_started(*probes)
    subject.end()
    unfinished = [probe for probe in probes if not probe.finished]
    expect(
        not unfinished,
        awaited="running tasks to be finished when end() returns",
        seen=f"{len(unfinished)} of 2 were not; {subject.story(unfinished)}",
    )
    _expect_gone(trial, "end() with 2 tasks running")


@must(needs=(Capability.FINISHES_QUEUED_WORK,), after=("shutdown.running-tasks-are-finished",))
def accepted_work_is_finished(trial: Trial) -> None:
    """``end()`` also runs what was accepted and has not started yet.

    Why: accepted is accepted: what is dropped here is never reported, and stays queued for ever.
    Likely causes: the pills overtake the tasks; only what was handed to workers counts; the queue is closed
    first.
    Origin: the contract (a pill stops a worker after the work before it); Airflow's LocalExecutor drops it.
    """
    subject = trial.started(parallelism=2)
    probes = trial.probes(7, "nap=0.02")
    subject.submit(*probes[:5])
    subject.submit(*probes[5:], priority=1 if subject.has("queue_command") else None)
    subject.end()
    unfinished = [probe for probe in probes if not probe.finished]
    expect(
        not unfinished,
        awaited="all of 7 accepted tasks to be finished when end() returns",
        seen=f"{len(unfinished)} were not; {subject.story(unfinished)}",
    )


@must(
    after=(
        "states.an-event-is-returned-once",
        "shutdown.running-tasks-are-finished",
        "states.an-exception-is-a-failure",
    )
)
def events_of_the_end_stay(trial: Trial) -> None:
    """The events of tasks that end during ``end()`` are in the buffer after it.

    Why: the scheduler drains the buffer once more after end(); what is not there never happened.
    Likely causes: results are not collected after the workers have gone; the buffer is cleared or closed.
    Origin: apache/airflow#69975 (events lost at shutdown).
    """
    subject = trial.started()
    good, bad = trial.probe("nap=0.2"), trial.probe("nap=0.2", "raise=on purpose")
    subject.submit(good, bad)
    trial.until(
        lambda: good.started and bad.started,
        awaited="2 tasks to start",
        stalled=True,
        seen=lambda: subject.story([good, bad]),
        pump=subject.pump,
    )
    subject.end()
    _drain_the_rest(trial, subject, [good, bad])
    for probe, state in ((good, SUCCESS), (bad, FAILED)):
        events = [event for event in subject.events_of(probe) if event.state in TERMINAL_STATES]
        expect(
            [event.state for event in events] == [state],
            awaited=f"one {state!r} event for a task that ended during end()",
            seen=f"{[event.state for event in events] or 'none'}; {subject.story([probe])}",
        )


@should(after=("shutdown.running-tasks-are-finished",))
def end_returns_soon_after_the_last_task(trial: Trial) -> None:
    """``end()`` returns within a second of the last task's end, beside what an idle executor takes to end.

    Why: whoever stops a scheduler waits for it, and so does every test that has one.
    Likely causes: end() sleeps for some seconds between two looks; it waits for a timeout of a join.
    Origin: Airflow's CeleryExecutor looks every five seconds in end().
    """
    late_s = idle_s = allowed_s = 0.0
    for _ in range(2):  # a single time may be the machine's
        idle = trial.started()
        idle.run(trial.probe())
        began = monotonic_ns()
        idle.end()
        idle_s = (monotonic_ns() - began) / 1e9
        subject = trial.started()
        held = trial.probes(2, "nap=0.3")
        subject.submit(*held)
        subject.await_started(*held)
        subject.end()
        returned = monotonic_ns()
        ended = [run.finished_ns for probe in held for run in probe.runs if run.finished_ns is not None]
        late_s = (returned - max(ended, default=returned)) / 1e9
        allowed_s = idle_s + _SOON_S * min(max(trial.slowdown(), 1.0), _MOST_EXCUSED)
        if late_s < allowed_s:
            return
    expect(
        False,
        awaited=f"end() to return within {allowed_s:.2f} s of the last task's end; an idle executor took "
        f"{idle_s:.2f} s of it",
        seen=f"{late_s:.2f} s after it, twice",
    )


@must(
    needs=(Capability.CALLABLE,),
    after=(
        "interface.command-kinds-tell-the-truth",
        "shutdown.running-tasks-are-finished",
        "shutdown.events-of-the-end-stay",
    ),
)
def large_results_do_not_block_the_end(trial: Trial) -> None:
    """A task whose result is larger than a pipe does not keep ``end()`` from returning.

    Why: a worker that writes a large result waits until somebody reads; if that somebody waits for the
    worker, both wait for ever.
    Likely causes: workers are joined before their results are read; the pipe is closed first.
    Origin: the documented deadlock of joining a process that has put items on a multiprocessing queue.
    """
    subject = trial.started()
    probes = trial.probes(3, f"return={2 << 20}")
    for probe in probes:
        subject.submit_callable(probe)
    trial.until(
        lambda: all(probe.started for probe in probes),
        awaited="3 tasks to start",
        stalled=True,
        seen=lambda: subject.story(probes),
        pump=subject.beat,
    )
    subject.end()
    _drain_the_rest(trial, subject, probes)
    for probe in probes:
        subject.expect_outcome(probe, SUCCESS, "a task with a result of 2 MiB")


@must(needs=(Capability.CALLS,), after=("shutdown.running-tasks-are-finished",))
def what_was_cancelled_never_runs(trial: Trial) -> None:
    """A future whose ``cancel()`` has returned true is cancelled at once, and its call never runs.

    Why: the caller acts on the answer: what was cancelled is done by somebody else, or must not be done.
    Likely causes: cancel() marks the future, and the work stays in the queue; the answer is always true.
    Origin: concurrent.futures.Future.cancel.
    """
    subject = trial.started(parallelism=2)
    executor = subject.driver.executor
    gate = trial.gate()
    held, waiting = trial.probes(2, gate.step), trial.probes(6)
    subject.submit(*held)
    subject.await_started(*held)
    futures = [trial.call("submit()", lambda: executor.submit(probe.work.function)) for probe in waiting]  # noqa: B023
    cancelled = [
        (probe, future)
        for probe, future in zip(waiting, futures, strict=True)
        if trial.call("cancel()", future.cancel)
    ]
    if not cancelled:
        raise NotApplicable("none of six calls that had not started could be cancelled")
    for probe, future in cancelled:
        expect(
            trial.call("cancelled()", future.cancelled),
            awaited=f"the future of {probe} to be cancelled, as cancel() has answered",
            seen=repr(future),
        )
    gate.open()
    subject.await_terminal(*held)
    trial.quiet()
    subject.end()
    ran = [probe for probe, _ in cancelled if probe.started]
    expect(not ran, awaited=f"none of {len(cancelled)} cancelled calls to run", seen=f"{len(ran)} ran")


@should(needs=(Capability.CALLS,), after=("shutdown.what-was-cancelled-never-runs",))
def cancel_futures_cancels_what_waits(trial: Trial) -> None:
    """``shutdown(cancel_futures=True)`` cancels what has not started, and waits for what runs.

    Why: it is the only way to stop such an executor before all its work is done.
    Likely causes: the argument is taken and not looked at; futures are cancelled, and nobody wakes up who
    waits for them.
    Origin: concurrent.futures.Executor.shutdown, since Python 3.9 (python/cpython#83530).
    """
    subject = trial.started(parallelism=2)
    executor = subject.driver.executor
    held, waiting = trial.probes(2, "nap=0.3"), trial.probes(_WAITING_AT_SHUTDOWN)
    futures = [
        trial.call("submit()", lambda: executor.submit(probe.work.function))  # noqa: B023 - called here and now
        for probe in (*held, *waiting)
    ]
    subject.await_started(*held)
    trial.call(
        "shutdown(wait=True, cancel_futures=True)",
        lambda: executor.shutdown(wait=True, cancel_futures=True),
        allowance_s=trial.budgets.stop_s,
    )
    expect(
        all(trial.call("done()", future.done) for future in futures),
        awaited="every future to be done when shutdown(wait=True, cancel_futures=True) returns",
        seen=f"{sum(not future.done() for future in futures)} are not",
    )
    expect(
        all(probe.finished for probe in held),
        awaited="the calls that ran to be finished",
        seen=f"{sum(probe.finished for probe in held)} of {len(held)} are",
    )
    ran = [probe for probe in waiting if probe.started]
    expect(
        len(ran) <= _WAITING_AT_SHUTDOWN // 2,  # a worker may have some of them at hand
        awaited=f"what had not started to be cancelled, of {_WAITING_AT_SHUTDOWN} calls",
        seen=f"{len(ran)} were run",
    )


@must()
def the_pill_is_never_an_event(trial: Trial) -> None:
    """After ``end()`` the buffer has events of submitted tasks only.

    Why: the scheduler looks every key up; one that is no task's is an error in its loop.
    Likely causes: workers acknowledge the pill with a result; the pill goes through the code for tasks.
    Origin: Airflow's pill is (None, None), a key and a command like any other.
    """
    subject = trial.started(parallelism=3)
    probes = trial.probes(2)
    subject.run(*probes)
    subject.end()
    subject.drain_all()
    known = {tuple(probe.key) for probe in probes}
    strange = [event for event in subject.history if event.key not in known]
    expect(
        not strange,
        awaited="events of submitted tasks only",
        seen=f"{len(strange)} others, such as {strange[0] if strange else None}",
    )


@must(
    needs=(
        Capability.KEYS,
        Capability.ARGV,
    ),
    after=(
        "states.the-key-comes-back-whole",
        "parallelism.n-is-reached",
        "parallelism.no-slot-stays-idle",
        "parallelism.failed-tasks-give-their-slots-back",
        "states.what-cannot-be-executed-fails",
    ),
)
def a_look_alike_of_the_pill_is_no_pill(trial: Trial) -> None:
    """A key or a command that looks like a poison pill is run or refused; it stops no worker.

    Why: what users write must not be able to stop a worker; with each such task the executor has one less.
    Likely causes: the pill is recognised by its key alone; it is a value that a task can have, such as None.
    Origin: Airflow's pill is (None, None).
    """
    parallelism = 2
    command = list(trial.probe().work.argv or ())
    nothing: object = None
    for what, key, look_alike in (
        ("the key (None, None)", (None, None), command),
        ("a key of five times None", TaskKey(*[None] * 5), command),  # type: ignore[arg-type]
        ("the command None", TaskKey("dag", "pill-1", "run"), nothing),
        ("the command (None, None)", TaskKey("dag", "pill-2", "run"), (None, None)),
        ("an empty command", TaskKey("dag", "pill-3", "run"), []),
        ("the command STOP", TaskKey("dag", "pill-4", "run"), ["STOP"]),
    ):
        subject = trial.started(parallelism)
        probe = trial.probe(key=key)  # type: ignore[arg-type]
        for _ in range(parallelism):
            if subject.refusal(lambda: subject.submit_raw(key, look_alike)) is not None:  # noqa: B023
                break
            subject.until(
                lambda: subject.outcome(probe),  # noqa: B023
                awaited=f"{what} to be refused, or run and reported",
                seen=lambda: "it was accepted, and nothing was ever reported for it",
            )
        gate = trial.gate()
        held = trial.probes(parallelism, gate.step)
        subject.submit(*held)
        subject.until(
            lambda: all(one.started for one in held),  # noqa: B023
            awaited=f"{parallelism} tasks at once after {what}",
            seen=lambda: f"{sum(one.started for one in held)} at once",  # noqa: B023
        )
        gate.open()
        subject.await_terminal(*held)


@must(
    after=(
        "shutdown.every-worker-exits",
        "shutdown.no-zombie-is-left",
        "states.what-cannot-be-executed-fails",
        "interface.command-kinds-tell-the-truth",
    )
)
def nothing_accumulates(trial: Trial) -> None:
    """After many cycles of start, work and end, and of start and end, there is no process, thread,
    descriptor, semaphore, shared memory or temporary file more than after two.

    Why: what is left by each cycle adds up in a host that runs for months, and in every test suite.
    Likely causes: a queue, pipe or pool is not closed, or only where there was work; a manager is not shut
    down; a semaphore is not unlinked; a log file for each start.
    Origin: apache/airflow#58365; apache/airflow#56641; apache/airflow#55768.
    """
    _expect_no_growth(trial, lambda: _cycle(trial), "start, work and end")


@should(
    needs=(Capability.TERMINATE,),
    after=(
        "shutdown.nothing-accumulates",
        "shutdown.no-zombie-is-left",
        "shutdown.terminate-leaves-no-worker",
        "shutdown.terminate-stops-the-stubborn",
    ),
)
def terminate_leaves_nothing_behind(trial: Trial) -> None:
    """After many cycles that ``terminate()`` has ended, idle and at work, there is no more of anything than
    after two.

    Why: hosts that are stopped like that are started again in the same process: in tests, after a fork, by a
    server that loads its configuration anew.
    Likely causes: only end() closes pipes, queues and files; what was killed is not waited for; a return
    where nothing runs.
    Origin: apache/airflow#56641; apache/airflow#55768.
    """

    def cycle() -> None:
        idle = trial.started()
        idle.terminate()
        subject = trial.started()
        subject.run(trial.probe())
        # What runs in the host itself cannot be stopped, and is not left behind if it ends soon.
        held = trial.probes(2, "nap=0.1" if trial.facts.tasks_in_host else trial.gate().step)
        subject.submit(*held, trial.probe())
        subject.await_started(*held)
        subject.terminate()
        subject.refusal(subject.pump)  # what is left to be collected may be collected now
        trial.built.clear()

    _expect_no_growth(trial, cycle, "start, work and terminate()")


def _expect_no_growth(trial: Trial, cycle: Callable[[], None], what: str) -> None:
    cycle()
    began = monotonic()
    cycle()
    # Slow ones get fewer: what an executor leaves, it leaves in each cycle.
    affordable = int(_CYCLES_S * trial.budgets.scale / (monotonic() - began))
    cycles = min(max(affordable, _FEWEST_CYCLES), _MOST_CYCLES)
    grown = _growth_over(trial, cycle, cycles)
    if SHARED_NAMES in grown:
        # Other programs have names there too.  Look where there are only ours, or look until it is sure.
        alone = private_disk("/dev/shm", 1 << 28)
        for _ in range(1 if alone else 3):
            grown = _growth_over(trial, cycle, cycles)
            if grown.get(SHARED_NAMES, 0) < (1 if alone else cycles):
                grown.pop(SHARED_NAMES, None)
                break
    expect(
        not grown,
        awaited=f"nothing more after {cycles + 2} cycles of {what} than after two",
        seen=", ".join(f"{count} more of: {what}" for what, count in grown.items()),
    )


def _growth_over(trial: Trial, cycle: Callable[[], None], cycles: int) -> dict[str, int]:
    gc.collect()
    before = trial.belongings()
    for _ in range(cycles):
        cycle()

    def growth() -> dict[str, int]:
        now = trial.belongings()
        return {what: now[what] - before[what] for what in now if now[what] > before[what]}

    gc.collect()
    trial.comes_true(lambda: not growth(), budget_s=trial.budgets.arrival_s / 4)
    gc.collect()
    return growth()


def _cycle(trial: Trial) -> None:
    idle = trial.started()
    idle.end()
    subject = trial.started()
    subject.run(*trial.probes(2), trial.probe("raise=on purpose"))
    if subject.can(Capability.ARGV):
        missing = trial.program("/nonexistent/program")
        if subject.refusal(lambda: subject.submit(missing)) is None:
            subject.await_terminal(missing)
        if subject.can(Capability.CALLABLE):
            call = trial.probe()
            subject.submit_callable(call)
            subject.await_terminal(call)
    subject.end()
    subject.drain()
    trial.built.clear()


def _held_at_terminate(trial: Trial, *steps: str) -> tuple[Subject, list[Probe], list[Probe]]:
    """An executor with two running tasks that never end by themselves, and two that wait."""
    trial.need_processes()
    subject = trial.started(parallelism=2)
    gate = trial.gate()
    running, waiting = trial.probes(2, *steps, gate.step), trial.probes(2)
    subject.submit(*running, *waiting)
    subject.await_started(*running)
    subject.pump()
    subject.terminate()
    return subject, running, waiting


def _expect_dead(trial: Trial, pids: Callable[[], list[int]], what: str) -> None:
    trial.until(
        lambda: not any(map(processes.is_alive, pids())),
        awaited=f"{what} to be gone after terminate()",
        seen=lambda: f"{sum(map(processes.is_alive, pids()))} of {len(pids())} still alive",
    )


def _pids(probes: list[Probe]) -> list[int]:
    return [run.pid for probe in probes for run in probe.runs]


@must(
    needs=(Capability.TERMINATE,),
    after=(
        "states.a-submission-waits-for-no-slot",
        "interface.command-kinds-tell-the-truth",
        "interface.runs-other-programs-as-they-stand",
    ),
)
def terminate_stops_what_runs(trial: Trial) -> None:
    """``terminate()`` stops running tasks at once, whatever kind of command they are.

    Why: it is called when there is no time left, before the machine goes down.
    Likely causes: terminate() does nothing, or is end(); the worker is killed and its task lives on; what
    Popen has started is kept in another list.
    Origin: apache/airflow#1389; Airflow's LocalExecutor.terminate() does nothing.
    """
    _, running, _ = _held_at_terminate(trial)
    _expect_dead(trial, lambda: _pids(running), "running tasks")
    subject = trial.started(parallelism=2)
    if not subject.can(Capability.ARGV):
        return
    pid_file = os.path.join(trial.scratch, "pid-of-a-program")
    script = 'echo $$ > "$0.new"; mv "$0.new" "$0"; exec sleep 600'
    subject.submit(trial.program("/bin/sh", "-c", script, pid_file))
    held = []
    if subject.has_callables_elsewhere():
        held = trial.probes(1, trial.gate().step)
        subject.submit_callable(held[0])
    subject.await_started(*held)
    subject.until(
        lambda: os.path.exists(pid_file),
        awaited="a program to start",
        stalled=True,
        seen=lambda: "it did not",
    )
    with open(pid_file) as file:
        program = int(file.read())
    subject.terminate()
    _expect_dead(trial, lambda: [program, *_pids(held)], "a program, and a callable if it takes one,")


@must(needs=(Capability.TERMINATE,), after=("shutdown.terminate-stops-what-runs",))
def terminate_stops_the_stubborn(trial: Trial) -> None:
    """``terminate()`` also stops tasks that ignore SIGTERM and SIGINT.

    Why: a task that handles signals badly is just the one that has to be stopped.
    Likely causes: SIGTERM is sent and nothing follows; terminate() waits for the task to obey.
    Origin: apache/airflow#18989; apache/airflow#14085.
    """
    trial.need_processes()
    subject = trial.started(parallelism=2)
    gate = trial.gate()
    running = trial.probes(2, "ignore=15", "ignore=2", "ignore=1", "note=ready", gate.step)
    subject.submit(*running)
    subject.until(
        lambda: all(probe.runs and probe.runs[0].notes for probe in running),
        awaited="2 tasks to start",
        stalled=True,
        seen=lambda: subject.story(running),
    )
    subject.terminate()
    _expect_dead(trial, lambda: _pids(running), "tasks that ignore SIGTERM")


@must(needs=(Capability.TERMINATE,), after=("shutdown.terminate-stops-what-runs",))
def terminate_reports_what_ran(trial: Trial) -> None:
    """Tasks stopped by ``terminate()`` are reported ``failed``.

    Why: without the event the scheduler believes that they still run.
    Likely causes: nothing collects the outcome of what was killed; events are dropped with the workers.
    Origin: the contract; apache/airflow#13215.
    """
    subject, running, _ = _held_at_terminate(trial)
    _expect_failed_after_terminate(trial, subject, running, "a running task")


@must(
    needs=(Capability.TERMINATE,),
    after=(
        "shutdown.terminate-stops-what-runs",
        "shutdown.terminate-reports-what-ran",
        "parallelism.never-more-than-n",
    ),
)
def terminate_reports_what_waited(trial: Trial) -> None:
    """Tasks that wait at ``terminate()`` are reported ``failed`` and never start.

    Why: they were accepted, so they have a last word coming; and nothing may start while all stops.
    Likely causes: the queue is dropped; a freed slot is filled from the queue during terminate().
    Origin: the contract; apache/airflow#19769.
    """
    subject, _, waiting = _held_at_terminate(trial)
    _expect_failed_after_terminate(trial, subject, waiting, "a waiting task")
    started = [probe for probe in waiting if probe.started]
    expect(not started, awaited="no waiting task to start at terminate()", seen=f"{len(started)} started")


def _expect_failed_after_terminate(trial: Trial, subject: Subject, probes: list[Probe], what: str) -> None:
    # Collected by terminate() itself or by the next pump; a pump after it may also be refused.
    def collect() -> None:
        subject.drain()
        if not all(subject.outcome(probe) for probe in probes):
            subject.refusal(subject.beat)

    trial.until(
        lambda: all(subject.outcome(probe) for probe in probes),
        awaited=f"an event for {what} after terminate()",
        seen=lambda: subject.story(probes),
        pump=collect,
    )
    for probe in probes:
        subject.expect_outcome(probe, FAILED, f"{what} at terminate()")


@must(needs=(Capability.TERMINATE,), after=("shutdown.terminate-stops-what-runs",))
def terminate_leaves_no_worker(trial: Trial) -> None:
    """After ``terminate()`` no worker is left.

    Why: nothing survives it: that is what tells it from end().
    Likely causes: only busy workers are stopped; helper processes are forgotten; it returns at once where
    nothing runs.
    Origin: apache/airflow#5200; apache/airflow#1157.
    """
    _held_at_terminate(trial)
    _expect_gone(trial, "terminate() with 2 tasks running and 2 waiting")
    subject = trial.started(parallelism=3)
    three = trial.probes(3)
    subject.run(*three)  # so that workers which come when they are needed are there too
    held = trial.probe(trial.gate().step)
    subject.submit(held)
    subject.await_started(held)
    subject.terminate()
    _expect_gone(trial, "terminate() with 1 task running and 2 slots free")
    subject = trial.started(parallelism=3)
    subject.run(*trial.probes(3))
    subject.terminate()
    _expect_gone(trial, "terminate() with nothing to do")


@must(
    needs=(Capability.TERMINATE,),
    after=(
        "states.only-legal-transitions",
        "lifecycle.terminate-after-end-is-harmless",
        "shutdown.terminate-stops-what-runs",
        "shutdown.terminate-reports-what-ran",
    ),
)
def terminate_drops_no_event(trial: Trial) -> None:
    """Events that were in the buffer before ``terminate()`` are in it afterwards.

    Why: the scheduler drains the buffer once more at the end; a success that it is never told of runs again.
    Likely causes: terminate() begins with a new buffer; it reports every key that it knows as failed.
    Origin: apache/airflow#69975 (events lost at shutdown).
    """
    subject = trial.started(parallelism=2)
    good, bad = trial.probe(), trial.probe("raise=on purpose")
    subject.submit(good, bad)
    subject.await_finished(good, bad)
    held = trial.probe(trial.gate().step)
    subject.submit(held, trial.probe(), trial.probe())
    trial.until(
        lambda: held.started,
        awaited="a task to start",
        stalled=True,
        seen=lambda: subject.story([held]),
        pump=subject.beat,
    )
    trial.quiet(subject.beat)  # the events are in the buffer now, and nobody takes them
    subject.terminate()
    _drain_the_rest(trial, subject, [good, bad])
    subject.expect_outcome(good, SUCCESS, "a task that had ended, and been collected, before terminate()")
    subject.expect_outcome(bad, FAILED, "a task that had failed, and been collected, before terminate()")


# Many are right without it: to fail all that is in flight is simple, and soon done.
@may(
    needs=(Capability.TERMINATE,),
    after=("shutdown.terminate-drops-no-event", "states.no-terminal-event-before-the-end"),
)
def terminate_keeps_what_had_ended(trial: Trial) -> None:
    """A task that had ended before ``terminate()`` is reported as it ended, also if nobody had looked yet.

    Why: what was done is done; told that it failed, the scheduler does it again.
    Likely causes: terminate() reports every key in flight as failed without collecting what has ended; the
    workers are killed before their last messages are read.
    Origin: the contract: what is reported of a task is true.
    """
    trial.need_processes()
    for patience in (1, 4, 16):  # it may have to clean up, and the machine to come to it
        subject, ended = _terminated_after_an_end(trial, patience)
        if subject.outcome(ended) == SUCCESS:
            return
    subject.expect_outcome(ended, SUCCESS, "a task that had ended before terminate()")


def _terminated_after_an_end(trial: Trial, patience: int) -> tuple[Subject, Probe]:
    """An executor that was terminated when a task had ended, and nobody had pumped since then."""
    subject = trial.started(parallelism=2)
    told, latency_s = trial.probes(3), 0.0
    for probe in told:
        subject.run(probe)
        finished = max((run.finished_ns or 0 for run in probe.runs), default=monotonic_ns())
        latency_s = max(latency_s, (subject.events_of(probe)[-1].at_ns - finished) / 1e9)
    gate = trial.gate()
    ended = trial.probe(gate.step)
    subject.submit(ended)
    subject.await_started(ended)
    gate.open()
    trial.until(
        lambda: ended.finished, awaited="a task to end", stalled=True, seen=lambda: subject.story([ended])
    )
    trial.quiet(budget_s=patience * (trial.budgets.quiet_s + latency_s))
    subject.terminate()
    _drain_the_rest(trial, subject, [ended])
    if not subject.outcome(ended):
        subject.refusal(subject.beat)
        _drain_the_rest(trial, subject, [ended])
    return subject, ended


@should(needs=(Capability.TERMINATE,), after=("shutdown.terminate-stops-what-runs",))
def terminate_takes_the_children_too(trial: Trial) -> None:
    """``terminate()`` also stops the processes that running tasks have started.

    Why: a task is often a shell or a driver, and its children do the work.
    Likely causes: only the task's own pid is signalled; its process group is the executor's own.
    Origin: apache/airflow#1157; apache/airflow#13215.
    """
    trial.need_processes()
    subject = trial.started(parallelism=2)
    gate = trial.gate()
    probe = trial.probe(f"child={gate.path}", gate.step)
    subject.submit(probe)
    subject.until(
        lambda: probe.runs and probe.runs[0].children,
        awaited="a task to start a child process",
        stalled=True,
        seen=lambda: subject.story([probe]),
    )
    subject.terminate()
    _expect_dead(trial, lambda: probe.runs[0].children, "the task's own children")


@must(after=("shutdown.every-worker-exits", "shutdown.events-of-the-end-stay"))
def end_returns_after_a_worker_died(trial: Trial) -> None:
    """``end()`` returns, and leaves nothing, also after a worker has been killed; whichever it was.

    Why: the kernel kills workers when memory is short; a scheduler that cannot be stopped afterwards has to
    be killed too.
    Likely causes: the pill of the dead worker is waited for; the dead one held the lock of a shared queue, or
    a message that it had half written blocks the readers.
    Origin: apache/airflow#14085; apache/airflow#18989; Airflow's LocalExecutor waits for ever on the lock of
    its queue.
    """
    trial.need_processes()
    position = 0
    while True:
        subject = trial.started(parallelism=2)
        there = idle_processes(subject)
        idle = [*there.helpers, *there.workers]
        if not idle:  # no worker outlives its task here: one that is busy is killed instead
            if position == 0:
                _kill_busy_and_end(trial, subject)
            return
        if position >= len(idle):
            subject.end()
            return
        processes.kill(idle[position])
        position += 1
        trial.quiet()
        subject.end()
        _expect_gone(trial, "end() after a worker was killed")


def _kill_busy_and_end(trial: Trial, subject: Subject) -> None:
    held = trial.probe(trial.gate().step)
    subject.submit(held)
    subject.await_started(held)
    processes.kill(held.runs[0].pid)
    subject.end()
    _expect_gone(trial, "end() after a task's process was killed")


@must()
def interpreter_exit_does_not_hang(trial: Trial) -> None:
    """A host that leaves without ``end()`` is not kept from exiting by idle workers.

    Why: schedulers crash; one that hangs at exit is not restarted.
    Likely causes: a thread or child process that is not a daemon is joined at exit; a queue's feeder thread
    waits to write what nobody reads.
    Origin: apache/airflow#41992; Airflow 3.3's LocalExecutor never exits without end().
    """
    if trial.has_build_hook:
        raise NotApplicable("a conftest hook builds the executor, and a new interpreter has no conftest")
    ready = os.path.join(trial.scratch, "ready")
    order = {
        "spec": trial.target.spec,
        "family": trial.target.adapter.family,
        "options": dict(trial.target.options),
        "path": sys.path,
        "scratch": os.path.join(trial.scratch, "other-host"),
        "ready": ready,
        "first_task_s": trial.facts.first_task_s,
        "budgets": asdict(trial.budgets),
    }
    os.mkdir(str(order["scratch"]))
    host = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-m", "executor_conformance.harness.leaving_host"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert host.stdin is not None
    host.stdin.write(json.dumps(order).encode())
    host.stdin.close()
    trial.until(
        lambda: os.path.exists(ready) or host.poll() is not None,
        awaited="a host in a new interpreter to run a task",
        seen=lambda: "it did not come so far",
        budget_s=trial.budgets.arrival_s * 3 + trial.facts.import_s * 3,
    )
    expect(
        os.path.exists(ready),
        awaited="a host in a new interpreter to run a task",
        seen=f"it left with status {host.poll()}",
    )
    left = trial.comes_true(lambda: host.poll() is not None, budget_s=trial.budgets.stop_s)
    if not left:
        host.send_signal(6)  # its stacks go to the output that is shown with the failure
        host.wait()
    expect(
        left,
        awaited=f"the interpreter to exit within {trial.budgets.stop_s:.1f} s without end(), workers idle",
        seen="it was still there",
    )


@must()
def nothing_outlives_a_killed_host(trial: Trial) -> None:
    """Workers and tasks do not outlive a host that is killed with SIGKILL.

    Why: the restarted scheduler runs the tasks again, beside those that nobody knows of any more.
    Likely causes: workers wait on a queue that they themselves hold open; no parent-death signal, no watch on
    the parent; tasks are in sessions of their own.
    Origin: apache/airflow#880; apache/airflow#1157; Airflow's LocalExecutor leaves all of them.
    """
    trial.need_processes()
    gate = trial.gate()
    busy = trial.probe(gate.step)

    def work() -> None:
        subject = trial.started(parallelism=2)
        subject.run(trial.probe())
        subject.submit(busy)
        subject.await_started(busy)

    host, _ = trial.in_another_host(work)
    trial.kill_own(host)
    trial.until(
        lambda: not _alive(trial) and not _alive(trial),
        awaited="workers and tasks to be gone after their host was killed",
        seen=lambda: f"{len(_alive(trial))} still there: " + "; ".join(map(str, _alive(trial)[:4])),
        budget_s=trial.budgets.arrival_s * 2,
    )


@must(after=("shutdown.every-worker-exits",))
def end_is_the_same_at_any_pace(trial: Trial) -> None:
    """``end()`` returns, and every worker is gone, also if its caller comes along slowly: each worker has
    taken what it found and has gone before the next step is done.

    Why: whoever is woken may be dealt the processor first; an ``end()`` that counts on being quicker than
    its workers hangs now and then, on another machine each tenth time.
    Likely causes: a pill only for each worker that is still alive then, though any may take that of another;
    a worker that has obeyed is taken for a dead one, and replaced.
    Origin: Airflow 3.3.2's LocalExecutor.end() asks is_alive() between two pills, and joins for ever.
    """
    with SlowPace(max(_REST_S, _REST_FORKS * trial.budgets.fork_s), _RESTS) as pace:
        # In one of the two the worker that is asked first is not the one that has waited longest.
        for naps in ((1, 2, 3, 4), (4, 3, 2, 1)):
            subject = trial.started(parallelism=4)
            subject.run(*(trial.probe(f"nap={nap / 10}") for nap in naps))
            with pace.slow():
                subject.end()
            _expect_gone(trial, "an end() that was slow")
