"""A task misbehaves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from executor_conformance.contract import FAILED, SUCCESS
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.harness.workers import need_separate_processes
from executor_conformance.probes.steps import Fatal
from executor_conformance.requirements import Capability, Observation
from executor_conformance.rules import must
from executor_conformance.rules.faults.recovery import await_outcome, await_success, expect_capacity
from executor_conformance.verdicts import NotApplicable, expect

_BASE_EXCEPTIONS = {
    "exit=3": "SystemExit(3)",
    "raise-type=KeyboardInterrupt": "KeyboardInterrupt",
    "raise-type=GeneratorExit": "GeneratorExit",
    f"raise-type={Fatal.__module__}.{Fatal.__name__}": "a subclass of BaseException",
}


def _run_among_good_tasks(
    trial: Trial, *steps: str, states: tuple[str, ...], what: str, callable_too: bool = False
) -> None:
    """Run a bad task among good ones; with ``callable_too``, run it again as a callable.

    :param states: the outcomes that the bad task may have.
    :param what: describes the bad task, for the messages.
    """
    for as_callable in (False, True) if callable_too else (False,):
        subject = trial.started(parallelism=2, slots=1)
        if as_callable and not (subject.can(Capability.CALLABLE) and _may_run_as_callable(trial, subject)):
            return
        good = trial.probes(5)
        bad = trial.probe(*steps)
        subject.submit(*good[:2])
        if as_callable:
            subject.submit_callable(bad)
        else:
            subject.submit(bad)
        subject.submit(*good[2:])
        await_outcome(subject, bad, what)
        expect(
            subject.outcome(bad) in states,
            expected=f"{' or '.join(map(repr, states))} for {what}",
            actual=f"{subject.outcome(bad)!r} with info {subject.info(bad)!r:.160}",
        )
        for probe in good:
            await_success(subject, probe, f"a good task alongside {what}")
        expect_capacity(trial, subject, 2, f"after {what}")


def _need_separate_processes(trial: Trial) -> None:
    """Leave the rule if two tasks share a process while both run.

    :raises NotApplicable: they do.
    """
    if trial.slots_up_to(2) < 2:
        return
    subject = trial.started(parallelism=2, slots=2)
    gate = trial.gate()
    pair = trial.probes(2, gate.step)
    subject.submit(*pair)
    subject.await_started(*pair)
    need_separate_processes(*pair)
    gate.open()
    subject.await_terminal(*pair)


def _may_run_as_callable(trial: Trial, subject: Subject) -> bool:
    """Whether a bad callable can do no harm to the host, because it runs in another process.

    Where commands run in the host too, the rule itself takes care of that.
    """
    if trial.facts.tasks_in_host:
        return True
    probe = trial.probe()
    subject.submit_callable(probe)
    subject.await_terminal(probe)
    return not any(run.pid == trial.host.pid for run in probe.runs)


@must()
def large_output_does_not_block_the_task(trial: Trial) -> None:
    """A task that writes far more than a pipe holds to stdout and stderr ends like any other task.

    Why: tasks log; a task whose output is not read blocks in the middle of its work and keeps its slot.
    Likely causes: output goes to a pipe that is read only at the end; the pipe is never read.
    Origin: the subprocess module's warning about wait() with pipes; apache/airflow#71380.
    """
    size = 1 << 20
    _run_among_good_tasks(
        trial, f"say={size}", f"cry={size}", states=(SUCCESS,), what="a task that writes 2 MiB of output"
    )


@must(
    needs=(Observation.LOCAL_PROCESSES,),
    after=(
        "faults.other-tasks-survive-a-worker-death",
        "interface.command-kinds-are-accurate",
        "parallelism.failed-tasks-release-their-slots",
        "states.death-by-signal-is-a-failure",
    ),
)
def survives_a_task_closing_all_file_descriptors(trial: Trial) -> None:
    """A task that closes all its file descriptors harms only itself.

    Why: daemons do so when they start, and one of the descriptors may be the worker's connection to the host.
    Likely causes: the result is sent on a descriptor that the task can close; the executor waits for a result
    that was never sent.
    Origin: how python-daemon and supervisord start; the contract: one bad task costs one task.
    """
    _need_separate_processes(trial)
    _run_among_good_tasks(
        trial,
        "closeall",
        states=(SUCCESS, FAILED),
        what="a task that closes all file descriptors",
        callable_too=True,
    )


@must(needs=(Observation.LOCAL_PROCESSES,), after=("interface.command-kinds-are-accurate",))
def a_daemon_started_by_a_task_blocks_nothing(trial: Trial) -> None:
    """A task that leaves a daemon behind is over when its own process ends, not when the daemon does.

    Why: the daemon keeps the task's streams and pipes open, so waiting for them to close takes forever.
    Likely causes: the end of a pipe is taken for the end of the task; the executor waits for the whole
    process group.
    Origin: python/cpython#119710; python/cpython#75628 (waits for the last holder of a pipe).
    """
    gate = trial.gate()
    _run_among_good_tasks(
        trial,
        f"daemon={gate.path}",
        states=(SUCCESS,),
        what="a task that leaves a daemon behind",
        callable_too=True,
    )


@must(
    needs=(Capability.CALLABLE,),
    after=(
        "states.an-exception-is-a-failure",
        "interface.command-kinds-are-accurate",
        "parallelism.failed-tasks-release-their-slots",
    ),
)
def an_unpicklable_exception_is_a_failure(trial: Trial) -> None:
    """An exception that cannot be pickled or unpickled fails its task and nothing else.

    Why: exceptions of libraries hold locks or sockets, or have constructors that unpickling cannot call.
    Likely causes: the thread that pickles the result dies of the error; the host unpickles without handling
    errors.
    Origin: apache/airflow#64476; apache/airflow#49099 (the scheduler ends); python/cpython#103061;
    python/cpython#79492; agronholm/pythonfutures#30 (pools that hang).
    """
    for step, what in (
        ("raise-unpicklable", "a task whose exception cannot be pickled"),
        ("raise-unloadable", "a task whose exception cannot be unpickled"),
    ):
        _run_among_good_tasks(trial, step, states=(FAILED,), what=what, callable_too=True)


@must(
    needs=(Capability.CALLABLE,),
    after=(
        "states.an-exception-is-a-failure",
        "interface.command-kinds-are-accurate",
        "parallelism.failed-tasks-release-their-slots",
        "faults.an-unpicklable-exception-is-a-failure",
    ),
)
def an_unpicklable_result_fails_one_task(trial: Trial) -> None:
    """A result that cannot be pickled or unpickled fails its task at most, and nothing else.

    Why: callables return open files, locks, or objects of a class that only the worker has.
    Likely causes: the thread that sends results dies of the error; the host unpickles a result in the loop
    that serves all workers, and cannot know to which task it belongs.
    Origin: python/cpython#75880 and pull requests 3895 and 4256 (results that stop or break a process pool).
    """
    for step, what in (
        ("return-unpicklable", "a task whose result cannot be pickled"),
        ("return-unloadable", "a task whose result cannot be unpickled"),
    ):
        _run_among_good_tasks(trial, step, states=(SUCCESS, FAILED), what=what, callable_too=True)


@must(
    after=(
        "states.an-exception-is-a-failure",
        "interface.command-kinds-are-accurate",
        "parallelism.failed-tasks-release-their-slots",
        "states.system-exit-maps-to-its-exit-status",
    )
)
def a_base_exception_fails_one_task(trial: Trial) -> None:
    """A task that raises ``SystemExit``, ``KeyboardInterrupt``, ``GeneratorExit`` or another
    ``BaseException`` is reported ``failed`` and costs no slot, even if tasks in all slots do so at once.

    Why: ``sys.exit(1)`` in a library, or a signal handler that raises, must not stop a worker for good.
    Likely causes: only ``Exception`` is caught around the task, so the worker's thread or process ends and
    its task is never reported; the exception leaves the event loop; a forked child goes on as a second host.
    Origin: uqfoundation/multiprocess#220; dask/distributed#5958; python/cpython#101081 (the caller waits
    forever); morganstanley/testplan#74.
    """
    subject = trial.started(parallelism=2, slots=1)
    forms: dict[str, Callable[[Probe], None]] = {}
    if subject.can(Capability.ARGV) or subject.can(Capability.EXIT_STATUS):
        forms["task"] = subject.submit
    if subject.can(Capability.CALLABLE):
        forms["callable"] = subject.submit_callable
    if not forms:
        raise NotApplicable(
            "it runs only coroutine functions, and asyncio stops the loop when one raises a BaseException"
        )
    for form, submit in forms.items():
        where = trial.probe("thread")
        submit(where)
        subject.await_terminal(where)
        if any(run.pid == trial.host.pid and run.notes == ["main"] for run in where.runs):
            # There an executor cannot know for whom the exception is.
            raise NotApplicable("its tasks run in the main thread of the scheduler process")
        for step, name in _BASE_EXCEPTIONS.items():
            what = f"a {form} that raised {name}"
            bad, good = trial.probes(2, step), trial.probe()
            for probe in bad:
                submit(probe)
            subject.submit(good)
            for probe in bad:
                await_outcome(subject, probe, what)
                subject.expect_outcome(probe, FAILED, what)
            await_success(subject, good, f"the task after {what}")
            expect_capacity(trial, subject, 2, f"after {what}")


@must(after=("states.an-exception-is-a-failure", "parallelism.failed-tasks-release-their-slots"))
def stack_or_memory_exhaustion_fails_one_task(trial: Trial) -> None:
    """A task that exhausts its stack or its memory limit fails, and nothing else does.

    Why: these errors can occur anywhere, including in the code that would report them.
    Likely causes: only ``Exception`` is caught around the task; the report itself needs memory.
    Origin: apache/airflow#64476; celery/celery#10462 (MemoryError of a task blocks the worker).
    """
    _run_among_good_tasks(trial, "recurse", states=(FAILED,), what="a task that recurses endlessly")
    if not trial.facts.tasks_in_host:
        _run_among_good_tasks(
            trial,
            f"allocate={1 << 30}",
            states=(FAILED,),
            what="a task that exceeds its memory limit",
        )


@must(
    after=(
        "states.a-command-that-cannot-run-never-succeeds",
        "parallelism.failed-tasks-release-their-slots",
        "interface.queue-and-executor-config-are-accepted",
    )
)
def a_bad_task_blocks_no_other_task(trial: Trial) -> None:
    """Good tasks all run, even among bad tasks of every kind and tasks with odd queues and configs.

    Why: one user's mistake must not become an outage for everyone.
    Likely causes: an error while a task is started ends the loop over the queued tasks; the bad task stays
    first in line.
    Origin: apache/airflow#71380; apache/airflow#37979.
    """
    subject = trial.started(parallelism=2, slots=1)
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
        if subject.rejection(lambda: subject.submit(probe, **extra)) is None and "queue" not in extra:  # noqa: B023
            accepted.append(probe)
        subject.submit(another)
    for probe in good:
        await_success(subject, probe, "a good task among bad ones")
    for probe in accepted:
        await_outcome(subject, probe, "a bad task that was accepted")


@must(after=("states.sync-does-not-block",))
def a_large_backlog_does_not_block_submit(trial: Trial) -> None:
    """Submitting more than any pipe or queue holds does not block, even while all slots are taken.

    Why: the scheduler submits thousands of tasks in one loop, and serves all executors from it.
    Likely causes: commands are written to a pipe that only an idle worker reads; a queue is bounded.
    Origin: apache/airflow#70526 (the scheduler blocks in the write to its LocalExecutor's queue).
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
        await_success(subject, probe, "a task of a large backlog")
