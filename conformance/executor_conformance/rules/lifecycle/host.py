"""The host process: other executors in it, its threads, file descriptors and settings."""

from __future__ import annotations

import faulthandler
import fcntl
import functools
import gc
import locale
import logging
import multiprocessing
import os
import resource
import signal
import socket
import sys
import threading
import warnings

from executor_conformance.contract import SUCCESS, Call
from executor_conformance.harness import processes
from executor_conformance.harness.linux import adopts_orphans
from executor_conformance.harness.new_interpreter import run_a_task_and_exit
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.probes.transport import wait_at
from executor_conformance.rules import must, should
from executor_conformance.verdicts import expect

#: A rule keeps a descriptor open at or above each of these numbers.
_HIGH = (30, 60, 120, 250, 500, 1000)


@must(
    after=(
        "parallelism.n-tasks-run-at-once",
        "shutdown.end-leaves-no-worker",
        "lifecycle.host-file-descriptors-stay-open",
        "states.no-terminal-event-before-the-task-ends",
    )
)
def two_executors_coexist_in_one_process(trial: Trial) -> None:
    """Two executors in one process do not affect each other: each reports only its own tasks, and each ends
    independently.

    Why: schedulers run several executors in parallel, and test suites create one after another in one
    process.
    Likely causes: queues, buffers or worker lists are class attributes or module globals; ``end()`` stops
    every child process that it finds; the second ``start()`` finds what the first executor left behind.
    Origin: Airflow 2.10's multiple executors per scheduler; apache/airflow#62192.
    """
    end = trial.target.adapter.name_of(Call.END)
    one, other = trial.started(slots=2), trial.started(slots=2)
    gate = trial.gate()
    held = trial.probe(gate.step)
    other.submit(held)
    other.await_started(held)
    # `one` does not drain its events before `other` does, so `other` finds them if they share a buffer.
    own = trial.probes(3)
    one.submit(*own)
    one.await_finished(*own)
    trial.quiet(one.beat)
    other.quiet()
    foreign = [event.key for event in other.history if event.key != tuple(held.key)]
    expect(
        not foreign,
        expected="each executor to report only its own tasks",
        actual=f"one executor also reported tasks of the other: {foreign[:3]}",
    )
    one.await_terminal(*own)
    # This task has ended, but `other` has not collected it yet; no other executor may collect it.
    ended = trial.probe()
    other.submit(ended)
    trial.require(
        lambda: ended.started,
        expected="a task to start",
        stalled=True,
        actual=lambda: other.describe([ended]),
        pump=lambda: None if ended.started else other.beat(),
    )
    trial.wait_for(lambda: ended.finished)
    trial.quiet()
    one.end()
    other.expect_running(held, f"after {end} of another executor in the process")
    other.await_terminal(ended)
    other.expect_outcome(ended, SUCCESS, f"a task that ended just before {end} of another executor")
    gate.open()
    other.await_terminal(held)
    other.expect_outcome(held, SUCCESS, f"a task that ran during {end} of another executor")
    after = trial.probe()
    other.run(after)
    other.expect_outcome(after, SUCCESS, f"a task submitted after {end} of another executor")
    other.end()
    third = trial.started(slots=2)
    last = trial.probe()
    third.run(last)
    third.expect_outcome(last, SUCCESS, "a task of a third executor, started after two others had ended")
    third.end()


@must()
def host_file_descriptors_stay_open(trial: Trial) -> None:
    """File descriptors that the host had open are still open, and refer to the same files, after tasks have
    run and ``end()`` has returned.

    Why: the scheduler's database connections, sockets and log files are file descriptors. If an executor
    closes one, the next file to be opened gets its number.
    Likely causes: a daemonizing idiom (``closerange``) runs in the host; a descriptor is closed twice, the
    second time after its number has been reused.
    Origin: the contract; apache/airflow#71707 (what a fork shares with the host).
    """
    left, right = socket.socketpair()
    plain = os.open(os.devnull, os.O_RDONLY)
    kept = [0, 1, 2, plain, left.fileno(), right.fileno()]
    # Without gaps: one that is closed twice may be the neighbour of the first free number.
    highest = max(number for number in processes.open_descriptors() if number < _HIGH[0])
    while kept[-1] < highest:
        kept.append(fcntl.fcntl(plain, fcntl.F_DUPFD_CLOEXEC, 0))
    # Including high numbers, because code that closes a range of descriptors often spares the first few.
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    numbers = [number for number in _HIGH if limit < 0 or number < limit]
    kept += [fcntl.fcntl(plain, fcntl.F_DUPFD_CLOEXEC, number) for number in numbers]
    before = {descriptor: _identity(descriptor) for descriptor in kept}
    subject = trial.started(slots=1)
    _work_and_end(subject)
    for descriptor in kept:
        expect(
            _identity(descriptor) == before[descriptor],
            expected=f"file descriptor {descriptor} of the scheduler process to stay open",
            actual="it was closed" if _identity(descriptor) is None else "it refers to another file now",
        )


@should(after=("faults.works-with-busy-host-threads",))
def works_outside_the_main_thread(trial: Trial) -> None:
    """An executor works when all its calls come from one thread that is not the main thread.

    Why: the main thread of a host often belongs to a server or an event loop.
    Likely causes: ``start()`` installs a signal handler, which only the main thread may do; it asks for the
    event loop of the calling thread, which only the main thread has by default.
    Origin: spotify/luigi#3219; apache/airflow#1050 (signal only works in main thread).
    """
    raised: list[BaseException] = []

    def use_executor() -> None:
        try:
            subject = trial.started(slots=1)
            good, bad = trial.probe(), trial.probe("raise=on purpose")
            subject.run(good, bad)
            subject.expect_outcome(good, SUCCESS, "a task of an executor used outside the main thread")
            subject.end()
        except BaseException as error:  # raised again in the main thread
            raised.append(error)

    thread = threading.Thread(target=use_executor)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


@must()
def host_children_keep_their_exit_status(trial: Trial) -> None:
    """The host gets the exit status of its own child processes, whether they exit before ``start()``, while
    tasks run, or before ``end()``.

    Why: schedulers start processes of their own. If the exit status of a child is gone, ``subprocess``
    reports success.
    Likely causes: ``os.wait()`` or ``os.waitpid(-1)``, in ``sync()`` or in a handler for SIGCHLD, reaps every
    child; SIGCHLD is set to SIG_IGN, so the kernel discards each exit status.
    Origin: benoitc/gunicorn#1584; benoitc/gunicorn#2807 (it reaps children of the application);
    benoitc/gunicorn#3153 (every later subprocess.run() returns 0).
    """
    children = {when: _Child(trial) for when in ("before start()", "while tasks ran", "before end()")}
    early, during, late = children.values()
    early.exit()
    subject = trial.started(slots=2)
    gate = trial.gate()
    held, bad = trial.probe(gate.step), trial.probe("raise=on purpose")
    subject.submit(held, bad)
    subject.await_started(held)
    during.exit()
    subject.await_terminal(bad)
    gate.open()
    subject.await_terminal(held)
    subject.run(trial.probe())
    subject.quiet()
    late.exit()
    subject.end()
    for when, child in children.items():
        expect(
            child.exit_status == _Child.STATUS,
            expected=f"the scheduler process to get exit status {_Child.STATUS} of its own child that exited "
            f"{when}",
            actual="the exit status had been taken"
            if child.exit_status is None
            else f"it got {child.exit_status}",
        )


class _Child:
    """A child process of the host that is none of the executor's; it exits when it is asked to."""

    STATUS = 3

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._gate = trial.gate()
        self._pid = trial.host.meanwhile(self._run)

    def _run(self) -> None:
        wait_at(self._gate.path)
        os._exit(self.STATUS)

    def exit(self) -> None:
        self._gate.open()
        self._trial.wait_for(lambda: not processes.is_alive(self._pid), patient=True)

    @functools.cached_property
    def exit_status(self) -> int | None:
        """Its exit status, or ``None`` if the executor has taken it."""
        return self._trial.host.exit_status(self._pid)


def _identity(descriptor: int) -> tuple[int, int, int] | None:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mode


def _work_and_end(subject: Subject) -> None:
    """Run a task that succeeds and one that fails, and end the executor."""
    good, bad = subject.trial.probe(), subject.trial.probe("raise=on purpose")
    subject.run(good, bad)
    subject.end()


@must(
    after=("lifecycle.two-executors-coexist-in-one-process",),
    turn="background",
)
def two_hosts_coexist_on_one_machine(trial: Trial) -> None:
    """Two schedulers on one machine do not affect each other: each can start an executor, and neither touches
    the tasks of the other.

    Why: a machine runs a production and a test scheduler, two of them for availability, or test suites in
    parallel.
    Likely causes: a lock file, a port or a socket with a fixed name; ``start()`` kills what it takes for the
    remains of a crash; processes are found by their name or command line.
    Origin: apache/airflow#13808 (tasks of one scheduler were reset by another).
    """
    subject = trial.started(slots=1)
    gate = trial.gate()
    held = trial.probe(gate.step)
    subject.submit(held)
    subject.await_started(held)
    run_a_task_and_exit(trial, ends=True)
    subject.expect_running(held, "while another scheduler starts on the machine")
    gate.open()
    subject.await_terminal(held)
    subject.expect_outcome(held, SUCCESS, "a task while another scheduler started on the machine")


@should()
def host_state_is_unchanged_after_end(trial: Trial) -> None:
    """After ``end()`` the process-wide settings of the host are the same as before ``start()``.

    Why: the host is the scheduler's process. Its signal handlers, environment, working directory, garbage
    collector settings and streams belong to the scheduler and to the other executors in it.
    Likely causes: ``start()`` installs signal handlers or freezes the garbage collector, and ``end()`` does
    not restore them; setup code for workers runs in the host; logging is configured at import or start; an
    event loop is set for the host's thread, and closed; standard output is made non-blocking.
    Origin: Airflow's LocalExecutor changed signal handlers and gc settings around forks; discussion 58143.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)  # not the default, so that a reset to the default is a change
    frozen = gc.get_freeze_count()
    before = _settings(frozen)
    subject = trial.started(slots=1)
    _work_and_end(subject)
    after = _settings(frozen)
    changed = [name for name in before if before[name] != after[name]]
    expect(
        not changed,
        expected="the settings of the scheduler process to be unchanged after "
        + trial.target.adapter.name_of(Call.END),
        actual="; ".join(f"{name}: {_change(before[name], after[name])}" for name in changed[:4])[:600],
    )


def _change(before: object, after: object) -> str:
    """Only what has changed, because the environment contains secrets that do not belong in a report."""
    if isinstance(before, dict) and isinstance(after, dict):
        changes = [f"{name} was added" for name in after if name not in before]
        changes += [f"{name} was removed" for name in before if name not in after]
        both = (name for name in before if name in after and before[name] != after[name])
        return ", ".join([*changes, *(f"{name} {_change(before[name], after[name])}" for name in both)])
    if isinstance(before, list) and isinstance(after, list):
        changes = [f"{item!r} was added" for item in after if item not in before]
        changes += [f"{item!r} was removed" for item in before if item not in after]
        return ", ".join(changes) or "the order changed"
    return f"changed from {before!r} to {after!r}"


def _settings(frozen_before: int) -> dict[str, object]:
    mask = os.umask(0)
    os.umask(mask)
    root = logging.getLogger()
    return {
        "signal handlers": {
            getattr(number, "name", str(number)): repr(signal.getsignal(number))
            for number in signal.valid_signals()
            if number < signal.SIGRTMIN
        },
        "blocked signals": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "interval timer": signal.getitimer(signal.ITIMER_REAL),
        "descriptor that signals wake up": _wakeup_descriptor(),
        "environment": dict(os.environ),
        "working directory": os.getcwd(),
        "umask": mask,
        "gc enabled": gc.isenabled(),
        "gc thresholds": gc.get_threshold(),
        "gc debug flags": gc.get_debug(),
        # Only an increase counts: Python 3.12 starts with frozen objects, and any gc.unfreeze() thaws them.
        "objects frozen by gc": gc.get_freeze_count() > frozen_before,
        "gc callbacks": [id(callback) for callback in gc.callbacks],
        "standard streams": [id(stream) for stream in (sys.stdin, sys.stdout, sys.stderr)],
        "standard streams that block": [_blocks(descriptor) for descriptor in range(3)],
        "exception hooks": [id(sys.excepthook), id(sys.unraisablehook), id(threading.excepthook)],
        "recursion limit": sys.getrecursionlimit(),
        "switch interval": sys.getswitchinterval(),
        "sys.path": list(sys.path),
        "sys.argv": list(sys.argv),
        "resource limits": {
            name: resource.getrlimit(getattr(resource, name))
            for name in ("RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_STACK")
        },
        # The standard library sets the default where there is none, as soon as a process is spawned.
        "multiprocessing start method": multiprocessing.get_start_method(allow_none=True)
        or multiprocessing.get_all_start_methods()[0],
        "nice value": os.getpriority(os.PRIO_PROCESS, 0),
        "CPU affinity": sorted(os.sched_getaffinity(0)),
        "session and process group": (os.getsid(0), os.getpgrp()),
        "locale": locale.setlocale(locale.LC_ALL),
        "socket timeout": socket.getdefaulttimeout(),
        "stack size of threads": threading.stack_size(),
        "adopts orphans (PR_SET_CHILD_SUBREAPER)": adopts_orphans(),
        "logging.raiseExceptions": logging.raiseExceptions,
        "every warning is ignored": ("ignore", None, Warning, None, 0) in warnings.filters,
        "root logger": (root.level, [id(handler) for handler in root.handlers], logging.root.manager.disable),
        "faulthandler": faulthandler.is_enabled(),
        "trace and profile functions": (repr(sys.gettrace()), repr(sys.getprofile())),
        "event loop": _event_loop(),
    }


def _blocks(descriptor: int) -> bool | None:
    """Whether reading or writing may wait; ``None``: the descriptor is closed."""
    try:
        return os.get_blocking(descriptor)
    except OSError:
        return None


def _wakeup_descriptor() -> int:
    descriptor = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor)
    return descriptor


def _event_loop() -> tuple[str, int]:
    """The class of the event loop policy, and the loop that is set for this thread, running or not."""
    import asyncio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # policies are deprecated, and Python 3.16 removes them
        policy = asyncio.get_event_loop_policy()
    loop = getattr(getattr(policy, "_local", None), "_loop", None)
    return type(policy).__qualname__, id(loop)
