"""Submitting a task: malformed commands, rejections, and the caller's own command object."""

from __future__ import annotations

import gc

from executor_conformance.contract import SUCCESS, TaskKey
from executor_conformance.harness.host import SHARED_NAMES
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.rules import must, should
from executor_conformance.verdicts import NotApplicable, expect

#: Each rejected command is submitted this many times, so that a leak per rejection stands out.
_REPETITIONS = 20
#: Malformed commands that could pass for a poison pill (None, an empty argv) are in chapter shutdown.
_MALFORMED = {
    "an argv of one empty word": [""],
    "an argv with a number in it": ["true", 1],
    "a number": 7,
}


@must(needs=(Capability.ARGV,), after=("interface.argv-is-passed-unchanged",))
def a_malformed_command_never_succeeds(trial: Trial) -> None:
    """A malformed command is rejected with an error or reported ``failed``, and blocks no other task.

    Why: one bad configuration must not stop the scheduler, or the tasks behind it in the queue.
    Likely causes: the command is checked only in the worker, which dies of it; an exception during the
    hand-over to a worker recurs in every later ``sync()``; an empty command counts as done.
    Origin: apache/airflow#64476; apache/airflow#47873; apache/airflow#71380.
    """
    subject = trial.started(slots=1)
    for number, (what, command) in enumerate(_MALFORMED.items()):
        key = TaskKey("dag", f"malformed-{number}", "run", 1, -1)
        bad = trial.probe(key=key)
        if subject.rejection(lambda: subject.submit_raw(key, command)) is None:  # noqa: B023
            subject.await_terminal(bad)
            expect(
                subject.outcome(bad) != SUCCESS,
                expected=f"{what} as a command to be rejected or to fail",
                actual="it was reported 'success'",
            )
        good = trial.probe()
        subject.run(good)
        subject.expect_outcome(good, SUCCESS, f"the task after one with {what} as its command")


@must(
    needs=(Capability.ARGV, Capability.KEYS),
    after=(
        "interface.a-malformed-command-never-succeeds",
        "states.no-concurrent-runs-of-one-key",
        "shutdown.no-leak-across-start-end-cycles",
        "memory.no-resource-leak-per-task",
    ),
)
def a_rejected_task_leaks_nothing(trial: Trial) -> None:
    """A rejected task leaves no process, thread or descriptor behind, and its key can be submitted again.

    Why: a rejected task is corrected and submitted again under the same key, and a scheduler with a wrong
    configuration has a task rejected every minute.
    Likely causes: a pipe is opened, or the key is recorded, before the command is checked; a missing
    ``finally``.
    Origin: the contract; apache/airflow#13542 (a key that is recorded and never runs occupies its slot
    forever).
    """
    subject = trial.started(slots=2)
    gate = trial.gate()
    held = trial.probe(gate.step)
    subject.submit(held)
    subject.await_started(held)
    rejected: list[tuple[TaskKey, object]] = []
    for number, command in enumerate(_MALFORMED.values()):
        key = TaskKey("dag", f"rejected-at-first-{number}", "run", 1, -1)
        if subject.rejection(lambda: subject.submit_raw(key, command)) is None:  # noqa: B023
            subject.await_terminal(trial.probe(key=key))
        else:
            rejected.append((key, command))
    if not rejected:
        raise NotApplicable("no malformed command is rejected; the tasks fail later")
    corrected = [trial.probe(key=key) for key, _ in rejected]
    in_flight = (held.key, list(held.work.argv or ()))
    if subject.rejection(lambda: subject.submit_raw(*in_flight)) is not None:
        rejected.append(in_flight)
    subject.quiet()
    before = trial.host.resource_counts()
    for key, command in rejected * _REPETITIONS:
        subject.rejection(lambda: subject.submit_raw(key, command))  # noqa: B023
    subject.quiet()

    def growth() -> list[str]:
        now = trial.host.resource_counts()
        return [
            f"{now[kind] - before[kind]} more of: {kind}"
            for kind in now
            if kind != SHARED_NAMES and now[kind] - before[kind] >= _REPETITIONS
        ]

    gc.collect()
    trial.wait_for(lambda: not growth(), pump=subject.pump, budget_s=trial.budgets.arrival_s / 4)
    expect(
        not growth(),
        expected=f"no more resources after {_REPETITIONS * len(rejected)} rejected tasks than before",
        actual=", ".join(growth()),
    )
    for probe in corrected:
        rejection = subject.rejection(lambda: subject.submit(probe))  # noqa: B023
        expect(
            rejection is None,
            expected="a key to be free after its task was rejected for a malformed command",
            actual=f"the corrected task was rejected, too: {rejection!r}",
        )
    subject.await_terminal(*corrected)
    for probe in corrected:
        subject.expect_outcome(probe, SUCCESS, "a task that was rejected first, for a malformed command")
    gate.open()
    subject.await_terminal(held)


@should(needs=(Capability.ARGV,))
def submit_does_not_modify_the_command(trial: Trial) -> None:
    """Submitting a task does not modify the caller's command.

    Why: callers keep the command to submit it again for the next try.
    Likely causes: words are popped off the list that was passed; words are inserted into the list.
    Origin: the contract.
    """
    subject = trial.started(slots=1)
    probe = trial.probe()
    assert probe.work.argv is not None
    given = list(probe.work.argv)
    subject.submit_raw(probe.key, given)
    subject.await_terminal(probe)
    expect(
        given == list(probe.work.argv),
        expected="the list that was passed as the command not to change",
        actual=f"it has {len(given)} words instead of {len(probe.work.argv)}: {given[:3]}...",
    )
