"""Large hosts, long lives and large arguments: what must not delay tasks."""

from __future__ import annotations

import statistics

from executor_conformance.harness.calibration import fork_here_s
from executor_conformance.harness.memory import BALLAST, MB, ballast, has_room_for
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.rules import should
from executor_conformance.rules.queued_time.median import expect_median_within
from executor_conformance.rules.queued_time.sampling import OVERHEAD_S, Conditions, queued_times
from executor_conformance.verdicts import NotApplicable

#: The baseline is the median of this many tasks.
_BASELINE_SAMPLES = 15
#: Queued time may be this many times the baseline, and this many forks of the host as it is now, more.
_TIMES_BASELINE, _FORKS = 1.5, 4
_HUNDREDS = 600
#: The length of a large argument in bytes.
_LONG_ARGUMENT = 100_000


@should(
    after=(
        "queued_time.tail-queued-time-is-within-budget",
        "queued_time.overhead-beyond-process-start-is-small",
    )
)
def no_delay_with_a_large_host_heap(trial: Trial) -> None:
    """150 MB of objects in the host add no more to queued time than the extra cost of forking that host.

    Why: schedulers are large processes, and a task has nothing to do with their heap.
    Likely causes: garbage that is collected, or a heap that is scanned, for each task; several forks of the
    host for one task.
    Origin: a fork takes 33 microseconds per MB of the process (Linux 6.18), and a garbage collection far
    more.
    """
    if not has_room_for(BALLAST):
        raise NotApplicable(
            f"the machine does not have {BALLAST // MB} MB to spare for the scheduler process and for each "
            "worker"
        )
    baseline_s = _baseline_s(trial)
    held = ballast(BALLAST)
    _expect_no_delay(
        trial, baseline_s, f"a task submitted by a scheduler process with {BALLAST // MB} MB of objects"
    )
    del held


@should(
    after=(
        "states.a-burst-is-reported-completely",
        "queued_time.tail-queued-time-is-within-budget",
        "queued_time.overhead-beyond-process-start-is-small",
    )
)
def no_delay_after_hundreds_of_tasks(trial: Trial) -> None:
    """A task waits no longer after hundreds of others than the first tasks did.

    Why: an executor runs for months; work that it repeats for each past task grows without limit.
    Likely causes: a file or a table of all tasks that is read for each new one; a list of all tasks that is
    searched; descriptors or other leftovers of earlier tasks that are scanned each time.
    Origin: apache/airflow#62212 (a scheduler that has run for a long time is slower than a new one).
    """
    baseline_s = _baseline_s(trial)
    _expect_no_delay(
        trial, baseline_s, "a task submitted after hundreds of others", Conditions(earlier_tasks=_HUNDREDS)
    )


@should(
    needs=(Capability.ARGV,),
    after=(
        "interface.argv-is-passed-unchanged",
        "queued_time.tail-queued-time-is-within-budget",
        "queued_time.overhead-beyond-process-start-is-small",
    ),
)
def no_delay_with_large_arguments(trial: Trial) -> None:
    """A task with 100 KB of arguments waits no longer than one with short arguments.

    Why: arguments carry lists of files, queries and documents; these must not cost seconds.
    Likely causes: commands too long for a pipe or a message, which are passed in a file that is checked only
    by a timer; commands that are sent in pieces with pauses between them.
    Origin: the contract; on Linux a pipe holds 64 KiB, and one argument of a command 128 KiB.
    """
    baseline_s = _baseline_s(trial)
    _expect_no_delay(
        trial,
        baseline_s,
        f"a task with {_LONG_ARGUMENT} bytes of arguments",
        Conditions((f"pad={'x' * _LONG_ARGUMENT}",)),
    )


def _baseline_s(trial: Trial) -> float:
    """The median queued time on a new executor, in seconds."""
    subject = trial.started(parallelism=2, slots=1)
    baseline_s = statistics.median(seconds for _, seconds in queued_times(subject, _BASELINE_SAMPLES))
    subject.end()
    trial.measurements["baseline_s"] = round(baseline_s, 6)
    return baseline_s


def _expect_no_delay(
    trial: Trial, baseline_s: float, what: str, conditions: Conditions | None = None
) -> None:
    """Check that the median queued time is hardly more than the baseline.

    :param what: the task, for messages.
    """
    expect_median_within(
        trial,
        lambda _, __: OVERHEAD_S + _TIMES_BASELINE * baseline_s + _FORKS * (fork_here_s(1) or 0.0),
        what,
        conditions,
        follows_machine=True,
    )
