"""When an executor accepts tasks: after ``start()``, and before ``end()`` or ``terminate()``."""

from __future__ import annotations

from executor_conformance.contract import SUCCESS, Call
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.rules import must
from executor_conformance.verdicts import expect

_EARLY_TASKS = 3


@must(needs=(Capability.START,))
def submit_before_start_loses_no_task(trial: Trial) -> None:
    """A task submitted before ``start()`` is rejected immediately with an exception and never runs, or it is
    accepted and runs once after ``start()``.

    Why: a task accepted by an executor that is not running is easily lost, and the scheduler waits for it.
    Likely causes: the task goes to a queue that ``start()`` replaces; the executor does not check whether it
    has been started; it stores the task before it raises.
    Origin: the contract: an accepted task has exactly one terminal event; Airflow and APScheduler keep such a
    task and run it later.
    """
    for priority in trial.build(slots=1).ways_to_submit:
        subject = trial.build(slots=1)
        accepted: list[Probe] = []
        rejected: list[Probe] = []
        for early in trial.probes(_EARLY_TASKS):
            rejection = subject.rejection(lambda: subject.submit(early, priority=priority))  # noqa: B023
            (accepted if rejection is None else rejected).append(early)
        subject.start()
        for early in accepted:
            expected = "a task submitted before start() to be rejected with an exception, or to run later"
            subject.require(
                lambda: subject.outcome(early),  # noqa: B023
                expected=expected,
                actual=lambda: "it was accepted; no terminal event was reported for it",
            )
            outcome = subject.outcome(early)
            expect(
                outcome == SUCCESS,
                expected=expected,
                actual=f"it was accepted; {outcome!r} was reported for it",
            )
        subject.run(trial.probe())
        for early in accepted:
            expect(
                len(early.runs) == 1,
                expected="a task that was accepted before start() to run once",
                actual=f"it ran {len(early.runs)} times",
            )
        expect(
            not any(early.runs for early in rejected),
            expected="a task that was rejected before start() not to run after it",
            actual="it ran",
        )


@must(needs=(Capability.REPEATED_END,))
def submit_after_end_is_rejected(trial: Trial) -> None:
    """A task submitted after ``end()`` is rejected immediately with an exception.  If the workers are not the
    executor's own, it may also be accepted and run.

    Why: no worker is left to run it, so an accepted task is lost.
    Likely causes: ``end()`` does not mark the executor as ended; the task goes to a queue that no worker
    reads.
    Origin: the contract; Airflow 2.11's LocalExecutor accepts and loses such a task.
    """
    subject = trial.started(slots=1)
    subject.run(trial.probe())
    subject.end()
    for priority in subject.ways_to_submit:
        late = trial.probe()
        rejection = subject.rejection(lambda: subject.submit(late, priority=priority))  # noqa: B023
        if rejection is not None:
            continue
        what_followed = _what_followed(subject, late)
        expect(
            subject.outcome(late) == SUCCESS and not trial.can(Capability.OWN_WORKERS),
            expected=f"a task submitted after {trial.target.adapter.name_of(Call.END)} to be rejected "
            "with an exception",
            actual=f"it was accepted; {what_followed}",
        )


@must(needs=(Capability.TERMINATE,), after=("shutdown.terminate-kills-running-tasks",))
def submit_after_terminate_is_rejected_or_reported(trial: Trial) -> None:
    """A task submitted after ``terminate()`` is rejected with an exception, or has a terminal event.

    Why: everything has stopped, so the scheduler would wait forever for a task that is silently accepted.
    Likely causes: only ``end()`` marks the executor as ended; the task goes to a queue that no worker reads.
    Origin: the contract: every accepted task has exactly one terminal event.
    """
    subject = trial.started(slots=1)
    subject.run(trial.probe())
    subject.terminate()
    late = trial.probe()
    if subject.rejection(lambda: subject.submit(late)) is None:
        what_followed = _what_followed(subject, late)
        expect(
            subject.outcome(late),
            expected="a task submitted after terminate() to be rejected with an exception, or reported",
            actual=f"it was accepted; {what_followed}",
        )


def _what_followed(subject: Subject, probe: Probe) -> str:
    """Wait for the task's terminal event; what happened instead, for messages."""

    def wait() -> None:
        subject.trial.wait_for(lambda: subject.outcome(probe), pump=subject.pump)

    raised = subject.rejection(wait)
    if raised is not None:
        adapter = subject.trial.target.adapter
        methods = adapter.name_of(subject.driver.pump_call), adapter.name_of(Call.GET_EVENT_BUFFER)
        return f"the next {' or '.join(methods)} raised {raised!r}"
    outcome = subject.outcome(probe)
    return f"{outcome!r} was reported for it" if outcome else "no terminal event was reported for it"
