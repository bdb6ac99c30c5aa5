"""Leaks in unlimited mode, on failures, and of whole executors."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from functools import partial

from executor_conformance.harness import processes
from executor_conformance.harness.futures import AnyFuture, await_done, result_or_error, submit_call
from executor_conformance.harness.growth import keeps_growing
from executor_conformance.harness.linux import monotonic
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.harness.workers import workers_of
from executor_conformance.probes.calls import Traceable, same
from executor_conformance.requirements import Capability, Observation
from executor_conformance.rules import must, should
from executor_conformance.rules.memory.resource_counts import expect_no_resource_leak
from executor_conformance.rules.memory.task_series import (
    SERIES_BUDGET_ARRIVALS,
    expect_memory_stops_growing,
    measure_of_host_memory,
    run_tasks,
)
from executor_conformance.verdicts import Inconclusive, NotApplicable, expect

#: Executors that come and go before the first sample, and tasks that each executor runs.
_WARM_UP_EXECUTORS, _TASKS_PER_EXECUTOR = 2, 4
#: An executor that is kept adds at least two objects: itself, and whatever refers to it.
_OBJECTS_PER_KEPT_EXECUTOR = 2
_EXECUTOR_WINDOWS = 4


@must(
    needs=(Observation.VISIBLE_WORKERS,),
    after=(
        "memory.no-resource-leak-per-task",
        "memory.host-memory-stops-growing",
        "parallelism.unlimited-mode-has-no-hidden-limit",
        "model.unlimited-mode-keeps-every-invariant",
    ),
    turn="alone",
)
def no_leak_in_unlimited_mode(trial: Trial) -> None:
    """Where parallelism 0 means unlimited, tasks leak no resources, and the memory of the host stops growing.

    Why: unlimited mode starts the most processes, and usually has the least code to clean up after them.
    Likely causes: processes are kept in a list that only limited mode cleans up; pipe ends of processes that
    are started for one task are never closed.
    Origin: Airflow 2's UnlimitedParallelism, which starts a process for each task; apache/airflow#13542.
    """
    expect_no_resource_leak(trial.started_without_limit)
    expect_memory_stops_growing(
        trial.started_without_limit, "the scheduler process", measure_of_host_memory()
    )


@must(
    needs=(Observation.LOCAL_PROCESSES,),
    after=(
        "memory.no-resource-leak-per-task",
        "states.death-by-signal-is-a-failure",
        "states.a-nonzero-os-exit-is-a-failure",
        "states.a-command-that-cannot-run-never-succeeds",
        "faults.capacity-is-restored-after-worker-deaths",
        "faults.survives-the-death-of-all-workers",
        "faults.no-task-outlives-its-killed-worker",
        "faults.os-exit-in-a-callable-is-a-failure",
        "faults.a-bad-task-blocks-no-other-task",
    ),
)
def no_resource_leak_on_failure(trial: Trial) -> None:
    """Tasks that die, commands that cannot be executed and workers that are killed leak no descriptor,
    thread, process, semaphore or shared memory mapping.

    Why: error paths are the least tested, and a broken deployment takes them thousands of times.
    Likely causes: a pipe is closed only when its worker sends a last message, which a killed worker does not;
    what was opened for a program stays open if the program cannot be executed; a thread waits for a message
    from a dead worker.
    Origin: tornadoweb/tornado#834 (pipes of a program that does not exist); varnish/hitch#203 (pipes of
    killed workers).
    """
    expect_no_resource_leak(
        partial(trial.started, parallelism=2, slots=2), _cause_failures, "every series of failures"
    )


def _cause_failures(subject: Subject) -> None:
    """Two of each: tasks that kill themselves, tasks that call ``os._exit()``, programs that do not exist,
    and killed workers.
    """
    trial = subject.trial
    doomed = trial.probes(2, "kill=9") + trial.probes(2, "_exit=3")
    if subject.can(Capability.ARGV):
        doomed += [trial.program("/nonexistent/program") for _ in range(2)]
    accepted = [probe for probe in doomed if subject.rejection(lambda: subject.submit(probe)) is None]  # noqa: B023
    subject.await_terminal(*accepted)
    gate = trial.gate()
    held = trial.probes(2, gate.step)
    subject.submit(*held)
    subject.await_started(*held)
    for worker in set(workers_of(trial, held)):
        processes.kill(worker)
    subject.await_terminal(*held)
    subject.drain_all()
    subject.forget()


@should(
    needs=(Capability.CALLS,),
    after=("interface.values-arrive-unchanged", "memory.no-object-leak-per-task"),
)
def a_finished_call_is_freed(trial: Trial) -> None:
    """When the caller has dropped a finished call, its arguments and its result are freed, even if no other
    call follows.

    Why: they are often the largest objects of a program, and after its last call an executor may be idle for
    hours.
    Likely causes: an idle thread keeps its last call in a local variable until the next one arrives; a
    reference cycle through the future or its exception.
    Origin: python/cpython#74047 (threads of ThreadPoolExecutor kept their last call).
    """
    subject = trial.started(parallelism=1, slots=1)
    argument: object = Traceable()
    future: AnyFuture | None = submit_call(subject, same, argument)
    assert future is not None
    await_done(subject, {"a call": future})
    result: object = result_or_error(subject, future)
    kept = {"argument": weakref.ref(argument)}
    with contextlib.suppress(TypeError):  # an exception in its place; another rule is about that
        kept["result"] = weakref.ref(result)
    argument = future = result = None

    def left() -> list[str]:
        gc.collect()
        return [what for what, reference in kept.items() if reference() is not None]

    subject.require(
        lambda: not left(),
        expected="the argument and the result of a call that has ended to be freed, as nobody refers to them",
        actual=lambda: f"something still refers to its {' and '.join(left())}",
    )


@should(
    after=(
        "lifecycle.host-state-is-unchanged-after-end",
        "shutdown.no-leak-across-start-end-cycles",
        "shutdown.interpreter-exit-does-not-hang",
        "memory.no-object-leak-per-task",
    )
)
def an_ended_executor_is_garbage_collected(trial: Trial) -> None:
    """An executor that has ended is garbage-collected once its owner drops it: of executors created one after
    another, the host keeps none.

    Why: services and test suites create executors again and again in one process; each one that stays keeps
    everything that it knows about its tasks.
    Likely causes: ``atexit`` refers to its ``end()``; the class has a list of all executors; each executor
    creates a logger with a name of its own; a signal handler or a thread refers to the executor.
    Origin: google/adk-python#6392 (executors kept alive by their exit handlers); jupyter/jupyter_client#264.
    """
    if trial.context.build is not None:
        raise NotApplicable("a hook builds the executor, and may keep a reference to it")

    def cycle() -> None:
        subject = trial.started(parallelism=2, slots=1)
        run_tasks(subject, _TASKS_PER_EXECUTOR)
        subject.end()
        subject.drain_all()
        subject.forget()
        trial.built.clear()

    def objects() -> int:
        # Objects, not memory blocks: over time the interpreter itself keeps a few hundred strings.
        trial.quiet()
        gc.collect()
        return len(gc.get_objects()) + gc.get_freeze_count()

    def more() -> Iterator[int]:
        while True:
            cycle()
            yield objects()

    for _ in range(_WARM_UP_EXECUTORS):
        cycle()
    deadline = monotonic() + SERIES_BUDGET_ARRIVALS * trial.budgets.arrival_s
    samples = trial.measurements["objects"] = [objects()]
    grows = keeps_growing(
        samples,
        more(),
        least=_OBJECTS_PER_KEPT_EXECUTOR,
        windows=_EXECUTOR_WINDOWS,
        is_over=lambda: monotonic() > deadline,
    )
    if grows is None:
        raise Inconclusive(
            "the number of objects grew with each executor, and there was no time to create more"
        )
    expect(
        not grows,
        expected="no object of an ended executor to be kept",
        actual="the number of objects in the scheduler process grew by "
        f"{(samples[-1] - samples[0]) / (len(samples) - 1):.0f} per executor, up to the last of "
        f"{len(samples) - 1} executors",
    )
