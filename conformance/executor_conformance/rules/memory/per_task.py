"""What each task leaves behind: memory in workers and in the host, and other resources."""

from __future__ import annotations

import gc
import sys
from functools import partial

from executor_conformance.harness.memory import footprint, held_outside_host
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Observation
from executor_conformance.rules import must, should
from executor_conformance.rules.memory.resource_counts import expect_no_resource_leak
from executor_conformance.rules.memory.task_series import (
    TaskSeries,
    expect_memory_stops_growing,
    measure_of_host_memory,
)
from executor_conformance.verdicts import NotApplicable, expect

#: The number of allocated memory blocks varies by this much at rest.
_BLOCK_JITTER = 16
#: Blocks per task that count as a leak, and blocks in total that are never one.
_BLOCKS_LEAKED_PER_TASK, _BLOCK_NOISE = 0.25, 30


@must(
    needs=(Observation.LOCAL_PROCESSES,),
    after=("memory.no-resource-leak-per-task", "states.a-burst-is-reported-completely"),
    turn="alone",
)
def worker_memory_stops_growing(trial: Trial) -> None:
    """The total memory of all workers stops growing within 1,000 tasks, apart from garbage that a worker has
    yet to collect.

    Why: workers live for weeks, and what each task leaves in them adds up until the kernel's out-of-memory
    killer ends a process.
    Likely causes: results or arguments are kept; modules are imported again for each task; a log handler is
    added for each task; workers disable garbage collection.
    Origin: apache/airflow#56641; apache/airflow#62212; apache/airflow#68875.
    """

    def worker_memory() -> int:
        pids = [process.pid for process in trial.host.processes()]
        if not pids:
            raise NotApplicable("no process remains from one task to the next")
        found = [each for each in map(footprint, pids) if each is not None]
        if not found:
            raise NotApplicable("the memory of its processes cannot be read: not dumpable, or another user's")
        return held_outside_host(trial.host.pid, trial.host.relatives()) + sum(
            each.shared_memory for each in found
        )

    expect_memory_stops_growing(
        partial(trial.started, slots=1), "the workers", worker_memory, _collect_in_all_workers
    )


def _collect_in_all_workers(subject: Subject) -> None:
    """Run a task in every worker that collects its garbage, unless the worker has disabled the collection."""
    trial = subject.trial
    gate = trial.gate()
    probes = trial.probes(subject.slots, "collect=if enabled", gate.step)
    subject.submit(*probes)
    trial.wait_for(lambda: all(probe.runs and probe.runs[0].notes for probe in probes), pump=subject.pump)
    gate.open()
    subject.await_terminal(*probes)
    subject.forget()


@must(
    after=(
        "memory.no-resource-leak-per-task",
        "states.exactly-one-terminal-event",
        "states.an-event-is-returned-once",
        "states.dag-filter-drains-only-matching-events",
        "states.a-burst-is-reported-completely",
    )
)
def host_memory_stops_growing(trial: Trial) -> None:
    """The memory of the host stops growing within 1,000 tasks.

    Why: the host is the scheduler, which runs longer than any worker.
    Likely causes: commands, results, futures or events of ended tasks are kept; callbacks that refer to them
    are never removed; garbage collection is disabled for speed.
    Origin: apache/airflow#55768; apache/airflow#58365.
    """
    expect_memory_stops_growing(
        partial(trial.started, slots=1), "the scheduler process", measure_of_host_memory()
    )


@should(
    after=(
        "memory.host-memory-stops-growing",
        "states.exactly-one-terminal-event",
        "parallelism.running-is-accurate",
        "asynchrony.coroutine-functions-run-to-completion",
        "asynchrony.no-object-leak-per-coroutine",
    )
)
def no_object_leak_per_task(trial: Trial) -> None:
    """Once the event of a task has been drained, the host holds no more objects than before the task.

    Why: one key per task is little, but at a million tasks a day the scheduler has to be restarted.
    Likely causes: a set of all keys ever seen; an unbounded history; a lock for each task.
    Origin: apache/airflow#62212 (a scheduler grows slowly with the tasks that it has run).
    """

    def allocated_blocks() -> int:
        gc.collect()
        return sys.getallocatedblocks()

    series = TaskSeries(trial.started(slots=1), allocated_blocks, jitter=_BLOCK_JITTER)
    grows = series.keeps_growing(_BLOCKS_LEAKED_PER_TASK, _BLOCK_NOISE)
    trial.measurements["blocks"] = series.samples
    expect(
        not grows,
        expected="no object of an ended task to be kept",
        actual="the number of memory blocks in the scheduler process grew by "
        f"{series.growth_per_task:.1f} per task, up to the last of {series.tasks} tasks",
    )


@must(
    needs=(Observation.VISIBLE_WORKERS,),
    after=(
        "states.a-burst-is-reported-completely",
        "states.events-carry-the-submitted-key",
        "states.dag-filter-drains-only-matching-events",
        "shutdown.no-leak-across-start-end-cycles",
        "shutdown.no-zombie-is-left",
        "interface.command-kinds-are-accurate",
        "parallelism.higher-priority-first",
        "asynchrony.coroutine-functions-run-to-completion",
    ),
)
def no_resource_leak_per_task(trial: Trial) -> None:
    """The number of open descriptors, threads, processes, semaphores and shared memory mappings does not grow
    with the number of tasks.

    Why: the system limits each of them, and a host that reaches a limit can start nothing more.
    Likely causes: a pipe, a pidfd or a log file of each task stays open until ``end()``; processes are reaped
    only in ``end()``; a thread waits for each task forever.
    Origin: apache/airflow#13542; apache/airflow#56641.
    """
    expect_no_resource_leak(partial(trial.started, slots=1))
