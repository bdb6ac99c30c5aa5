"""Code that blocks the event loop, and commands that would."""

from __future__ import annotations

from executor_conformance.contract import SUCCESS
from executor_conformance.harness.event_loops import logs_and_warnings
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.rules import may, must
from executor_conformance.verdicts import NotApplicable, expect

_IS_ASYNC = (
    "interface.command-kinds-are-accurate",
    "asynchrony.coroutine-functions-run-to-completion",
    "asynchrony.is-async-is-accurate",
)
_ASYNC = (Capability.COROUTINE, Capability.ASYNC)


@must(needs=_ASYNC, after=_IS_ASYNC)
def coroutines_survive_a_blocked_loop(trial: Trial) -> None:
    """While a coroutine blocks the event loop, the other coroutines wait; they continue as soon as the loop
    is free again.

    Why: sooner or later a task makes a blocking call.  Then every task is late, but none may be lost.
    Likely causes: a watchdog gives up the loop and all its tasks; timeouts expire while the loop is blocked.
    Origin: apache/airflow#71380 (one bad job stalls the rest).
    """
    subject = trial.started(parallelism=8)
    gate = trial.gate()
    waiting = trial.probes(3, gate.step)
    subject.submit_coroutine(*waiting)
    subject.await_started(*waiting)
    blocking = trial.probe("block=1.0")
    behind = trial.probes(3, "nap=0.01")
    subject.submit_coroutine(blocking, *behind)
    subject.await_started(blocking)
    trial.wait_for(lambda: blocking.finished, pump=subject.pump, patient=True)
    subject.quiet()
    gate.open()
    probes = [blocking, *waiting, *behind]
    subject.await_terminal(*probes)
    for probe in probes:
        what = "a coroutine that blocks the loop" if probe is blocking else "a coroutine on a blocked loop"
        subject.expect_outcome(probe, SUCCESS, what)


@must(needs=_ASYNC, after=_IS_ASYNC)
def blocking_commands_do_not_block_the_loop(trial: Trial) -> None:
    """Coroutines keep running while an argv command or a plain callable runs, where the executor accepts
    these.

    Why: a program or a plain call cannot yield, so the executor has to wait for it outside the loop.
    Likely causes: the loop itself calls the callable; ``subprocess.run()`` is called in a coroutine.
    Origin: the AsyncExecutor proposal (blocking work goes to threads or processes); apache/airflow#71380.
    """
    subject = trial.started(parallelism=4)
    forms = (
        ("a command", Capability.ARGV, subject.submit),
        ("a callable", Capability.CALLABLE, subject.submit_callable),
    )
    accepted = [(what, submit) for what, capability, submit in forms if subject.can(capability)]
    if not accepted:
        raise NotApplicable("it accepts coroutine functions only")
    for what, submit in accepted:
        gate = trial.gate()
        blocking, concurrent = trial.probe(gate.step), trial.probe("yield=3", "nap=0.01")
        submit(blocking)
        subject.await_started(blocking)
        subject.submit_coroutine(concurrent)
        ran = trial.wait_for(lambda: concurrent.finished, pump=subject.pump, patient=True)  # noqa: B023
        gate.open()
        expect(
            ran,
            expected=f"a coroutine to run to its end while {what} is running",
            actual=subject.describe([concurrent]),
        )
        subject.await_terminal(blocking, concurrent)


@may(
    needs=(*_ASYNC, Capability.KEYS),  # without a key the coroutine has no name
    after=(*_IS_ASYNC, "asynchrony.coroutines-survive-a-blocked-loop"),
)
def a_blocking_coroutine_is_logged_by_name(trial: Trial) -> None:
    """A coroutine that blocks the event loop for a second is named in a log message or a warning.

    Why: from outside, all tasks seem slow, not just the one that blocks.
    Likely causes: no other thread watches the loop; the thread that watches it does not log what it sees.
    Origin: asyncio's debug mode, which logs slow callbacks after they have ended; apache/airflow#71380.
    """
    subject = trial.started(parallelism=2)
    blocking = trial.probe("block=1.0")
    with logs_and_warnings() as heard:
        subject.submit_coroutine(blocking)
        subject.await_terminal(blocking)
        task_id = blocking.key.task_id
        trial.wait_for(lambda: any(task_id in text for text in heard), budget_s=trial.budgets.quiet_s)
    expect(
        any(task_id in text for text in heard),
        expected=f"a log message or warning that contains {task_id}",
        actual=f"{len(heard)} messages without it" + (f"; the last one: {heard[-1]:.160}" if heard else ""),
    )
