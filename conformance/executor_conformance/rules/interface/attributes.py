"""The attributes by which an executor describes itself."""

from __future__ import annotations

from executor_conformance.contract import SUCCESS
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.rules import must
from executor_conformance.verdicts import expect


@must(needs=(Capability.KEYS,), after=("states.no-terminal-event-before-the-task-ends",))
def command_kinds_are_accurate(trial: Trial) -> None:
    """Commands of every kind in ``command_kinds`` are run, and no command of another kind is reported
    ``success`` without having run.

    Why: callers use it to decide what to submit; calling a coroutine function only creates a coroutine, so
    nothing has run, and that must not count as a success.
    Likely causes: the attribute was copied and never checked; a coroutine function is called like any other
    callable; commands that cannot be run are dropped.
    Origin: apache/airflow pull requests 5788 and 6984 (the AsyncExecutor proposal: one interface for both).
    """
    kinds = trial.build(slots=1).optional("command_kinds")
    expect(
        isinstance(kinds, (frozenset, set)) and set(kinds) <= {"argv", "callable", "coroutine"},
        expected="command_kinds to be a frozenset out of 'argv', 'callable' and 'coroutine'",
        actual=repr(kinds),
    )
    subject = trial.started(slots=1)
    for kind in ("argv", "callable", "coroutine"):
        probe = trial.probe()
        command = _command_of_kind(kind, probe)
        rejection = subject.rejection(lambda: subject.submit_raw(probe.key, command))  # noqa: B023
        if rejection is None:
            subject.await_terminal(probe)
        ran, outcome = probe.finished, subject.outcome(probe)
        if kind in kinds:
            expect(
                rejection is None and outcome == SUCCESS and ran,
                expected=f"a command of kind {kind!r}, which command_kinds lists, to run and succeed",
                actual=(
                    f"it was rejected with {rejection!r}"
                    if rejection
                    else f"it was reported {outcome!r}, and {'ran' if ran else 'did not run'} to its end"
                ),
            )
        else:
            expect(
                rejection is not None or outcome != SUCCESS or ran,
                expected=f"a command of kind {kind!r}, which command_kinds does not list, to be rejected or "
                "to fail",
                actual="it was reported 'success' and never ran",
            )


def _command_of_kind(kind: str, probe: Probe) -> object:
    return {"argv": probe.work.argv, "callable": probe.work.function, "coroutine": probe.work.coroutine}[kind]


@must()
def is_async_is_a_bool(trial: Trial) -> None:
    """``is_async`` is a bool if the executor has it.

    Why: schedulers branch on it, and a method or a string of that name is always true.
    Likely causes: ``is_async`` is a method; ``is_async`` holds a string from a configuration file.
    Origin: apache/airflow pull request 6984 (AsyncExecutor: properties that distinguish executors).
    """
    value = trial.build(slots=1).optional("is_async")
    expect(isinstance(value, bool), expected="is_async to be True or False", actual=repr(value))
