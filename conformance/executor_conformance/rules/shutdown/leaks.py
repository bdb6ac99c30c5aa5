"""Cycles of starting and stopping executors in one process leave no resources behind."""

from __future__ import annotations

import gc
from collections.abc import Callable

from executor_conformance.harness.host import SHARED_NAMES, isolate_shared_names, refuse_names_of_others
from executor_conformance.harness.linux import monotonic
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability, Observation
from executor_conformance.rules import must, should
from executor_conformance.verdicts import expect

#: As many cycles are run as fit into this many seconds, within these bounds.
_MIN_CYCLES, _MAX_CYCLES, _CYCLES_S = 3, 8, 15.0


@must(
    needs=(
        Capability.OWN_WORKERS,
        Observation.VISIBLE_WORKERS,
    ),
    after=(
        "shutdown.end-leaves-no-worker",
        "shutdown.no-zombie-is-left",
        "states.a-command-that-cannot-run-never-succeeds",
        "interface.command-kinds-are-accurate",
    ),
)
def no_leak_across_start_end_cycles(trial: Trial) -> None:
    """Cycles of ``start()`` and ``end()``, with and without tasks, leave nothing behind: there are no more
    processes, threads, descriptors, semaphores, shared memory blocks or temporary files after many cycles
    than after two.

    Why: leaks add up in a host that runs for months, and in every test suite that starts many executors.
    Likely causes: a queue, pipe or pool is not closed, or only if it was used; a manager is not shut down; a
    semaphore is not unlinked; each start creates a log file.
    Origin: apache/airflow#58365; apache/airflow#56641; apache/airflow#55768; celery/billiard#282 (four
    descriptors for each pool that was closed and joined).
    """
    _expect_no_growth(trial, lambda: _start_work_and_end(trial), "start, work and end")


@should(
    needs=(
        Capability.OWN_WORKERS,
        Observation.VISIBLE_WORKERS,
        Capability.TERMINATE,
    ),
    after=(
        "shutdown.no-leak-across-start-end-cycles",
        "shutdown.no-zombie-is-left",
        "shutdown.terminate-leaves-no-worker",
        "shutdown.terminate-kills-tasks-that-ignore-sigterm",
    ),
)
def no_leak_across_start_terminate_cycles(trial: Trial) -> None:
    """Cycles of ``start()`` and ``terminate()``, with and without running tasks, leave nothing behind: there
    are no more processes, threads, descriptors, semaphores, shared memory blocks or temporary files after
    many cycles than after two.

    Why: the process that terminates an executor often starts another one: in tests, after a fork, in a server
    that reloads its configuration.
    Likely causes: only ``end()`` closes pipes, queues and files; killed processes are not waited for;
    ``terminate()`` returns early if no task is running.
    Origin: apache/airflow#56641; apache/airflow#55768.
    """
    _expect_no_growth(trial, lambda: _start_work_and_terminate(trial), "start, work and terminate()")


def _start_work_and_end(trial: Trial) -> None:
    idle = trial.started(slots=1)
    idle.end()
    subject = trial.started(slots=1)
    subject.run(*trial.probes(2), trial.probe("raise=on purpose"))
    if subject.can(Capability.ARGV):
        missing = trial.program("/nonexistent/program")
        if subject.rejection(lambda: subject.submit(missing)) is None:
            subject.await_terminal(missing)
        if subject.can(Capability.CALLABLE):
            call = trial.probe()
            subject.submit_callable(call)
            subject.await_terminal(call)
    subject.end()
    subject.drain()
    trial.built.clear()


def _start_work_and_terminate(trial: Trial) -> None:
    idle = trial.started(slots=1)
    idle.terminate()
    subject = trial.started(slots=1)
    subject.run(trial.probe())
    # A task in the host itself cannot be killed.  A short one has ended before anything is counted.
    held = trial.probes(trial.slots_up_to(2), "nap=0.1" if trial.facts.tasks_in_host else trial.gate().step)
    subject.submit(*held, trial.probe())
    subject.await_started(*held)
    subject.terminate()
    subject.rejection(subject.pump)  # the executor may collect the last outcomes here
    trial.built.clear()


def _expect_no_growth(trial: Trial, cycle: Callable[[], None], what: str) -> None:
    cycle()
    began = monotonic()
    cycle()
    # A slow executor gets fewer cycles: a leak shows in each of them.
    affordable = int(_CYCLES_S * trial.budgets.scale / (monotonic() - began))
    cycles = min(max(affordable, _MIN_CYCLES), _MAX_CYCLES)
    growth = _growth_over(trial, cycle, cycles)
    if SHARED_NAMES in growth:
        # Other programs use /dev/shm, too.  Count again in a private one or, if there can be none, up to
        # three times.
        private = isolate_shared_names()
        if not private and growth.keys() == {SHARED_NAMES}:
            refuse_names_of_others()
        for _ in range(1 if private else 3):
            growth = _growth_over(trial, cycle, cycles)
            if growth.get(SHARED_NAMES, 0) < (1 if private else cycles):
                growth.pop(SHARED_NAMES, None)
                break
    expect(
        not growth,
        expected=f"no more resources after {cycles + 2} cycles of {what} than after two",
        actual=", ".join(f"{count} more of: {kind}" for kind, count in growth.items()),
        # If no more processes are left, zombies are no explanation.
        unexplained_by=() if "process" in growth else ("shutdown.no-zombie-is-left",),
    )


def _growth_over(trial: Trial, cycle: Callable[[], None], cycles: int) -> dict[str, int]:
    """The kinds of resources of which there are more after ``cycles`` cycles than before, and how many."""
    gc.collect()
    before = trial.host.resource_counts()
    for _ in range(cycles):
        cycle()

    def growth() -> dict[str, int]:
        now = trial.host.resource_counts()
        return {kind: now[kind] - before[kind] for kind in now if now[kind] > before[kind]}

    gc.collect()
    trial.wait_for(lambda: not growth(), budget_s=trial.budgets.arrival_s / 4)
    gc.collect()
    return growth()
