"""Random sequences of calls: combinations that no single rule tries.

The suite generates random programs, runs them on the executor and compares the result with a model of the
contract.  A program submits tasks, holds and releases them, makes them fail, retries them, drains the event
buffer with and without a filter, kills workers, starts a second executor, and calls ``end()`` and
``terminate()``.  A program that violates a rule is shrunk to the shortest one that still does, and reported
as a timeline.  ``--replay`` runs it again.
"""

from __future__ import annotations

from executor_conformance.harness.trial import Trial
from executor_conformance.programs.exploring import Counterexample, perform
from executor_conformance.programs.generating import explore
from executor_conformance.programs.program import Program
from executor_conformance.requirements import Capability, Observation, TaskLocation
from executor_conformance.rules import find, must
from executor_conformance.verdicts import Blocked, Broken, ProgramTrace

_BASICS = (
    "interface.bookkeeping-has-the-expected-types",
    "lifecycle.submit-after-end-is-rejected",
    "lifecycle.end-twice-is-harmless",
    "lifecycle.terminate-after-end-is-harmless",
    "lifecycle.end-after-terminate-is-harmless",
    "lifecycle.idle-sync-is-harmless",
    "lifecycle.two-executors-coexist-in-one-process",
    "states.an-exception-is-a-failure",
    "states.exactly-one-terminal-event",
    "states.only-legal-transitions",
    "states.no-terminal-event-before-the-task-ends",
    "states.events-carry-the-submitted-key",
    "states.an-event-is-returned-once",
    "states.dag-filter-drains-only-matching-events",
    "states.a-burst-is-reported-completely",
    "states.a-retry-runs-under-its-own-key",
    "states.a-result-belongs-to-its-task",
    "parallelism.at-most-n-tasks-run-at-once",
    "parallelism.n-tasks-run-at-once",
    "parallelism.no-slot-is-idle-while-tasks-wait",
    "parallelism.slot-counts-are-accurate",
    "parallelism.failed-tasks-release-their-slots",
    "shutdown.end-finishes-running-tasks",
    "shutdown.end-finishes-queued-tasks",
    "shutdown.events-during-end-are-delivered",
    "shutdown.terminate-kills-running-tasks",
    "shutdown.terminate-reports-running-tasks-as-failed",
    "shutdown.terminate-reports-queued-tasks-as-failed",
    "shutdown.terminate-keeps-buffered-events",
    "asynchrony.coroutine-functions-run-to-completion",
    "asynchrony.parallelism-applies-to-coroutines",
)
_DEATHS = (
    "faults.sync-survives-a-worker-death",
    "faults.a-task-is-not-rerun-after-a-worker-death",
    "faults.a-killed-worker-fails-its-task",
    "faults.other-tasks-survive-a-worker-death",
    "faults.capacity-is-restored-after-worker-deaths",
    "faults.survives-the-death-of-all-workers",
    "faults.end-survives-a-worker-death",
    "shutdown.end-returns-after-a-worker-death",
)


@must(budget="programs", after=_BASICS, turn="background")
def random_sequences_keep_every_invariant(trial: Trial) -> None:
    """The rules about events, slots and the end hold for any sequence of calls.

    Why: schedulers make all of these calls, in any order and at the worst time, while every other rule tries
    one thing at a time.
    Likely causes: two methods that share a variable which only one of them keeps up to date; a step that is
    done for the first try or the first task only; an event in a buffer that something else empties.
    Origin: apache/airflow#71580; apache/airflow#66374 (a stale event meets a new try).
    """
    _explore(trial, kills=False)


@must(
    needs=(Observation.LOCAL_PROCESSES, Capability.RUNS_ONCE),
    budget="programs",
    after=(*_BASICS, *_DEATHS, "model.random-sequences-keep-every-invariant"),
    turn="background",
)
def random_sequences_survive_worker_deaths(trial: Trial) -> None:
    """Each worker death costs only one task, whatever the sequence of calls.

    Why: a machine that runs out of memory kills workers again and again, in the middle of everything else.
    Likely causes: a clean-up after a death that by then affects another task; a slot that is released twice
    or never; a death that is noticed in only one of the places where results are read.
    Origin: apache/airflow#13542; apache/airflow#36335; apache/airflow#43448.
    """
    _explore(trial, kills=True)


@must(
    budget="programs",
    after=(
        *_BASICS,
        *_DEATHS,
        "parallelism.unlimited-mode-has-no-hidden-limit",
        "model.random-sequences-keep-every-invariant",
        "model.random-sequences-survive-worker-deaths",
    ),
    turn="background",
)
def unlimited_mode_keeps_every_invariant(trial: Trial) -> None:
    """In unlimited mode (parallelism 0), too, the rules about events, worker deaths and the end hold for any
    sequence of calls.

    Why: unlimited mode is a separate code path in most executors, and rarely tested as thoroughly.
    Likely causes: results that take another path there, on which some failures count as successes; running
    tasks that are stored where ``end()`` or the check for dead workers does not look.
    Origin: Airflow 2's UnlimitedParallelism, which has its own end() and starts its workers itself.
    """
    trial.started_without_limit().end()
    _explore(trial, kills=False, limited=False, share=0.3)
    kills = trial.facts.location is TaskLocation.LOCAL_PROCESSES and trial.can(Capability.RUNS_ONCE)
    if kills and trial.context.replay is None:
        _explore(trial, kills=True, limited=False, share=0.3)


def _explore(trial: Trial, *, kills: bool, limited: bool = True, share: float = 1.0) -> None:
    if trial.context.replay is not None:
        found = perform(trial, Program.from_dict(trial.context.replay))
    else:
        explorer = explore(trial, kills=kills, seed=trial.context.seed, limited=limited, share=share)
        found = explorer.shrunk()
        trial.programs_not_run += explorer.not_run if explorer.ran_few else 0
        trial.measurements.update(
            seed=trial.context.seed,
            programs=trial.measurements.get("programs", 0) + explorer.performed,
            unreproduced=trial.measurements.get("unreproduced", 0) + explorer.unreproduced,
        )
        if found is None and explorer.blocker:
            raise Blocked(
                explorer.blocker,
                f"{len(explorer.excused)} of {explorer.performed} programs violate {explorer.blocker}",
            )
    if found is not None:
        raise _as_broken(found)


def _as_broken(found: Counterexample) -> Broken:
    expected = found.expected
    if found.rule:
        expected = f"{expected or find(found.rule).statement} ({found.rule})"
    trace = ProgramTrace(found.rule, found.program.as_dict(), found.timeline, found.hung_call)
    broken = Broken(expected=expected, actual=found.actual, evidence=found.evidence, trace=trace)
    broken.failure_mode = found.failure_mode
    return broken
