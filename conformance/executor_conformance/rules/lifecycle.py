"""From construction to the end: what each call of the executor's life may and may not do.

A scheduler constructs an executor, starts it, feeds and pumps it, and ends it; but it also crashes half way,
starts twice after a reload, and ends what never started.  The host process belongs to the scheduler, and must
look after ``end()`` as it did before.
"""

from __future__ import annotations

import asyncio
import faulthandler
import fcntl
import gc
import locale
import logging
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable

from executor_conformance.contract import SUCCESS
from executor_conformance.driving import Capability
from executor_conformance.harness import processes
from executor_conformance.harness.linux import monotonic
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.trial import Subject, Trial, expect
from executor_conformance.rules import must, should


@must()
def runs_a_task(trial: Trial) -> None:
    """A started executor runs the task it is given and reports its success.

    Why: this is what an executor is for; every rule that follows builds on it.
    Likely causes: no worker is started; start() waits for something; the result is never collected by sync().
    Origin: the executor contract; apache/airflow#19769 (tasks stuck in queued).
    """
    subject = trial.started()
    probe = trial.probe()
    subject.run(probe)
    subject.expect_outcome(probe, SUCCESS)
    # An executor that reports too early breaks another rule, as long as the task does run.
    if not probe.started:
        subject.until(
            lambda: probe.started,
            awaited="the task to run",
            seen=lambda: "success was reported, but it never ran",
        )


@must(needs=(Capability.INERT_CONSTRUCTOR,))
def constructor_is_inert(trial: Trial) -> None:
    """The constructor makes no process, no thread and no file; that is for ``start()``.

    Why: schedulers construct executors to ask them something, in processes that never start them, and fork
    afterwards; what a constructor starts, nobody ends.
    Likely causes: workers, a manager process or a connection are made in __init__; a queue opens pipes.
    Origin: apache/airflow#36335; executors are constructed by Airflow's CLI and webserver too.
    """
    trial.build()  # what is imported or cached on first use is not the constructor's
    before = _resources(trial)
    kept = trial.build()
    trial.quiet()
    for what, new in _difference(before, _resources(trial)).items():
        expect(not new, awaited=f"the constructor to make no {what}", seen=f"new: {', '.join(new[:5])}")
    del kept


def _resources(trial: Trial) -> dict[str, set[str]]:
    return {
        "process": {f"{process.pid} {process.command}" for process in trial.processes()},
        "thread": {f"{thread.name} ({thread.ident})" for thread in threading.enumerate()},
        "open file": {
            f"{number} -> {name}"
            for number, name in processes.open_descriptors().items()
            if not name.startswith(("anon_inode:inotify",))
        },
        "temporary file": set(os.listdir(tempfile.gettempdir())),
    }


def _difference(before: dict[str, set[str]], after: dict[str, set[str]]) -> dict[str, list[str]]:
    return {what: sorted(after[what] - before[what]) for what in before}


@must(needs=(Capability.START,))
def submit_before_start_is_refused(trial: Trial) -> None:
    """A task submitted before ``start()`` is refused at once with an error.

    Why: a task that is taken by something that does not run yet is lost without a word, and the scheduler
    waits for it.
    Likely causes: the task goes to a queue that start() replaces; nothing checks that the executor runs.
    Origin: the contract; Airflow 2.11's LocalExecutor loses such a task.
    """
    for priority in trial.build().ways_to_submit:
        subject = trial.build()
        early = trial.probe()
        refusal = subject.refusal(lambda: subject.submit(early, priority=priority))  # noqa: B023
        if refusal is not None:
            continue
        subject.start()
        came = trial.comes_true(lambda: subject.outcome(early), pump=subject.pump)  # noqa: B023
        expect(
            False,
            awaited="a task submitted before start() to be refused with an error",
            seen="it was accepted, and "
            + ("ran after start()" if came else "nothing was ever reported for it"),
        )


@must(needs=(Capability.REPEATED_END,))
def submit_after_end_is_refused(trial: Trial) -> None:
    """A task submitted after ``end()`` is refused at once with an error.

    Why: nobody is left to run it; accepted, it is lost.
    Likely causes: end() does not mark the executor as ended; the task is put on a queue that nobody reads.
    Origin: the contract; Airflow 2.11's LocalExecutor accepts and loses such a task.
    """
    subject = trial.started()
    subject.run(trial.probe())
    subject.end()
    for priority in subject.ways_to_submit:
        late = trial.probe()
        refusal = subject.refusal(lambda: subject.submit(late, priority=priority))  # noqa: B023
        expect(
            refusal is not None,
            awaited="a task submitted after end() to be refused with an error",
            seen="it was accepted, and then " + ("" if refusal else _what_became_of(subject, late)),
        )


def _what_became_of(subject: Subject, probe: Probe) -> str:
    def wait() -> None:
        subject.trial.comes_true(lambda: subject.outcome(probe), pump=subject.pump)

    trouble = subject.refusal(wait)
    if trouble is not None:
        return f"the next pump raised {trouble!r}"
    outcome = subject.outcome(probe)
    return f"{outcome!r} was reported" if outcome else "nothing was ever reported for it"


@must(needs=(Capability.TERMINATE,), after=("shutdown.terminate-stops-what-runs",))
def submit_after_terminate_is_not_lost(trial: Trial) -> None:
    """A task submitted after ``terminate()`` is refused with an error, or reported.

    Why: everything has stopped, so a task that is taken without a word is waited for in vain.
    Likely causes: only end() marks the executor as ended; the task is put on a queue that nobody reads.
    Origin: the contract: every accepted task has exactly one last word.
    """
    subject = trial.started()
    subject.run(trial.probe())
    subject.terminate()
    late = trial.probe()
    if subject.refusal(lambda: subject.submit(late)) is None:
        became = _what_became_of(subject, late)
        expect(
            subject.outcome(late),
            awaited="a task submitted after terminate() to be refused with an error, or reported",
            seen=f"it was accepted, and then {became}",
        )


@must(
    needs=(Capability.START,),
    after=(
        "parallelism.never-more-than-n",
        "shutdown.every-worker-exits",
        "shutdown.no-zombie-is-left",
    ),
)
def second_start_is_harmless(trial: Trial) -> None:
    """A second ``start()`` is refused or changes nothing: never a second set of workers.

    Why: schedulers restart their loops; a second set of workers doubles the load, and nobody stops the first.
    Likely causes: start() does not look whether it has been called; it replaces queues and lists that the
    first workers still use.
    Origin: the contract; apache/airflow#13542 (slots lost after executor restarts).
    """
    parallelism = 4  # an executor may have a few more processes ready at one time than at another
    subject = trial.started(parallelism)
    first_gate = trial.gate()
    first = trial.probes(parallelism, first_gate.step)
    subject.submit(*first)
    subject.await_started(*first)
    before = _population(trial)
    subject.quiet()
    before = max(before, _population(trial))
    subject.refusal(subject.start)
    subject.quiet()
    second_gate = trial.gate()
    second = trial.probes(parallelism, second_gate.step)
    subject.submit(*second)
    subject.quiet()
    early = [probe for probe in second if probe.started]
    expect(
        not early,
        awaited=f"at most {parallelism} tasks at once after a second start() with work in flight",
        seen=f"{parallelism + len(early)} at once",
    )
    first_gate.open()
    subject.await_terminal(*first)
    subject.await_started(*second)
    subject.until(
        lambda: _population(trial) - before < parallelism,
        awaited=f"the same {before} processes and threads after a second start()",
        seen=lambda: f"{_population(trial)}",
    )
    second_gate.open()
    subject.await_terminal(*second)
    subject.quiet()
    for probe in (*first, *second):
        subject.expect_outcome(probe, SUCCESS)
        expect(len(probe.runs) == 1, awaited=f"{probe} to run once", seen=f"{len(probe.runs)} runs")
    subject.refusal(subject.start)
    idle = _population(trial)
    subject.end()
    trial.until(
        lambda: not trial.processes(),
        awaited="every worker to be gone after end(), also those of the first start()",
        seen=lambda: (
            f"still there: {'; '.join(map(str, trial.processes()[:4]))} (there were {idle} before end())"
        ),
    )


def _population(trial: Trial) -> int:
    return len(trial.processes()) + threading.active_count()


@must(needs=(Capability.START, Capability.REPEATED_END))
def end_before_start_is_harmless(trial: Trial) -> None:
    """``end()`` before ``start()`` returns without an error.

    Why: schedulers end their executors in a ``finally`` clause, also when the start failed; an error there
    hides the first one.
    Likely causes: end() uses an attribute that only start() sets; it sends pills to a queue that is missing.
    Origin: apache/airflow#41992; Airflow's LocalExecutor raises AttributeError here.
    """
    trial.build().end()


@must(needs=(Capability.REPEATED_END,), after=("states.an-event-is-returned-once",))
def end_twice_is_harmless(trial: Trial) -> None:
    """A second ``end()`` changes nothing and returns without an error.

    Why: a scheduler's exit handler and its ``finally`` clause both end the executor.
    Likely causes: closed queues and processes are used again; pills are sent to workers that are gone.
    Origin: apache/airflow#23944; Airflow's LocalExecutor raises ValueError or BrokenPipeError here.
    """
    subject = trial.started()
    subject.run(trial.probe())
    subject.end()
    subject.drain_all()
    subject.end()
    late = subject.drain()
    expect(not late, awaited="no event from a second end()", seen=f"{len(late)} events")


@should(needs=(Capability.START, Capability.TERMINATE))
def terminate_before_start_is_harmless(trial: Trial) -> None:
    """``terminate()`` before ``start()`` returns without an error.

    Why: a signal can come at any moment, and its handler calls terminate().
    Likely causes: terminate() uses an attribute that only start() sets; it signals a worker that is missing.
    Origin: the contract: stop now, whatever there is to stop.
    """
    trial.build().terminate()


@must(needs=(Capability.TERMINATE,), after=("states.an-event-is-returned-once",))
def terminate_after_end_is_harmless(trial: Trial) -> None:
    """``terminate()`` after ``end()`` changes nothing and returns without an error.

    Why: the signal that stops a scheduler may come while it is already stopping.
    Likely causes: processes that are gone are signalled; tasks that were reported are reported again.
    Origin: the contract; apache/airflow#18989.
    """
    subject = trial.started()
    probe = trial.probe()
    subject.run(probe)
    subject.end()
    subject.drain_all()
    subject.terminate()
    late = subject.drain()
    expect(not late, awaited="no event from terminate() after end()", seen=f"{late[:3]}")


@must(needs=(Capability.TERMINATE,), after=("shutdown.terminate-reports-what-waited",))
def end_after_terminate_is_harmless(trial: Trial) -> None:
    """``end()`` after ``terminate()`` returns without an error, also with work in flight at the time.

    Why: a scheduler that was told to stop now still runs its ``finally`` clause.
    Likely causes: end() waits for tasks that terminate() has killed; it waits for workers that are gone.
    Origin: the contract; apache/airflow#14085.
    """
    subject = trial.started()
    gate = trial.gate()
    held = trial.probes(3, gate.step)
    subject.submit(*held)
    subject.await_started(*held[:2])
    subject.terminate()
    # An executor that does not stop its tasks must not be waited for because of that: it has its own rule.
    gate.open()
    subject.end()


@must(
    after=(
        "states.an-event-is-returned-once",
        "states.exactly-one-terminal-event",
    )
)
def idle_pumping_is_harmless(trial: Trial) -> None:
    """Pumping an executor that has nothing to do returns at once and reports nothing.

    Why: schedulers pump all the time; most of the time nothing has happened.
    Likely causes: sync() waits for the next result; a get() without a result raises Empty.
    Origin: Airflow's scheduler loop: an exception in heartbeat() ends the scheduler.
    """
    subject = trial.started()
    for name, call in {"sync()": subject.sync, "the pump": subject.pump}.items():
        shortest = min(_duration(call) for _ in range(3))
        expect(
            shortest < trial.budgets.block_s,
            awaited=f"{name} to return within {trial.budgets.block_s:.1f} s while nothing runs",
            seen=f"{shortest:.2f} s at the least, in 3 calls",
        )
    for _ in range(30):
        subject.pump()
    expect(not subject.history, awaited="no event while nothing runs", seen=f"{subject.history[:3]}")
    subject.run(trial.probe())
    subject.drain_all()
    count = len(subject.history)
    for _ in range(30):
        subject.pump()
    expect(
        len(subject.history) == count,
        awaited="no more events after everything was reported",
        seen=f"{len(subject.history) - count} more",
    )


def _duration(call: Callable[[], object]) -> float:
    began = monotonic()
    call()
    return monotonic() - began


@must(
    after=(
        "parallelism.n-is-reached",
        "shutdown.every-worker-exits",
        "lifecycle.host-descriptors-stay-open",
        "states.no-terminal-event-before-the-end",
    )
)
def two_executors_share_a_process(trial: Trial) -> None:
    """Two executors in one process do not meet: each reports its own tasks, and each ends alone.

    Why: schedulers run several executors side by side, and tests start one after the other.
    Likely causes: queues, buffers or worker lists are class attributes or module globals; end() stops every
    child process it can find; the second start finds the first one's leavings.
    Origin: Airflow 2.10's multiple executors per scheduler; apache/airflow#62192.
    """
    one, other = trial.started(), trial.started()
    gate = trial.gate()
    held = trial.probe(gate.step)
    other.submit(held)
    other.await_started(held)
    # Not drained by its own executor first: in a shared buffer the other one must find it.
    mine = trial.probes(3)
    one.submit(*mine)
    one.await_finished(*mine)
    trial.quiet(one.beat)
    other.quiet()
    foreign = [event.key for event in other.history if event.key != tuple(held.key)]
    expect(
        not foreign, awaited="each executor to report its own tasks only", seen=f"the other's: {foreign[:3]}"
    )
    one.await_terminal(*mine)
    # Ended, but not collected yet: nobody else may collect it.
    ended = trial.probe()
    other.submit(ended)
    trial.until(
        lambda: ended.started,
        awaited="a task to start",
        stalled=True,
        seen=lambda: other.story([ended]),
        pump=lambda: None if ended.started else other.beat(),
    )
    trial.comes_true(lambda: ended.finished)
    trial.quiet()
    one.end()
    trial.quiet(other.pump)
    expect(
        other.outcome(held) is None and not held.finished,
        awaited="end() of one executor to leave the other's running task alone",
        seen=f"{other.outcome(held)!r} was reported for it",
    )
    other.await_terminal(ended)
    other.expect_outcome(ended, SUCCESS, "a task that ended just before the other executor did")
    gate.open()
    other.await_terminal(held)
    other.expect_outcome(held, SUCCESS, "the other executor's task")
    after = trial.probe()
    other.run(after)
    other.expect_outcome(after, SUCCESS, "a task of the executor that goes on")
    other.end()
    third = trial.started()
    last = trial.probe()
    third.run(last)
    third.expect_outcome(last, SUCCESS, "a task of a third executor, started when both had ended")
    third.end()


@must()
def host_descriptors_stay_open(trial: Trial) -> None:
    """Descriptors that the host had open before are open, and the same, after work and ``end()``.

    Why: the scheduler's database connections, sockets and log files are descriptors; closed by an executor,
    they come back as somebody else's.
    Likely causes: a daemonising idiom (closerange) runs in the host; a descriptor is closed twice, the second
    time after its number was given to another.
    Origin: the contract; apache/airflow#71707 (what a fork shares with the host).
    """
    left, right = socket.socketpair()
    plain = os.open(os.devnull, os.O_RDONLY)
    # high numbers too: what closes a range of descriptors often leaves the first ones alone
    high = [fcntl.fcntl(plain, fcntl.F_DUPFD_CLOEXEC, number) for number in (30, 60, 120, 250, 500, 1000)]
    kept = [plain, left.fileno(), right.fileno(), 0, 1, 2, *high]
    before = {descriptor: _identity(descriptor) for descriptor in kept}
    subject = trial.started()
    _use(subject)
    for descriptor in kept:
        expect(
            _identity(descriptor) == before[descriptor],
            awaited=f"descriptor {descriptor}, which the host had opened, to stay open",
            seen="it was closed" if _identity(descriptor) is None else "it is another file now",
        )


@should(after=("faults.threads-of-the-host-do-no-harm",))
def any_thread_may_be_its_callers(trial: Trial) -> None:
    """An executor works as well where all its calls come from one thread that is not the main one.

    Why: the main thread of a host often belongs to a server, or to an event loop.
    Likely causes: start() sets a signal handler, which only the main thread may; the event loop of the
    calling thread is asked for, and only the main thread has one unasked.
    Origin: spotify/luigi#3219; apache/airflow#1050 (signal only works in main thread).
    """
    raised: list[BaseException] = []

    def live() -> None:
        try:
            subject = trial.started()
            good, bad = trial.probe(), trial.probe("raise=on purpose")
            subject.run(good, bad)
            subject.expect_outcome(good, SUCCESS, "a task of an executor in another thread than the main one")
            subject.end()
        except BaseException as error:  # for the main thread
            raised.append(error)

    thread = threading.Thread(target=live)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def _identity(descriptor: int) -> tuple[int, int, int] | None:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mode


def _use(subject: Subject) -> None:
    """Work and end, as a scheduler does."""
    good, bad = subject.trial.probe(), subject.trial.probe("raise=on purpose")
    subject.run(good, bad)
    subject.end()


@should()
def host_is_left_as_it_was(trial: Trial) -> None:
    """After ``end()`` the host's own settings are as they were.

    Why: the host is the scheduler's process: its signal handlers, environment, working directory, collector
    settings and streams belong to it and to the other executors in it.
    Likely causes: start() installs signal handlers or freezes the collector and end() does not put them back;
    a worker's setup runs in the host; logging is configured at import or start; an event loop is set for the
    host's thread, and closed.
    Origin: Airflow's LocalExecutor changed signal handlers and gc settings around forks; discussion 58143.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)  # one of its own, which is not what a reset comes to
    frozen = gc.get_freeze_count()
    before = _settings(frozen)
    subject = trial.started()
    _use(subject)
    after = _settings(frozen)
    changed = [name for name in before if before[name] != after[name]]
    expect(
        not changed,
        awaited="the host's settings to be after end() as they were before the start",
        seen="; ".join(f"{name}: {_change(before[name], after[name])}" for name in changed[:4])[:600],
    )


def _change(before: object, after: object) -> str:
    """What is different, and nothing else: the environment has secrets, which a report would tell."""
    if isinstance(before, dict) and isinstance(after, dict):
        told = [f"{name} is new" for name in after if name not in before]
        told += [f"{name} is gone" for name in before if name not in after]
        both = (name for name in before if name in after and before[name] != after[name])
        return ", ".join([*told, *(f"{name} {_change(before[name], after[name])}" for name in both)])
    if isinstance(before, list) and isinstance(after, list):
        told = [f"{item!r} is new" for item in after if item not in before]
        told += [f"{item!r} is gone" for item in before if item not in after]
        return ", ".join(told) or "in another order"
    return f"{before!r} became {after!r}"


def _settings(frozen_before: int) -> dict[str, object]:
    mask = os.umask(0)
    os.umask(mask)
    root = logging.getLogger()
    return {
        "signal handlers": {
            int(number): repr(signal.getsignal(number))
            for number in signal.valid_signals()
            if number < signal.SIGRTMIN
        },
        "blocked signals": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "interval timer": signal.getitimer(signal.ITIMER_REAL),
        "environment": dict(os.environ),
        "working directory": os.getcwd(),
        "umask": mask,
        "gc enabled": gc.isenabled(),
        "gc thresholds": gc.get_threshold(),
        "gc debug flags": gc.get_debug(),
        # Fewer is no harm: Python 3.12 starts with some, which any freeze and unfreeze lets go.
        "objects frozen by gc": gc.get_freeze_count() > frozen_before,
        "gc callbacks": [id(callback) for callback in gc.callbacks],
        "standard streams": [id(stream) for stream in (sys.stdin, sys.stdout, sys.stderr)],
        "excepthooks": [id(sys.excepthook), id(sys.unraisablehook), id(threading.excepthook)],
        "recursion limit": sys.getrecursionlimit(),
        "switch interval": sys.getswitchinterval(),
        "sys.path": list(sys.path),
        "sys.argv": list(sys.argv),
        "resource limits": {
            name: resource.getrlimit(getattr(resource, name))
            for name in ("RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_STACK")
        },
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "processors": sorted(os.sched_getaffinity(0)),
        "session and group": (os.getsid(0), os.getpgrp()),
        "locale": locale.setlocale(locale.LC_ALL),
        "socket timeout": socket.getdefaulttimeout(),
        "root logger": (root.level, [id(handler) for handler in root.handlers], logging.root.manager.disable),
        "faulthandler": faulthandler.is_enabled(),
        "trace and profile functions": (repr(sys.gettrace()), repr(sys.getprofile())),
        "event loop": _event_loop(),
    }


def _event_loop() -> tuple[str, int]:
    """What makes event loops here, and the loop that this thread was given, which need not run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # to be removed in Python 3.16
        policy = asyncio.get_event_loop_policy()
    given = getattr(getattr(policy, "_local", None), "_loop", None)
    return type(policy).__qualname__, id(given)
