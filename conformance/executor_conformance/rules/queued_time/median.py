"""Decides whether a median queued time is within its budget."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from executor_conformance.harness.calibration import Budgets
from executor_conformance.harness.linux import monotonic
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.timing import SequentialTest, distribution, quantile
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.rules.queued_time.sampling import Conditions, queued_times
from executor_conformance.verdicts import Inconclusive, NotApplicable, expect

#: A median above its budget is measured this many times in all.
_ROUNDS = 3
#: After this many seconds a median above its budget is not measured again.
_LONG_S = 25.0
#: One measurement takes at most this many samples.
_MOST_SAMPLES = 120
#: However slow the executor is, one measurement takes this many samples, which decide a clear case.
_ENOUGH_SAMPLES = 12
#: Once a measurement has taken this many seconds, this many samples decide if all are above the budget; the
#: median is measured again anyway.
_SLOW_S, _FEW_SAMPLES = 10.0, 5
#: Earlier tasks are submitted this many at a time.  Where each costs a new interpreter, one in eight is in
#: Python, and the others are shell commands.
_BATCH, _ONE_IN_PYTHON = 20, 8
#: Seconds for all of them, on a machine of scale 1.
_EARLIER_S = 60.0


def expect_median_within(
    trial: Trial,
    budget_s: Callable[[Probe, float], float],
    what: str,
    conditions: Conditions | None = None,
    *,
    follows_machine: bool = False,
) -> None:
    """Check that the median queued time is within its budget, and add its distribution to the report.

    A median above the budget is measured again, with a larger budget if the machine has become slower.

    :param budget_s: seconds for a task, and for a machine that has become this many times slower; called for
        each sample.
    :param what: the task, for messages.
    :param follows_machine: the budget itself measures the machine, so it is not extended.
    :raises NotApplicable: the median is within the budget, but not all earlier tasks have run.
    """
    conditions = conditions or Conditions()
    slowdown = 1.0
    began = monotonic()
    for _ in range(_ROUNDS):
        is_above, samples, latest, earlier = _measure_median(
            trial,
            lambda probe: budget_s(probe, slowdown),  # noqa: B023
            conditions,
        )
        budget = budget_s(latest, slowdown)
        trial.measurements["queued_time"] = distribution(samples)
        trial.measurements["budget_s"] = round(budget, 6)
        if is_above is False:
            if earlier < conditions.earlier_tasks:
                raise NotApplicable(
                    f"{earlier} tasks cause no delay, but the rule is about {conditions.earlier_tasks}, "
                    f"which take longer than {_earlier_s(trial.budgets):.0f} s"
                )
            return
        median = statistics.median(samples)
        if not follows_machine:
            slowdown = max(slowdown, trial.slowdown())
        if monotonic() - began > _LONG_S and median > budget_s(latest, slowdown):
            break  # there is no time for another round, and the machine is not the reason
    if is_above is None:
        raise Inconclusive(
            f"after {len(samples)} tasks the median ({median:.4f} s) is too close to the budget of "
            f"{budget:.4f} s to decide"
        )
    expect(
        False,
        expected=f"{what} to reach its first instruction within {budget:.4f} s (median)",
        actual=f"median {median:.4f} s, 95th percentile {quantile(samples, 0.95):.4f} s, of {len(samples)} "
        "tasks",
    )


def _measure_median(
    trial: Trial,
    budget_s: Callable[[Probe], float],
    conditions: Conditions,
) -> tuple[bool | None, list[float], Probe, int]:
    """Whether the median is above its budget (``None`` if undecided), the samples, the last task, and how
    many earlier tasks ran.
    """
    subject = (
        trial.started(parallelism=2, slots=1 + conditions.while_one_runs)
        if conditions.limited
        else trial.started_without_limit()
    )
    earlier = _run_earlier_tasks(subject, conditions.earlier_tasks)
    gate = trial.gate()
    if conditions.while_one_runs:
        running = trial.probe(gate.step)
        subject.submit(running)
        subject.await_started(running)
    began = monotonic()
    shares = SequentialTest(1.0)
    samples: list[float] = []
    is_above = None
    for probe, seconds in queued_times(subject, _MOST_SAMPLES, conditions, at_least=_ENOUGH_SAMPLES):
        samples.append(seconds)
        shares.add(seconds / budget_s(probe))
        is_above = shares.is_above
        if monotonic() - began > _SLOW_S and shares.above == len(samples) >= _FEW_SAMPLES:
            is_above = True
        if is_above is not None:
            break
    gate.open()
    subject.end()
    return is_above, samples, probe, earlier


def _run_earlier_tasks(subject: Subject, count: int) -> int:
    """Run this many tasks, or as many as there is time for: how many have run."""
    until = monotonic() + _earlier_s(subject.trial.budgets)
    ended = 0
    while ended < count and monotonic() < until:
        batch = _batch(subject)
        subject.run(*batch)
        ended += len(batch)
    return ended


def _earlier_s(budgets: Budgets) -> float:
    """Seconds for all earlier tasks."""
    return _EARLIER_S * budgets.scale


def _batch(subject: Subject) -> list[Probe]:
    """Tasks that only have to end."""
    trial = subject.trial
    facts = trial.facts
    in_shell = facts.forked is False and not facts.tasks_in_host and subject.can(Capability.ARGV)
    return [
        trial.shell_probe(exit_status=0) if in_shell and number % _ONE_IN_PYTHON else trial.probe()
        for number in range(_BATCH)
    ]
