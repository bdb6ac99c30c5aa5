"""Measures the queued times of single tasks, and knows their budgets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from executor_conformance.contract import TaskKey
from executor_conformance.harness.calibration import LARGEST_EXTENSION
from executor_conformance.harness.linux import monotonic, monotonic_ns
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial

#: Airflow's own figures: 0.1 s with a fork for each task, 1.5 s with a new interpreter.
_FORK_BUDGET_S, _INTERPRETER_BUDGET_S = 0.1, 1.5
#: A budget is at least this many times what such a process costs on this machine.
_PROCESS_COSTS = 25
#: An executor may add this many seconds, and this many times the cost of the process, to queued time.
OVERHEAD_S, OVERHEAD_COSTS = 0.005, 6
#: The first tasks of an executor do not count: it may prepare workers with them.
WARM_UP = 2
#: The steps of a task that fails.
FAILING = ("raise=on purpose",)


@dataclass(frozen=True)
class Conditions:
    """The conditions under which queued times are measured.

    :param steps: the steps of each task.
    :param path: how each task is submitted (a key of :attr:`Subject.ways`).
    :param limited: the executor has two slots; otherwise it is in unlimited mode.
    :param while_one_runs: another task runs all the time.
    :param are_retries: each task is a retry of a task that has just failed.
    :param earlier_tasks: this many tasks run first.
    """

    steps: Sequence[str] = ()
    path: str = "execute_async()"
    limited: bool = True
    while_one_runs: bool = False
    are_retries: bool = False
    earlier_tasks: int = 0


def is_forked(trial: Trial, probe: Probe) -> bool:
    """Whether the task ran in a process that was forked from the host, directly or through others."""
    return probe.runs[0].host_marker == trial.host.pid


def start_cost_s(trial: Trial, probe: Probe) -> float:
    """What it costs this machine to start the process of such a task, in seconds."""
    return trial.fork_s if is_forked(trial, probe) else trial.interpreter_s


def budget_s(trial: Trial, probe: Probe, slowdown: float = 1.0) -> float:
    """The queued time that such a task may have, in seconds.

    :param slowdown: how many times slower the machine has become since its calibration.
    """
    fixed = _FORK_BUDGET_S if is_forked(trial, probe) else _INTERPRETER_BUDGET_S
    return max(
        min(slowdown, LARGEST_EXTENSION) * fixed, slowdown * _PROCESS_COSTS * start_cost_s(trial, probe)
    )


def run_one(
    subject: Subject, probe: Probe | None = None, submit: Callable[[Probe], None] | None = None
) -> tuple[Probe, float]:
    """Run one task: the task and its queued time in seconds."""
    probe = probe or subject.trial.probe()
    submitted = monotonic_ns()
    (submit or subject.submit)(probe)
    subject.await_terminal(probe)
    subject.await_started(probe)  # an event that precedes its task is for another rule to find
    return probe, max(probe.runs[0].started_ns - submitted, 0) / 1e9


def queued_times(
    subject: Subject, count: int, conditions: Conditions | None = None, at_least: int = 0
) -> Iterator[tuple[Probe, float]]:
    """Run up to ``count`` tasks, one after the other, until the time for this is up.

    :param at_least: this many tasks run in any case.
    """
    conditions = conditions or Conditions()
    submit = subject.ways[conditions.path]
    until = monotonic() + 2 * subject.trial.budgets.arrival_s
    for number in range(WARM_UP + count):
        key = _key_of_a_retry(subject) if conditions.are_retries else None
        sample = run_one(subject, subject.trial.probe(*conditions.steps, key=key), submit)
        if number >= WARM_UP:
            yield sample
            if monotonic() > until and number >= WARM_UP + at_least:
                return


def _key_of_a_retry(subject: Subject) -> TaskKey:
    """Run a task that fails; the key of its next try."""
    first = subject.trial.probe(*FAILING)
    subject.run(first)
    return first.key._replace(try_number=first.key.try_number + 1)
