"""``end()`` is interrupted: an exception from a signal handler of the host leaves it."""

from __future__ import annotations

import os
import signal

from executor_conformance.contract import SUCCESS, TERMINAL_STATES, Call
from executor_conformance.harness import processes
from executor_conformance.harness.calls import Raised
from executor_conformance.harness.linux import sleep
from executor_conformance.harness.probes import Gate, Probe
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.rules import must
from executor_conformance.rules.shutdown.leftovers import drain_remaining_events
from executor_conformance.rules.shutdown.terminate import expect_reported_as_failed
from executor_conformance.verdicts import NotApplicable, expect


def _interrupt_end(trial: Trial) -> tuple[Subject, Gate, list[Probe]]:
    """Call ``end()`` while every slot has a task and one is queued, and have a signal handler raise
    KeyboardInterrupt there.

    :raises NotApplicable: ``end()`` did not raise it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    slots = trial.slots(2)
    gate = trial.gate()
    host = os.getpid()

    def interrupt() -> None:
        trial.host.await_call(Call.END)
        sleep(trial.budgets.quiet_s)  # until end() waits for the tasks
        os.kill(host, signal.SIGINT)
        sleep(trial.budgets.call_s)
        gate.open()  # end() goes on: it defers the signal
        signal.pause()

    # Before there is an executor: while InterpreterPoolExecutor has interpreters, a forked child crashes.
    helper = trial.host.meanwhile(interrupt)
    end = trial.target.adapter.name_of(Call.END)
    try:
        subject = trial.started(slots)
        held = trial.probes(slots, gate.step)
        probes = [*held, trial.probe()]
        subject.submit(*probes)
        subject.await_started(*held)
        subject.end()
    except Raised as raised:
        if not isinstance(raised.error, KeyboardInterrupt):
            raise
    else:
        raise NotApplicable(f"{end} does not raise what a signal handler of the scheduler process raises")
    finally:
        trial.host.kill_own(helper)
    return subject, gate, probes


@must(after=("shutdown.end-finishes-running-tasks", "shutdown.events-during-end-are-delivered"))
def end_works_again_after_an_interruption(trial: Trial) -> None:
    """If a signal handler of the host raises in ``end()``, as Ctrl-C does, another ``end()`` returns, and
    each task has exactly one terminal event, with the right outcome.

    Why: Ctrl-C during a long ``end()`` is followed by the clean-up code of the host, which calls it again.
    Likely causes: a lock or a list of workers is left as it was in the middle of the first call; the first
    call has taken an event that it never reported.
    Origin: python/cpython#28532 (a signal handler that raises during join() causes a deadlock);
    python/cpython#31290 (join() that was interrupted takes a running thread for stopped).
    """
    end = trial.target.adapter.name_of(Call.END)
    subject, gate, probes = _interrupt_end(trial)
    gate.open()
    # In Python 3.12 and before, a thread whose join() was interrupted counts as ended, so an end() that joins
    # threads may return too early now.
    trial.wait_for(lambda: all(probe.finished for probe in probes[:-1]))
    trial.quiet()
    subject.end()
    drain_remaining_events(trial, subject, probes)
    for probe in probes:
        terminal = [event for event in subject.events_of(probe) if event.state in TERMINAL_STATES]
        expect(
            len(terminal) == 1 and (terminal[0].state == SUCCESS) == probe.finished,
            expected=f"one terminal event for {probe}, 'success' if and only if it ended by itself, after "
            f"KeyboardInterrupt in {end} and another {end}",
            actual=subject.describe([probe]),
        )


@must(
    needs=(Capability.OWN_WORKERS, Capability.TERMINATE),
    after=(
        "shutdown.terminate-kills-running-tasks",
        "shutdown.terminate-reports-running-tasks-as-failed",
        "shutdown.terminate-reports-queued-tasks-as-failed",
        "parallelism.at-most-n-tasks-run-at-once",
    ),
)
def terminate_works_after_an_interrupted_end(trial: Trial) -> None:
    """If a signal handler of the host raises in ``end()``, as Ctrl-C does, ``terminate()`` stops the running
    tasks and reports all unfinished ones as ``failed``.

    Why: a user who presses Ctrl-C during a long ``end()`` does not want to wait for the tasks.
    Likely causes: ``terminate()`` does nothing after ``end()`` has been called; ``end()`` has forgotten the
    tasks that it was waiting for.
    Origin: pulp/pulpcore#1492 (the second Ctrl-C must stop the tasks, too);
    python/cpython#125886 (tasks go on after Ctrl-C during shutdown()).
    """
    end = trial.target.adapter.name_of(Call.END)
    subject, _, probes = _interrupt_end(trial)
    subject.terminate()
    if not trial.facts.tasks_in_host:
        running = [run.pid for probe in probes for run in probe.runs]
        trial.require(
            lambda: not any(map(processes.is_alive, running)),
            expected=f"terminate() to stop the running tasks after KeyboardInterrupt in {end}",
            actual=lambda: subject.describe(probes),
        )
    expect_reported_as_failed(trial, subject, probes, "unfinished")
