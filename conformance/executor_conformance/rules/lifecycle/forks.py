"""What a fork copies: the host's exit functions and buffered output, and the executor itself."""

from __future__ import annotations

import atexit
import gc
import multiprocessing.util
import os
import signal
import sys
import weakref
from collections.abc import Callable

from executor_conformance.contract import SUCCESS
from executor_conformance.harness import processes
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.rules import must
from executor_conformance.rules.faults.recovery import expect_capacity
from executor_conformance.verdicts import expect


def _run_tasks_that_end_in_every_way(trial: Trial) -> None:
    """Run them, and end the executor."""
    subject = trial.started(parallelism=2, slots=1)
    steps = ["nap=0", "raise=on purpose", "raise-unpicklable"]
    if subject.can(Capability.EXIT_STATUS):
        steps += ["exit=0", "exit=3"]
    for step in steps:
        subject.run(trial.probe(step))
    if subject.can(Capability.ARGV):
        missing = trial.program("/nonexistent/program")
        if subject.rejection(lambda: subject.submit(missing)) is None:
            subject.await_terminal(missing)
    subject.end()


@must(after=("states.a-command-that-cannot-run-never-succeeds",))
def tasks_run_no_code_of_the_host(trial: Trial) -> None:
    """No worker or task runs the host's exit functions, and no forked child returns from the executor's code
    into the host's.

    Why: exit functions remove the host's files and close its connections; code after the call schedules
    every task a second time.
    Likely causes: a forked child that ends with ``sys.exit()``, or by an exception from reporting its result;
    ``atexit`` functions that are not cleared after the fork.
    Origin: ansible/ansible#51633 (a child goes on in the code of its parent); closeio/tasktiger#65.
    """
    witness = os.path.join(trial.scratch, "witness")
    host = os.getpid()

    def write(what: str) -> None:
        if os.getpid() == host:
            return
        with open(witness, "a") as file:
            file.write(f"{what}\n")

    registered = _Registered()
    atexit.register(write, "an atexit function")
    weakref.finalize(registered, write, "a weakref.finalize() function")
    try:
        _run_tasks_that_end_in_every_way(trial)
    finally:
        if os.getpid() != host:
            write("code after a call of the executor")
            os._exit(1)
    found = sorted(set(open(witness).read().splitlines())) if os.path.exists(witness) else []  # noqa: SIM115
    expect(
        not found,
        expected="no code of the scheduler process to run in a worker or a task",
        actual=f"{', '.join(found)} ran in another process",
    )


class _Registered:
    """An object of the host, for ``weakref.finalize()``."""


@must(after=("states.a-command-that-cannot-run-never-succeeds",))
def host_buffers_are_written_once(trial: Trial) -> None:
    """What the host has written to a file or to ``sys.stdout`` and not yet flushed is written exactly once.

    Why: a record that is in a file twice is wrong data without an error.
    Likely causes: a forked child flushes the buffers that it has inherited, by ``sys.exit()`` or with
    ``sys.stdout.flush()`` before ``os._exit()``; a forked child whose program cannot be executed calls
    ``sys.exit()``.
    Origin: python/cpython#135335 (each child of the fork server writes the same output again);
    certbot/certbot#477.
    """
    paths = {name: os.path.join(trial.scratch, f"buffered-{number}") for number, name in enumerate(_FILES)}
    text, binary, output = paths.values()
    mark = "written once\n"
    kept = sys.stdout
    with open(text, "w") as one, open(binary, "wb") as other, open(output, "w") as sys.stdout:
        one.write(mark)
        other.write(mark.encode())
        sys.stdout.write(mark)
        try:
            _run_tasks_that_end_in_every_way(trial)
        finally:
            sys.stdout.flush()
            sys.stdout = kept
    for name, path in paths.items():
        with open(path) as file:
            count = file.read().count(mark)
        expect(
            count == 1,
            expected=f"what the scheduler process wrote to {name} before its tasks ran to be there once",
            actual=f"it is there {count} times",
        )


_FILES = ("a text file", "a binary file", "sys.stdout")


@must(
    after=(
        "parallelism.n-tasks-run-at-once",
        "lifecycle.tasks-run-no-code-of-the-host",
        "states.no-terminal-event-before-the-task-ends",
    )
)
def a_fork_of_the_host_does_no_harm(trial: Trial) -> None:
    """A child that the host forks while an executor works exits normally. Neither its exit nor its garbage
    collection changes anything in the host.

    Why: schedulers fork processes for their own purposes, and each gets a copy of the executor.
    Likely causes: an exit function that stops the workers, and does not check in which process it runs;
    ``__del__()`` or ``weakref.finalize()`` kills workers or removes files; the child joins a thread that
    exists only in the host; the workers are subinterpreters, and a child that is forked then crashes.
    Origin: rohanpm/more-executors#140; langfuse/langfuse-python#1654 (both: an executor after a fork);
    python/cpython#139759 (the crash).
    """
    # Only what the executor registers from now on: multiprocessing's own exit function, for example, kills
    # daemonic workers from any fork.
    atexit._clear()
    subject = trial.started(parallelism=2, slots=2)
    gate = trial.gate()
    held, queued = trial.probes(2, gate.step), trial.probes(2)
    subject.submit(*held, *queued)
    subject.await_started(*held)

    def drop_the_executor() -> None:
        trial.built.clear()
        vars(subject.driver).clear()
        gc.collect()

    for what, body in (
        ("that multiprocessing made", _exit_of_multiprocessing),
        ("that ran its exit functions", atexit._run_exitfuncs),
        ("that collected its copy of the executor as garbage", drop_the_executor),
    ):
        _expect_normal_exit(trial, what, body)
    subject.quiet()
    expect(
        not any(map(subject.outcome, held)),
        expected="running tasks to go on after children of the scheduler process have exited",
        actual=subject.describe(held),
    )
    gate.open()
    subject.await_terminal(*held, *queued)
    for probe in (*held, *queued):
        subject.expect_outcome(probe, SUCCESS, "a task that was in flight when the scheduler process forked")
    expect_capacity(trial, subject, 2, "after children of the scheduler process have exited")
    subject.end()


def _expect_normal_exit(trial: Trial, what: str, body: Callable[[], object]) -> None:
    def run() -> None:
        body()
        os._exit(0)

    child = trial.host.meanwhile(run)
    trial.require(
        lambda: not processes.is_alive(child),
        expected=f"a child of the scheduler process {what} to exit",
        actual=lambda: f"it is still alive: {processes.look(child)}",
    )
    status = trial.host.exit_status(child)
    expect(
        status in (0, None),  # None: the executor reaps every child, which another rule judges
        expected=f"a child of the scheduler process {what} to exit with status 0",
        actual=f"it was killed by {signal.Signals(-status).name}"
        if status and status < 0
        else f"it exited with {status}",
    )


def _exit_of_multiprocessing() -> None:
    process = multiprocessing.get_context("fork").Process(target=int)
    process.start()
    process.join()
    if process.exitcode:
        os._exit(process.exitcode & 0xFF)
