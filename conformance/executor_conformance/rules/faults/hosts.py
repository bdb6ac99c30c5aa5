"""The host handles signals itself, or has busy threads."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import select
import signal
import threading
from collections.abc import Iterator

from executor_conformance.contract import FAILED, SUCCESS
from executor_conformance.harness import processes
from executor_conformance.harness.linux import sleep
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.rules import must
from executor_conformance.rules.faults.recovery import await_success
from executor_conformance.verdicts import expect

#: Seconds for which a host makes no call, and for which it is suspended: no user would call that an outage.
_SUSPENDED_S = 5.0
#: Seconds between two messages of the log, in which its lock is free.
_BETWEEN_MESSAGES_S = 0.001


@must(after=("shutdown.terminate-kills-running-tasks",))
def works_with_host_signal_handlers(trial: Trial) -> None:
    """An executor works in a host that has its own handlers for SIGTERM, SIGINT and SIGCHLD, and never sends
    SIGTERM or SIGINT to the host.

    Why: schedulers use these signals to shut down cleanly.
    Likely causes: workers inherit the handlers, which keep them from being terminated; ``end()`` signals its
    own process group; the executor relies on its own SIGCHLD handler to notice exits.
    Origin: apache/airflow#18989; apache/airflow#14085.
    """
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
    caught: list[int] = []

    def handler(number: int, _frame: object) -> None:
        caught.append(number)

    for number in numbers:
        signal.signal(number, handler)
    subject = trial.started(parallelism=2, slots=2)
    good, bad = trial.probes(4), trial.probe("raise=on purpose")
    subject.run(*good, bad)
    for probe in good:
        subject.expect_outcome(probe, SUCCESS, "a task that ran while the scheduler process handled SIGCHLD")
    subject.expect_outcome(bad, FAILED, "a task that raised while the scheduler process handled SIGCHLD")
    if subject.can(Capability.TERMINATE, Capability.OWN_WORKERS) and not trial.facts.tasks_in_host:
        stopped = trial.started(parallelism=2, slots=2)
        held = trial.probes(2, trial.gate().step)
        stopped.submit(*held)
        stopped.await_started(*held)
        stopped.terminate()
        trial.require(
            lambda: not any(processes.is_alive(probe.runs[0].pid) for probe in held),
            expected="terminate() to stop the tasks although the scheduler process handles SIGTERM",
            actual=lambda: stopped.describe(held),
        )
    subject.end()
    sent = sorted({signal.Signals(number).name for number in caught if number != signal.SIGCHLD})
    expect(
        not sent,
        expected="no SIGTERM or SIGINT to reach the scheduler process",
        actual=f"it received {', '.join(sent)}",
    )


@must(after=("states.no-terminal-event-before-the-task-ends",), turn="background")
def a_suspended_host_loses_no_task(trial: Trial) -> None:
    """A host that calls no method for a few seconds, or is suspended as long, finds its tasks as it left
    them: a running task still runs, and it is reported when it has ended.

    Why: laptops sleep, virtual machines move, and a slow query blocks the loop of a scheduler.
    Likely causes: workers exit if they get no heartbeat from the host; tasks that were not looked at for some
    seconds are taken for dead, and killed.
    Origin: rails/solid_queue#763 (processes that lost their heartbeat while the machine slept);
    getpaseo/paseo#3235.
    """
    subject = trial.started(slots=1)
    gate = trial.gate()
    held = trial.probe(gate.step)
    subject.submit(held)
    subject.await_started(held)
    sleep(_SUSPENDED_S)
    subject.expect_running(held, f"while the scheduler process makes no call for {_SUSPENDED_S:.0f} s")
    host = trial.host.pid

    def suspend() -> None:
        os.kill(host, signal.SIGSTOP)
        sleep(_SUSPENDED_S)
        os.kill(host, signal.SIGCONT)

    waker = trial.host.meanwhile(suspend)
    trial.wait_for(lambda: not processes.is_alive(waker), budget_s=2 * _SUSPENDED_S, patient=True)
    trial.host.kill_own(waker)
    subject.expect_running(held, f"while the scheduler process is suspended for {_SUSPENDED_S:.0f} s")
    gate.open()
    later = trial.probe()
    subject.submit(later)
    await_success(subject, held, "a task that ran while the scheduler process was suspended")
    await_success(subject, later, "a task after the scheduler process was suspended")


@must()
def works_with_busy_host_threads(trial: Trial) -> None:
    """Tasks run and end while threads of the host log, import and hold locks.

    Why: a fork copies every lock as it is at that moment, but not the threads that would release it.
    Likely causes: a forked worker takes a lock (of logging, of a queue, of the executor) that a thread of the
    host held; it flushes the host's log files before it exits (``logging.shutdown()``, ``sys.exit()``); the
    child waits for threads that it does not have.
    Origin: apache/airflow#71707 (a lock held across the fork); aws/amazon-mwaa-docker-images#495 (the lock of
    a log file).
    """
    over = threading.Event()
    logger = logging.getLogger("executor_conformance.noise")
    logger.addHandler(logging.StreamHandler(open(os.devnull, "w")))  # noqa: SIM115 - open until the host exits
    logger.propagate = False
    lock = threading.Lock()

    def make_noise() -> None:
        while not over.is_set():
            with lock:
                logger.warning("noise")
                importlib.import_module("json")
                over.wait(0.001)

    with _a_thread_that_is_logging(trial.budgets.block_s):
        threads = [threading.Thread(target=make_noise, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            subject = trial.started(parallelism=3, slots=1)
            probes = trial.probes(20)
            subject.submit(*probes)
            for probe in probes:
                await_success(subject, probe, "a task that ran while the scheduler process had busy threads")
            subject.end()
        finally:
            over.set()


@contextlib.contextmanager
def _a_thread_that_is_logging(reads_every_s: float) -> Iterator[None]:
    """A thread in the middle of writing to its log: it holds the lock of the stream, whose reader is slow.

    :param reads_every_s: seconds after which a message is read.  The host itself may need that lock, such as
        to configure logging.  It gets the lock in the end, unlike a child that was forked while it was held.
    """
    reader, writer = os.pipe()
    logger = logging.getLogger("executor_conformance.slow")
    logger.addHandler(logging.StreamHandler(open(writer, "w")))  # noqa: SIM115 - open until the host exits
    logger.propagate = False
    message = "x" * (1 << 20)  # more than a pipe holds
    over = threading.Event()

    def write() -> None:
        while not over.wait(_BETWEEN_MESSAGES_S):
            logger.warning(message)

    def read() -> None:
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        while writing.is_alive():
            over.wait(reads_every_s)
            unread = len(message) + len("\n")
            while unread and poll.poll(100):
                unread -= len(os.read(reader, unread))

    writing = threading.Thread(target=write, daemon=True)
    reading = threading.Thread(target=read, daemon=True)
    writing.start()
    poll = select.poll()
    poll.register(writer, select.POLLOUT)
    while poll.poll(0):
        writing.join(0.001)
    reading.start()
    try:
        yield
    finally:
        over.set()
        writing.join()
        reading.join()
        os.close(reader)
