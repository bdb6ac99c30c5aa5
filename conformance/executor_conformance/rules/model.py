"""Everything at once, in any order: what no single rule thought of.

Programs made by chance (submit, hold back and release tasks, fail them, try them again, drain, filter, kill
workers, start a second executor, end, terminate) are performed beside a model of what was promised.  One that
breaks a promise is shrunk to the shortest that still does, and shown as a timeline; ``--replay`` performs it
again.
"""

from __future__ import annotations

from executor_conformance.harness.exploring import Breach, explore, perform
from executor_conformance.harness.programs import Program
from executor_conformance.harness.trial import Trial
from executor_conformance.rules import find, must
from executor_conformance.verdicts import Broken

_BASICS = (
    "interface.bookkeeping-has-the-agreed-types",
    "lifecycle.submit-after-end-is-refused",
    "lifecycle.end-twice-is-harmless",
    "lifecycle.terminate-after-end-is-harmless",
    "lifecycle.end-after-terminate-is-harmless",
    "lifecycle.idle-pumping-is-harmless",
    "lifecycle.two-executors-share-a-process",
    "states.an-exception-is-a-failure",
    "states.exactly-one-terminal-event",
    "states.only-legal-transitions",
    "states.no-terminal-event-before-the-end",
    "states.the-key-comes-back-whole",
    "states.an-event-is-returned-once",
    "states.the-filter-flushes-what-it-returns",
    "states.a-burst-loses-nothing",
    "states.a-new-try-runs",
    "states.a-result-belongs-to-its-task",
    "parallelism.never-more-than-n",
    "parallelism.n-is-reached",
    "parallelism.no-slot-stays-idle",
    "parallelism.slots-are-true-to-the-journal",
    "parallelism.failed-tasks-give-their-slots-back",
    "shutdown.running-tasks-are-finished",
    "shutdown.accepted-work-is-finished",
    "shutdown.events-of-the-end-stay",
    "shutdown.terminate-stops-what-runs",
    "shutdown.terminate-reports-what-ran",
    "shutdown.terminate-reports-what-waited",
    "shutdown.terminate-drops-no-event",
    "asynchrony.coroutine-functions-are-awaited",
    "asynchrony.parallelism-bounds-coroutines",
)
_DEATHS = (
    "faults.pumping-survives-a-death",
    "faults.a-killed-workers-task-is-not-run-again",
    "faults.a-killed-worker-fails-its-task",
    "faults.the-other-tasks-go-on",
    "faults.capacity-is-restored",
    "faults.all-workers-may-die-at-once",
    "faults.a-worker-may-die-during-end",
    "shutdown.end-returns-after-a-worker-died",
)


@must(after=_BASICS)
def any_order_keeps_the_promises(trial: Trial) -> None:
    """Whatever is done in whatever order, every promise about events, slots and the end is kept.

    Why: schedulers do all of this, users do it at the worst moment, and each rule tries one thing at a time.
    Likely causes: two steps share a variable that only one of them keeps up to date; what is done for the
    first try or the first task is not done again; an event waits in a buffer that something else empties.
    Origin: apache/airflow#71580; apache/airflow#66374 (a stale event meets a new try).
    """
    _explore(trial, kills=False)


@must(after=(*_BASICS, *_DEATHS, "model.any-order-keeps-the-promises"))
def any_order_survives_dead_workers(trial: Trial) -> None:
    """Whatever is done in whatever order while workers are killed, one death costs one task.

    Why: machines that run short kill workers again and again, in the middle of everything else.
    Likely causes: what a death cleans up belongs to another task by then; a slot is given back twice or
    never; a death is noticed only in one of the places where results are read.
    Origin: apache/airflow#13542; apache/airflow#36335; apache/airflow#43448.
    """
    trial.need_processes()
    _explore(trial, kills=True)


@must(
    after=(
        *_BASICS,
        *_DEATHS,
        "parallelism.unlimited-has-no-limit",
        "model.any-order-keeps-the-promises",
        "model.any-order-survives-dead-workers",
    )
)
def any_order_is_the_same_without_a_limit(trial: Trial) -> None:
    """Where parallelism 0 means unlimited, every promise about events, deaths and the end is kept as well,
    whatever is done in whatever order.

    Why: unlimited mode is another code path in most executors, and nobody looks at all of it again.
    Likely causes: results come by another way there, which takes fewer of them for failures; what runs is
    kept in another place, which the end, or the look for dead workers, does not know.
    Origin: Airflow 2's UnlimitedParallelism, which has its own end() and starts its workers itself.
    """
    trial.started_without_limit().end()
    _explore(trial, kills=False, limited=False, share=0.3)
    if not trial.facts.tasks_in_host and trial.replay is None:
        _explore(trial, kills=True, limited=False, share=0.3)


def _explore(trial: Trial, *, kills: bool, limited: bool = True, share: float = 1.0) -> None:
    if trial.replay is not None:
        breach = perform(trial, Program.from_dict(trial.replay))
    else:
        explorer = explore(trial, kills=kills, seed=trial.seed, limited=limited, share=share)
        breach = explorer.shrunk()
        trial.measurements.update(
            seed=trial.seed,
            programs=trial.measurements.get("programs", 0) + explorer.performed,
            unreproduced=trial.measurements.get("unreproduced", 0) + explorer.unreproduced,
        )
    if breach is not None:
        raise _as_broken(trial, breach)


def _as_broken(trial: Trial, breach: Breach) -> Broken:
    trial.measurements.update(
        promise=breach.promise, timeline=list(breach.timeline), program=breach.program.as_dict()
    )
    if breach.hung_call:
        trial.measurements["hung_call"] = breach.hung_call
    awaited = breach.awaited
    if breach.promise:
        awaited = f"{awaited or find(breach.promise).statement} ({breach.promise})"
    broken = Broken(awaited=awaited, seen=breach.seen, evidence=breach.evidence)
    broken.aside = breach.aside
    return broken
