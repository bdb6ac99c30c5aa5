"""What the executor adds to the cost of starting a process: polling intervals and other overhead."""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass

from executor_conformance.harness.calibration import (
    LARGEST_EXTENSION,
    fork_here_s,
    interpreter_here_s,
    times_out_of_processor,
)
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.timing import PollingTest, recurring_interval_s
from executor_conformance.harness.trial import Trial
from executor_conformance.rules import should
from executor_conformance.rules.queued_time.median import expect_median_within
from executor_conformance.rules.queued_time.sampling import (
    OVERHEAD_COSTS,
    OVERHEAD_S,
    WARM_UP,
    is_forked,
    run_one,
    start_cost_s,
)
from executor_conformance.verdicts import Inconclusive, expect

#: A round takes this many samples.  Each task is submitted at a random time, at most this many seconds (at
#: scale 1) after the end of the previous one.
_SAMPLES, _LONGEST_PHASE_S = 24, 0.08
#: The last few samples of a round come after a pause, because some polling intervals grow while an executor
#: is idle.
_AFTER_A_PAUSE, _PAUSE_S = 3, 0.5
#: Samples that were disturbed by CPU throttling are repeated, up to this many times the usual number of
#: tasks.
_TRIES = 3
#: A polling interval is reported once this many rounds show one.
_ROUNDS = 3
#: After this many rounds a machine on which no interval could be seen leaves the rule undecided.
_MOST_ROUNDS = 6


@should(
    after=(
        "queued_time.median-queued-time-is-within-budget",
        "queued_time.tail-queued-time-is-within-budget",
        "queued_time.forking-is-faster-than-a-new-interpreter",
    )
)
def queued_time_shows_no_polling_interval(trial: Trial) -> None:
    """Queued time does not depend on when a task is submitted; no polling interval shows in it.

    Why: polling adds half of its interval to every task on average, even on an idle machine.
    Likely causes: a loop that sleeps between two checks of its queue, sometimes longer after each empty
    check; a timeout instead of a wake-up.
    Origin: Airflow's schedulers add a heartbeat interval to each task (apache/airflow#28120).
    """
    chance = random.Random(trial.context.seed)
    shown, not_shown = 0, 0.0
    series: list[tuple[list[float], list[float]]] = []
    for _ in range(_MOST_ROUNDS):
        test = _test_for_polling(trial, chance, series)
        if test is None:
            continue
        trial.measurements |= test.measurements()
        if test.shows_polling:
            shown += test.weight > 0
        else:
            not_shown += test.weight
        if not_shown >= 1:
            return
        if shown == _ROUNDS:
            break
    else:
        raise Inconclusive(
            "the timing of this machine varies or stalls so much that a polling interval would not show"
        )
    expect(
        False,
        expected="queued times that do not depend on the time of submission: a spread (10th to 90th "
        f"percentile) of at most {test.allowed_s * 1e3:.0f} ms, at most {test.allowed_lower_s * 1e3:.0f} ms "
        "of it below the median, no correlation with the time since the previous task, and no period",
        actual=f"a polling interval of about {test.spread_s * 1.25e3:.0f} ms in each of {_ROUNDS} rounds; in "
        f"the last one a spread of {test.spread_s * 1e3:.0f} ms, {test.lower_spread_s * 1e3:.0f} ms of it "
        f"below the median, a correlation of {test.phase_correlation:.2f}, and "
        + (f"a period of {test.recurring_s * 1e3:.0f} ms" if test.recurring_s else "no period"),
    )


@dataclass(frozen=True)
class _Sample:
    """One task; all times in seconds.

    :param phase: how long after the end of the previous task it was submitted, without the pause.
    :param control: how long the same kind of process took without an executor.
    :param in_known_process: an earlier task ran in the same process, or in a child of it.
    """

    phase: float
    submitted: float
    waited: float
    control: float
    in_known_process: bool


def _test_for_polling(
    trial: Trial, chance: random.Random, earlier: list[tuple[list[float], list[float]]]
) -> PollingTest | None:
    """One round with one more executor; ``None`` if CPU throttling disturbed too many samples.

    :param earlier: for each earlier round, when its tasks were submitted and what they waited; this round is
        added.
    """
    subject = trial.started(parallelism=2, slots=1)
    samples: list[_Sample] = []
    known: set[int] = set()
    for number in range(WARM_UP + _TRIES * _SAMPLES):
        pause = _PAUSE_S if len(samples) >= _SAMPLES - _AFTER_A_PAUSE else 0.0
        phase = chance.uniform(0.0, _LONGEST_PHASE_S * trial.budgets.scale)
        trial.quiet(subject.pump, pause + phase)
        throttled = times_out_of_processor()
        probe, seconds = run_one(subject)
        run = probe.runs[0]
        places = {run.pid, run.parent} - {trial.host.pid}
        # The kernel throttles a container that has used up its CPU quota until the next 100 ms period.  That
        # is an interval, but not one of the executor.
        if number >= WARM_UP and times_out_of_processor() == throttled:
            control = _control_s(trial, probe)
            submitted = run.started_ns / 1e9 - seconds
            samples.append(_Sample(phase, submitted, seconds, control, bool(places & known)))
        known |= places
        if len(samples) == _SAMPLES:
            break
    subject.end()
    if len(samples) < _SAMPLES:
        return None
    phase_correlation = _correlation(
        [sample.phase for sample in samples[:-_AFTER_A_PAUSE]],
        [sample.waited for sample in samples[:-_AFTER_A_PAUSE]],
    )
    # A worker that is started after a pause takes time, but is not an interval.
    in_known = [sample for sample in samples if sample.in_known_process]
    judged = in_known if len(in_known) >= len(samples) / 2 else samples
    waited = [sample.waited for sample in judged]
    earlier.append(([sample.submitted for sample in judged], waited))
    recurring_s = recurring_interval_s(earlier)
    return PollingTest(waited, [sample.control for sample in samples], phase_correlation, recurring_s)


def _control_s(trial: Trial, probe: Probe) -> float:
    """How long a process of the same kind takes right now without an executor, in seconds."""
    return (fork_here_s(1) if is_forked(trial, probe) else interpreter_here_s()) or 0.0


def _correlation(phases: list[float], waited: list[float]) -> float:
    try:
        return statistics.correlation(phases, waited)
    except statistics.StatisticsError:  # all values are equal
        return 0.0


@should(
    after=(
        "queued_time.median-queued-time-is-within-budget",
        "queued_time.queued-time-shows-no-polling-interval",
        "queued_time.forking-is-faster-than-a-new-interpreter",
    )
)
def overhead_beyond_process_start_is_small(trial: Trial) -> None:
    """The median queued time is at most 5 ms plus six times what starting such a process costs on the
    machine.

    Why: anything beyond that is overhead of the executor itself.
    Likely causes: a new connection or import for each task; several processes for one task; work that could
    be done before or after the task.
    Origin: Airflow's commit 4839a5b, which reduced queued time from 1.5 s to 0.1 s.
    """
    expect_median_within(
        trial,
        lambda probe, slowdown: (
            min(slowdown, LARGEST_EXTENSION) * (OVERHEAD_S + OVERHEAD_COSTS * start_cost_s(trial, probe))
        ),
        "a task",
    )
