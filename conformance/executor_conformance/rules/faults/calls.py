"""Callers misuse the calls and futures of a ``concurrent.futures`` executor."""

from __future__ import annotations

from executor_conformance.harness.futures import (
    AnyFuture,
    await_done,
    expect_result,
    raise_on_purpose,
    result_or_error,
    submit_call,
    submit_probe,
)
from executor_conformance.harness.trial import Trial
from executor_conformance.probes import calls
from executor_conformance.probes import task as probe_module
from executor_conformance.requirements import Capability
from executor_conformance.rules import must
from executor_conformance.rules.faults.recovery import expect_capacity
from executor_conformance.verdicts import expect


@must(needs=(Capability.CALLS,), after=("shutdown.a-cancelled-future-never-runs",))
def cancelling_a_running_call_harms_no_other(trial: Trial) -> None:
    """``cancel()`` on a running call returns false and changes nothing, or it returns true and the future is
    cancelled.  In both cases every other call ends as usual, and no slot is lost.

    Why: a caller that gives up after a timeout cancels without knowing whether the call has started.
    Likely causes: ``cancel()`` marks the future of a running call as cancelled, so setting its result raises
    InvalidStateError in the one thread that sets all results; the killed worker of a cancelled call is not
    replaced.
    Origin: vllm-project/vllm-omni#5821 and pull request 5983 (that thread ends, and nothing ever completes);
    noxdafox/pebble#75 (the InvalidStateError).
    """
    for count in (1, 2):
        subject = trial.started(parallelism=2)
        gate = trial.gate()
        running, others = trial.probes(count, gate.step), trial.probes(3)
        futures = [submit_probe(subject, probe) for probe in running]
        subject.await_started(*running)
        waiting = [submit_probe(subject, probe) for probe in others]
        answers = [trial.call("cancel()", future.cancel) for future in futures]
        gate.open()
        what = "a running call after cancel()"
        await_done(subject, {f"{what} ({number + 1})": future for number, future in enumerate(futures)})
        for probe, future, answer in zip(running, futures, answers, strict=True):
            cancelled = trial.call("cancelled()", future.cancelled)
            expect(
                bool(answer) == cancelled,
                expected=f"cancelled() to be {bool(answer)}, as cancel() returned {answer!r}",
                actual=repr(cancelled),
            )
            if not answer:
                expect_result(subject, future, probe.name, "a running call whose cancel() returned false")
        for probe, future in zip(others, waiting, strict=True):
            what = f"{probe}, which was queued when {count} running calls were cancelled"
            await_done(subject, {what: future})
            expect_result(subject, future, probe.name, what)
        expect_capacity(trial, subject, 2, f"after cancel() on {count} running calls")


@must(needs=(Capability.CALLS,), after=("interface.done-callbacks-are-called-once",))
def a_failing_callback_harms_no_call(trial: Trial) -> None:
    """A done callback that raises an ``Exception`` changes nothing: the future keeps its result, its other
    callbacks are called, every other call ends as usual, and no slot is lost.

    Why: callbacks are the caller's code, and run in the thread that sets the results of all calls.
    Likely causes: callbacks are called outside ``try``, so that thread ends; the future is done only after
    its callbacks.
    Origin: concurrent.futures.Future.add_done_callback (such an exception is logged and ignored);
    python/cpython#83371 and pull request 155777 (the pool's callers wait forever); joblib/loky#6.
    """
    for count in (1, 2):
        subject = trial.started(parallelism=2)
        gate = trial.gate()
        running, others, given_up = trial.probes(count, gate.step), trial.probes(3), trial.probe()
        if count > 1:  # the outcome of this one is an exception
            running[-1] = trial.probe(gate.step, "raise=on purpose")
        futures = [submit_probe(subject, probe) for probe in running]
        subject.await_started(*running)
        waiting = [submit_probe(subject, probe) for probe in others]
        last = submit_probe(subject, given_up)
        called: list[AnyFuture] = []
        for future in (*futures, last):
            for callback in (raise_on_purpose, called.append):
                trial.call("add_done_callback()", lambda: future.add_done_callback(callback))  # noqa: B023
        trial.call("cancel()", last.cancel)  # whatever it returns
        gate.open()
        what = "a call with a done callback that raised"
        await_done(subject, {f"{what} ({n + 1})": future for n, future in enumerate((*futures, last))})
        expect_result(subject, futures[0], running[0].name, what)
        subject.require(
            lambda: len(called) == count + 1,  # noqa: B023
            expected=f"the second callback of each of {count + 1} futures to be called, after the first one "
            "raised",
            actual=lambda: f"{len(called)} were called",  # noqa: B023
        )
        for probe, future in zip(others, waiting, strict=True):
            what = f"{probe}, which was queued when a done callback of another call raised"
            await_done(subject, {what: future})
            expect_result(subject, future, probe.name, what)
        expect_capacity(trial, subject, 2, f"after {count} done callbacks raised")


@must(
    needs=(Capability.CALLS,),
    after=("interface.submit-passes-args-and-kwargs", "states.an-exception-is-a-failure"),
)
def an_unpicklable_argument_fails_one_call(trial: Trial) -> None:
    """A call with an argument that cannot be pickled or unpickled is rejected or fails, or it runs if nothing
    is pickled.  Every other call ends as usual, and no slot is lost.

    Why: lambdas, locks and connections are among the first things that users pass to a pool of processes.
    Likely causes: the thread that pickles arguments dies of the error; the worker unpickles outside ``try``
    and exits; the call stays pending, so its caller and ``shutdown()`` wait forever.
    Origin: noxdafox/pebble#146; joblib/loky#75; python/cpython#75880, #83285, #116685 (deadlocks);
    uqfoundation/multiprocess#19.
    """
    for what, argument in (
        ("a call whose argument cannot be pickled", calls.Unpicklable()),
        ("a call whose argument cannot be unpickled", calls.Unloadable()),
    ):
        subject = trial.started(parallelism=2, slots=1)
        before, after = trial.probes(3), trial.probes(3)
        good = [(probe, submit_probe(subject, probe)) for probe in before]
        bad: dict[str, AnyFuture] = {}

        def submit_bad(name: str) -> None:
            bad[name] = submit_call(subject, probe_module.echo, argument)  # noqa: B023

        for number in (1, 2):
            subject.rejection(lambda: submit_bad(f"{what} ({number})"))  # noqa: B023
        good += [(probe, submit_probe(subject, probe)) for probe in after]
        await_done(subject, bad)
        for name, future in bad.items():
            result = result_or_error(subject, future)
            expect(
                isinstance(result, BaseException) or result == ((argument,), {}),
                expected=f"an exception as the outcome of {name}",
                actual=repr(result)[:200],
            )
        for probe, future in good:
            one = f"a good call alongside {what}"
            await_done(subject, {one: future})
            expect_result(subject, future, probe.name, one)
        expect_capacity(trial, subject, 2, f"after {what}")
        subject.end()
