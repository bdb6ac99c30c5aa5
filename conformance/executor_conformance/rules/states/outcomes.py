"""The outcome of a task, by how it ended."""

from __future__ import annotations

import concurrent.futures
import os
import platform
import resource
import signal

from executor_conformance.contract import FAILED, SUCCESS
from executor_conformance.harness.trial import Trial
from executor_conformance.probes.calls import RETURN_VALUES
from executor_conformance.probes.steps import MESSAGES, Falsy, WithoutItems
from executor_conformance.requirements import Capability, Observation
from executor_conformance.rules import must, should
from executor_conformance.rules.faults.recovery import expect_capacity
from executor_conformance.verdicts import NotApplicable, expect

#: Linux accepts no argument of more pages than this (MAX_ARG_STRLEN).
_MOST_PAGES = 32


@must()
def an_exception_is_a_failure(trial: Trial) -> None:
    """A task that raises an exception is reported ``failed``, and the next task runs.

    Why: reporting a failure as a success is the worst mistake that an executor can make.
    Likely causes: only the hand-over to a worker is checked, not the outcome; the exception kills the worker.
    Origin: apache/airflow#47873; apache/airflow#64476 (a task's exception ends the scheduler).
    """
    subject = trial.started(slots=1)
    bad = trial.probe("raise=on purpose")
    subject.run(bad)
    subject.expect_outcome(bad, FAILED, "a task that raised RuntimeError")
    good = trial.probe()
    subject.run(good)
    subject.expect_outcome(good, SUCCESS, "the task after one that raised RuntimeError")


@must(
    needs=(Capability.EXIT_STATUS,),
    after=("interface.command-kinds-are-accurate",),
)
def exit_status_decides_the_outcome(trial: Trial) -> None:
    """Exit status 0 is reported as ``success``, and every other exit status as ``failed``.

    Why: the exit status is the only result that a command has.
    Likely causes: only status 1 counts as a failure; the status is truncated to one bit or compared as a
    signed number; a status above 127 is taken for a signal and dropped; the status of a task that was asked
    to stop (128 + SIGTERM) or to be skipped counts as a success.
    Origin: apache/airflow#1199; apache/airflow#8030; apache/airflow#65833; apache/airflow#43300.
    """
    # Success is a task that returns, not `exit=0`: the next rule is about SystemExit.
    codes = (1, 2, 3, 75, 77, 99, 126, 127, 128, 130, 137, 143, 255)
    _expect_outcomes(trial, {"": SUCCESS, **{f"exit={code}": FAILED for code in codes}})
    subject = trial.started(slots=1)
    if not subject.can(Capability.ARGV):
        return
    succeeding = trial.program("/bin/sh", "-c", "exit 0")
    subject.run(succeeding)
    if subject.outcome(succeeding) != SUCCESS:
        return  # no program runs here: interface.arbitrary-programs-run-as-given
    programs = {code: trial.program("/bin/sh", "-c", f"exit {code}") for code in codes}
    subject.run(*programs.values())
    for code, program in programs.items():
        subject.expect_outcome(program, FAILED, f"a program that exited with status {code}")


@must(
    needs=(Capability.EXIT_STATUS,),
    after=("states.exit-status-decides-the-outcome", "interface.command-kinds-are-accurate"),
)
def system_exit_maps_to_its_exit_status(trial: Trial) -> None:
    """``SystemExit`` means what it means to the interpreter: no argument, ``None`` and 0 are ``success``; any
    other integer, and a string, are ``failed``.

    Why: ``sys.exit()`` is the usual way for a Python program to exit. In a forked worker it is an exception,
    and both ways of running a task must agree.
    Likely causes: ``SystemExit`` is caught like any other exception and always counts as a failure; its
    argument is assumed to be a number.
    Origin: Airflow 2.11's LocalExecutor in fork mode reports SystemExit(0) as failed.
    """
    _expect_outcomes(
        trial, {"exit=none": SUCCESS, "exit=None": SUCCESS, "exit=0": SUCCESS, "exit=text": FAILED}
    )
    subject = trial.started(slots=1)
    if subject.can(Capability.CALLABLE):
        call = trial.probe("exit=3")
        subject.submit_callable(call)
        subject.await_terminal(call)
        subject.expect_outcome(call, FAILED, "a callable that raised SystemExit(3)")


@must(
    needs=(
        Observation.LOCAL_PROCESSES,
        Capability.EXIT_STATUS,
    ),
    after=("states.exit-status-decides-the-outcome",),
)
def a_nonzero_os_exit_is_a_failure(trial: Trial) -> None:
    """A task that calls ``os._exit()`` is reported by its exit status like any other: nonzero is ``failed``.

    Why: libraries written in C exit this way, and no Python code of the worker runs afterwards.
    Likely causes: the outcome is reported by code that runs after the task in the same process; a worker that
    has exited is replaced, and its task is forgotten.
    Origin: apache/airflow#65833 (exit code lost).
    """
    _expect_outcomes(trial, {"_exit=3": FAILED, "_exit=255": FAILED})


def _expect_outcomes(trial: Trial, outcomes: dict[str, str]) -> None:
    """Run a task for each step that ends one."""
    subject = trial.started(slots=1)
    probes = {step: trial.probe(*([step] if step else [])) for step in outcomes}
    subject.submit(*probes.values())
    subject.await_terminal(*probes.values())
    for step, state in outcomes.items():
        subject.expect_outcome(probes[step], state, f"a task that {_described(step)}")


def _described(step: str) -> str:
    """How a task with this step ends, for messages."""
    name, _, value = step.partition("=")
    if name == "exit":
        argument = {"none": "", "text": "'a string'"}.get(value, value)
        return f"raised SystemExit({argument})"
    if name == "raise":
        return f"raised RuntimeError({value!r})"
    if name == "raise-type":
        return f"raised {value.rpartition('.')[2]}, whose bool() is false"
    return f"called os._exit({value})" if name == "_exit" else "returned"


@must(needs=(Capability.CALLABLE,), after=("states.an-exception-is-a-failure",))
def a_return_value_is_no_exit_status(trial: Trial) -> None:
    """A callable that returns is reported ``success``, whatever it returns.

    Why: functions return counts, flags and text; only an exception says that they failed.
    Likely causes: the task is run as ``sys.exit(function())``; a false value, or the value ``False``, counts
    as a failure.
    Origin: scripts that pip installs run ``sys.exit(main())``, so there the value does decide.
    """
    subject = trial.started(slots=1)
    probes = {what: trial.probe(f"return-value={what}") for what in RETURN_VALUES}
    for probe in probes.values():
        subject.submit_callable(probe)
    subject.await_terminal(*probes.values())
    for what, probe in probes.items():
        subject.expect_outcome(probe, SUCCESS, f"a callable that returned {what}")


@must(needs=(Observation.LOCAL_PROCESSES,), after=("isolation.sigint-and-sigterm-work-in-tasks",))
def death_by_signal_is_a_failure(trial: Trial) -> None:
    """A task that is killed by a signal is reported ``failed``.

    Why: the kernel's OOM killer sends SIGKILL, and a crash in C code raises SIGSEGV. The task cannot report
    anything itself, so the executor has to notice.
    Likely causes: the worker waits for a message that the dead task cannot send; a negative return code does
    not count as a failure.
    Origin: apache/airflow#1157; apache/airflow#13215 (killed tasks never reported).
    """
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
        subject = trial.started(slots=1)
        probe = trial.probe(f"kill={int(number)}")
        subject.run(probe)
        subject.expect_outcome(probe, FAILED, f"a task killed by {number.name}")
    if subject.can(Capability.ARGV):
        program = trial.program("/bin/sh", "-c", "kill -9 $$")
        subject = trial.started(slots=1)
        subject.run(program)
        subject.expect_outcome(program, FAILED, "a program killed by SIGKILL")


@must(needs=(Capability.ARGV,))
def a_command_that_cannot_run_never_succeeds(trial: Trial) -> None:
    """A command whose program or module does not exist, or that the kernel refuses to execute, is rejected or
    reported ``failed``, and the next task runs.

    Why: a wrong command is the most common mistake, and must not look like anything else.
    Likely causes: an exception of ``Popen`` kills the worker, such as one of the rarer ones; a forked child
    whose exec fails continues as a second host.
    Origin: apache/airflow#16829; apache/airflow#71380.
    """
    subject = trial.started(slots=1)
    plain = os.path.join(trial.scratch, "not-executable")
    with open(plain, "w") as file:
        file.write("#!/bin/sh\nexit 0\n")
    binary = os.path.join(trial.scratch, "of-no-format")
    with open(os.open(binary, os.O_WRONLY | os.O_CREAT, 0o755), "wb") as file_of_no_format:
        file_of_no_format.write(b"\x7fELF\0\0(\n")
    module = trial.probe()
    assert module.work.argv is not None
    for what, argv in {
        "whose program does not exist": ("/nonexistent/program",),
        "whose program is not on PATH": ("executor-conformance-no-such-program",),
        "whose file is not executable": (plain,),
        "that names a directory": (trial.scratch,),
        "whose file has no known format": (binary,),
        "whose path leads through a file": (os.path.join(plain, "program"),),
        "whose path is too long": ("/" + "n" * 300,),
        "whose argument is too long": ("true", "a" * (_MOST_PAGES * resource.getpagesize())),
        "whose module does not exist": (*module.work.argv[:2], "executor_conformance.no_such_module"),
    }.items():
        probe = trial.program(*argv)
        if subject.rejection(lambda: subject.submit(probe)) is None:  # noqa: B023
            subject.await_terminal(probe)
            subject.expect_outcome(probe, FAILED, f"a command {what}")
        good = trial.probe()
        subject.run(good)
        subject.expect_outcome(good, SUCCESS, f"the task after a command {what}")


#: Exceptions that executors use for purposes of their own.
_USED_BY_EXECUTORS = (
    "StopIteration",
    "StopAsyncIteration",
    "EOFError",
    "KeyError",
    "BrokenPipeError",
    "ConnectionResetError",
    "ChildProcessError",
    "InterruptedError",
    "BlockingIOError",
    "TimeoutError",
    "queue.Empty",
    "queue.Full",
    "concurrent.futures.CancelledError",
    "concurrent.futures.InvalidStateError",
    "concurrent.futures.BrokenExecutor",
    "asyncio.CancelledError",
    "multiprocessing.ProcessError",
    "pickle.PicklingError",
    "subprocess.CalledProcessError",
    "subprocess.TimeoutExpired",
)


@must(
    after=(
        "states.an-exception-is-a-failure",
        "states.exactly-one-terminal-event",
        "faults.a-base-exception-fails-one-task",  # asyncio.CancelledError is one
    )
)
def exceptions_of_every_type_are_failures(trial: Trial) -> None:
    """A task that raises an exception is reported ``failed`` and runs once, even if the executor uses
    exceptions of the same type internally, such as EOFError, TimeoutError, StopIteration or ``queue.Empty``.

    Why: tasks read files, pipes and queues, so they raise what the executor's own pipes and queues raise.
    Likely causes: ``except EOFError`` or ``except queue.Empty`` around more than the read from the queue; a
    retry after BrokenPipeError or TimeoutError runs the task again; a future that refuses StopIteration or
    takes CancelledError for a cancellation.
    Origin: python/cpython#112182; dask/distributed#5846; huggingface/datatrove#492 (TimeoutError and EOFError
    of the task are taken for those of the pool).
    """
    subject = trial.started(parallelism=2, slots=1)
    bad = {name: trial.probe(f"raise-type={name}") for name in _USED_BY_EXECUTORS}
    good = trial.probes(4)
    subject.submit(*good[:2], *bad.values(), *good[2:])
    for name, probe in bad.items():
        subject.require(
            lambda: subject.outcome(probe),  # noqa: B023
            expected=f"a terminal event for a task that raised {name}",
            actual=lambda: subject.describe([probe]),  # noqa: B023
        )
    subject.await_terminal(*good)
    for name, probe in bad.items():
        subject.expect_outcome(probe, FAILED, f"a task that raised {name}")
        expect(
            len(probe.runs) == 1,
            expected=f"a task that raised {name} to run once",
            actual=f"it ran {len(probe.runs)} times",
        )
    for probe in good:
        subject.expect_outcome(probe, SUCCESS, "a task that ran together with tasks that raised")
    expect_capacity(trial, subject, 2, "after tasks that raised exceptions of many types")


@must(after=("states.an-exception-is-a-failure",))
def an_exception_without_a_message_is_a_failure(trial: Trial) -> None:
    """A task is reported ``failed`` even if its exception has no message.

    Why: ``assert`` and ``raise ValueError`` have none.
    Likely causes: the message is sent without the type, and an empty one means success; ``if message:``
    instead of ``if message is not None:``.
    Origin: python/cpython#132063 (a test for truth where ``None`` was meant).
    """
    _expect_outcomes(trial, {"raise=": FAILED})


@must(after=("states.an-exception-is-a-failure", "states.exactly-one-terminal-event"))
def an_exception_with_any_message_is_a_failure(trial: Trial) -> None:
    """A task is reported ``failed`` whatever the message of its exception is: several lines, a megabyte,
    half a surrogate pair, a null character, or placeholders such as ``%s``.

    Why: messages contain what the task has read: paths, output of programs, documents.
    Likely causes: events are sent as lines of text; the message is encoded as UTF-8 where it is sent, and the
    event is lost with the error; the message is used as a format string; a full pipe blocks the worker.
    Origin: WeblateOrg/weblate#5041 (text that cannot be encoded as UTF-8 fails the task that reports it).
    """
    subject = trial.started(parallelism=2, slots=1)
    bad = {kind: trial.probe(f"raise-message={kind}") for kind in MESSAGES}
    good = trial.probe()
    subject.submit(*bad.values(), good)
    for kind, probe in bad.items():
        subject.require(
            lambda: subject.outcome(probe),  # noqa: B023
            expected=f"a terminal event for a task whose exception has a message with {kind}",
            actual=lambda: subject.describe([probe]),  # noqa: B023
        )
        subject.expect_outcome(probe, FAILED, f"a task whose exception has a message with {kind}")
    subject.await_terminal(good)
    subject.expect_outcome(good, SUCCESS, "a task that ran together with tasks that raised")


@should(after=("states.an-exception-is-a-failure",))
def a_falsy_exception_is_a_failure(trial: Trial) -> None:
    """A task is reported ``failed`` even if ``bool()`` of its exception is false.

    Why: an exception that collects errors may have a length; a failure that counts as a success is lost.
    Likely causes: ``if error:`` instead of ``if error is not None:``; the result of ``Future.result()`` in a
    Python that has this fault itself.
    Origin: python/cpython#132063 (ProcessPoolExecutor returns None for such a call);
    langchain-ai/langchain#39780 (such a call is not retried).
    """
    subject = trial.started(slots=1)
    if not subject.can(Capability.CALLS) and _future_loses_a_falsy_exception():
        raise NotApplicable(f"Future.result() of Python {platform.python_version()} loses such an exception")
    _expect_outcomes(
        trial, {f"raise-type={kind.__module__}.{kind.__name__}": FAILED for kind in (Falsy, WithoutItems)}
    )


def _future_loses_a_falsy_exception() -> bool:
    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    future.set_exception(Falsy())
    try:
        future.result()
    except Falsy:
        return False
    return True
