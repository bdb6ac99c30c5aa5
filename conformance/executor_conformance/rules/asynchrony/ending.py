"""How coroutines end, and an event loop that the executor created."""

from __future__ import annotations

from collections.abc import Sequence

from executor_conformance.contract import FAILED, SUCCESS
from executor_conformance.harness import processes
from executor_conformance.harness.event_loops import open_loops
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.rules import must, should
from executor_conformance.verdicts import expect

_BASICS = ("interface.command-kinds-are-accurate", "asynchrony.coroutine-functions-run-to-completion")


@must(needs=(Capability.COROUTINE,), after=(*_BASICS, "shutdown.end-finishes-queued-tasks"))
def end_finishes_accepted_coroutines(trial: Trial) -> None:
    """``end()`` returns once every accepted coroutine has ended, including those that waited for a slot.

    Why: accepted work is finished, whatever it runs on.
    Likely causes: the loop is stopped while it still has tasks; its thread is a daemon that is never joined;
    only coroutines that have started are awaited, or only for a second.
    Origin: the contract (end() finishes what was accepted); asyncio.run, which cancels what is left.
    """
    subject = trial.started(parallelism=2, slots=1)
    # The first one takes longer than a second, because that is as long as some executors wait.
    probes = [trial.probe("nap=1.5"), *trial.probes(5, "yield=2", "nap=0.03")]
    subject.submit_coroutine(*probes)
    subject.end()
    ended = sum(probe.finished for probe in probes)
    expect(ended == 6, expected="6 coroutines to have ended before end() returns", actual=f"{ended} had")
    subject.drain_all()
    for probe in probes:
        subject.expect_outcome(probe, SUCCESS, "a coroutine that end() waited for")


@must(
    needs=(Capability.COROUTINE, Capability.TERMINATE),
    after=(
        *_BASICS,
        "shutdown.terminate-kills-running-tasks",
        "shutdown.terminate-reports-running-tasks-as-failed",
        "shutdown.terminate-reports-queued-tasks-as-failed",
        "asynchrony.parallelism-applies-to-coroutines",
    ),
)
def terminate_cancels_coroutines(trial: Trial) -> None:
    """``terminate()`` cancels running coroutines so that they can clean up, starts no queued coroutine, and
    reports all of them ``failed``.

    Why: a coroutine that is cancelled can close what it has opened; one that is dropped cannot.
    Likely causes: the loop is stopped while coroutines are waiting, or in the middle of their ``finally``;
    queued coroutines are forgotten, or take the slots of the cancelled ones.
    Origin: the contract (terminate() stops now); asyncio.run, which cancels what is left.
    """
    subject = trial.started(parallelism=2)
    gate = trial.gate()
    running, queued = trial.probes(2, gate.step), trial.probes(2, gate.step)
    subject.submit_coroutine(*running)
    subject.await_started(*running)
    subject.submit_coroutine(*queued)
    subject.terminate()
    subject.drain_all()
    for what, probes in (("running", running), ("queued", queued)):
        for probe in probes:
            subject.expect_outcome(probe, FAILED, f"a coroutine that was {what} at terminate()")
    in_host = [probe for probe in running if probe.runs[0].pid == trial.host.pid]
    trial.wait_for(lambda: _noted(in_host, "cleaned up") == len(in_host), patient=True)
    cancelled, cleaned_up = _noted(in_host, "cancelled"), _noted(in_host, "cleaned up")
    gate.open()
    trial.quiet()
    late = [probe for probe in (*running, *queued) if probe.finished]
    expect(not late, expected="no coroutine to go on after terminate()", actual=f"{len(late)} of 4 did")
    begun = [probe for probe in queued if probe.started]
    expect(not begun, expected="no queued coroutine to start", actual=f"{len(begun)} of 2 did")
    expect(
        cancelled == cleaned_up == len(in_host),
        expected=f"{len(in_host)} coroutines to be cancelled, and to finish a cleanup that takes 10 ms",
        actual=f"{cancelled} were cancelled, and {cleaned_up} finished their cleanup",
    )


def _noted(probes: Sequence[Probe], note: str) -> int:
    return sum(note in probe.runs[0].notes for probe in probes)


@should(
    needs=(Capability.COROUTINE, Capability.TERMINATE),
    after=(*_BASICS, "asynchrony.terminate-cancels-coroutines"),
)
def terminate_returns_despite_an_uncancellable_coroutine(trial: Trial) -> None:
    """``terminate()`` returns even if a coroutine swallows its cancellation, and reports it ``failed``.

    Why: one ``except`` too many in a library would keep the scheduler from ever stopping.
    Likely causes: cancelled tasks are gathered without a timeout; the thread of the loop is joined without a
    timeout.
    Origin: bpo-32751 (asyncio.wait_for waits for what it has cancelled, however long that takes).
    """
    subject = trial.started(slots=1)
    gate = trial.gate()
    uncancellable = trial.probe(f"shrug={gate.path}")
    subject.submit_coroutine(uncancellable)
    subject.await_started(uncancellable)
    subject.terminate()
    subject.drain_all()
    gate.open()
    subject.expect_outcome(uncancellable, FAILED, "a coroutine that swallows its cancellation")


@must(
    needs=(Capability.COROUTINE,),
    after=(*_BASICS, "asynchrony.end-finishes-accepted-coroutines"),
)
def async_generators_are_closed(trial: Trial) -> None:
    """When ``end()`` returns, the asynchronous generators that coroutines left unfinished are closed.

    Why: their ``finally`` blocks release connections, locks and files, and need the loop for it.
    Likely causes: the loop is closed without ``shutdown_asyncgens()``; it is only stopped.
    Origin: PEP 525 (finalization needs the event loop).
    """
    subject = trial.started(slots=1)
    probe = trial.probe("generator")
    subject.submit_coroutine(probe)
    subject.await_terminal(probe)
    subject.end()
    notes = probe.runs[0].notes
    expect(
        notes == ["generator closed"],
        expected="the finally block of an asynchronous generator to have run once when end() returns",
        actual=f"{len(notes)} times",
    )


@must(
    needs=(Capability.COROUTINE, Capability.ASYNC),
    after=(*_BASICS, "asynchrony.is-async-is-accurate", "shutdown.end-leaves-no-worker"),
)
def a_loop_the_executor_creates_is_closed(trial: Trial) -> None:
    """Where no event loop is running, the executor creates one and closes it in ``end()`` or ``terminate()``.

    Why: an open loop is a selector and two sockets; with a thread still in it, the process hangs at exit.
    Likely causes: the loop is stopped but not closed; the thread is not joined.
    Origin: the AsyncExecutor proposal (join a running loop, or make one); CPython's ResourceWarning for
    unclosed loops.
    """
    for end in (Subject.end, Subject.terminate):
        if end is Subject.terminate and not trial.build(slots=1).can(Capability.TERMINATE):
            return
        before, threads = open_loops(), processes.thread_count()
        subject = trial.started(slots=1)
        probes = trial.probes(3, "yield=1")
        subject.submit_coroutine(*probes)
        subject.await_terminal(*probes)
        end(subject)
        subject.drain_all()
        trial.wait_for(lambda: processes.thread_count() <= threads, patient=True)  # noqa: B023
        left = open_loops() - before
        more = processes.thread_count() - threads
        expect(
            left <= 0 and more <= 0,
            expected=f"no event loop left open and no thread left after {end.__name__}()",
            actual=f"loops left open: {left}, threads left: {more}",
        )
