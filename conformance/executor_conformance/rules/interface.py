"""What an executor offers, and in which form things go in and come out.

A scheduler knows an executor by its methods.  The rules of this chapter hold for the surface: the methods are
there, commands arrive as they were given, events come in the agreed form, and what an executor says of itself
is true.  Whether the work is then done right is for the chapters that follow.
"""

from __future__ import annotations

import gc
import math
import operator
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from executor_conformance import probe as probe_module
from executor_conformance.contract import STATES, SUCCESS, TaskKey
from executor_conformance.driving import DEFAULT, Capability
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.trial import Subject, Trial, expect
from executor_conformance.rules import must, should
from executor_conformance.verdicts import NotApplicable, Stalled


@must()
def builds_with_parallelism(trial: Trial) -> None:
    """The constructor takes the number of tasks that may run at once and returns an executor.

    Why: parallelism is the one setting that every scheduler makes; an executor that cannot be told it, or
    whose constructor does not return, can be put to no use.
    Likely causes: the argument has another name; the constructor needs more arguments (give them with
    --executor-option, or build the executor in a conftest hook); the constructor waits for something.
    Origin: the executor surface of Airflow (BaseExecutor.__init__ takes parallelism).
    """
    trial.build(parallelism=2)


@must()
def builds_with_defaults(trial: Trial) -> None:
    """Parallelism may be left out.

    Why: schedulers construct the executor that a configuration file names, without arguments.
    Likely causes: parallelism has no default; the default is computed from something that is missing.
    Origin: Airflow's ExecutorLoader calls the executor class without arguments.
    """
    trial.build(parallelism=DEFAULT)


@must()
def offers_every_method(trial: Trial) -> None:
    """Every method of the contract is there and can be called.

    Why: a scheduler finds out about a missing method in the middle of a run, and most calls are not guarded.
    Likely causes: a method is missing or misspelt; an attribute of the same name hides it.
    Origin: the executor surface of Airflow; apache/airflow#41992.
    """
    executor = trial.build().driver.executor
    missing = [
        name for name in trial.target.adapter.required_methods if not callable(getattr(executor, name, None))
    ]
    expect(
        not missing,
        awaited=f"the methods {', '.join(trial.target.adapter.required_methods)}",
        seen=f"missing or not callable: {', '.join(missing)}",
    )


@must(needs=(Capability.PARALLELISM_ATTRIBUTE,))
def tells_its_parallelism(trial: Trial) -> None:
    """``parallelism`` tells the number that was given to the constructor.

    Why: schedulers and monitoring read it to know how much may be queued.
    Likely causes: the argument is not stored; a default or a configured value wins over the argument.
    Origin: Airflow reads executor.parallelism for its open-slot metrics.
    """
    for parallelism in (1, 3):
        subject = trial.build(parallelism=parallelism)
        expect(subject.has("parallelism"), awaited="an attribute parallelism", seen="there is none")
        seen = subject.optional("parallelism")
        expect(
            isinstance(seen, int) and int(seen) == parallelism,
            awaited=f"parallelism to be {parallelism} as given",
            seen=repr(seen),
        )


@must(needs=(Capability.QUEUE_AND_CONFIG,))
def takes_queue_and_executor_config(trial: Trial) -> None:
    """``execute_async`` takes ``queue`` and ``executor_config`` by keyword, also where it ignores them.

    Why: schedulers pass both with every task; an executor that has no queues must still take the argument.
    Likely causes: the parameters are missing or have other names; an unknown queue makes the task vanish.
    Origin: Airflow calls execute_async(key=, command=, queue=, executor_config=).
    """
    subject = trial.started()
    plain, configured = trial.probe(), trial.probe()
    subject.submit(plain, queue=None, executor_config=None)
    subject.submit(configured, queue=None, executor_config={"any": "thing"})
    subject.await_terminal(plain, configured)
    for probe in (plain, configured):
        subject.expect_outcome(probe, SUCCESS)


@must(needs=(Capability.ARGV,), after=("states.no-terminal-event-before-the-end",))
def takes_lists_and_tuples(trial: Trial) -> None:
    """An argv may be a list or a tuple.

    Why: the contract speaks of a sequence of str, and callers use both.
    Likely causes: the command is joined or concatenated with a list; a type check knows only one of the two.
    Origin: the contract; Airflow passes lists, other callers tuples.
    """
    subject = trial.started()
    for kind in (list, tuple):
        probe = trial.probe()
        assert probe.work.argv is not None
        subject.submit_raw(probe.key, kind(probe.work.argv))
        subject.await_terminal(probe)
        subject.expect_outcome(probe, SUCCESS, f"an argv given as a {kind.__name__}")
        expect(probe.finished, awaited="the task to have run", seen="its event came, but it never ran")


_DIFFICULT_ARGUMENTS = (
    "",
    "two words",
    " leading and trailing ",
    "new\nline",
    "tab\tstop",
    'double "quotes"',
    "single 'quotes'",
    "$HOME `id` $(id) ; & | > < * ? ~ # !",
    "back\\slash",
    "--option=value",
    "-",
    "ünïcode ☃ 漢字",
    "%s {0} {name}",
    "x" * 5000,
)


@must(needs=(Capability.ARGV,), after=("states.no-terminal-event-before-the-end",))
def passes_arguments_unchanged(trial: Trial) -> None:
    """Every word of an argv reaches the task as it was given.

    Why: a command is a list of words, not a line for a shell; an executor that joins and splits it runs
    another command than it was given, which is also a security hole.
    Likely causes: the command is joined into a string and given to a shell; it is split at white space again;
    it is formatted or encoded on the way.
    Origin: the contract; argv is executed as it stands.
    """
    subject = trial.started()
    probe = trial.probe(*(f"note={word}" for word in _DIFFICULT_ARGUMENTS))
    subject.run(probe)
    subject.expect_outcome(probe, SUCCESS)
    arrived = probe.runs[0].notes if probe.runs else []
    for number, word in enumerate(_DIFFICULT_ARGUMENTS):
        got = arrived[number] if number < len(arrived) else None
        expect(
            got == word,
            awaited=f"the argument {word[:60]!r} to reach the task unchanged",
            seen=f"it arrived as {got[:60] if got is not None else None!r}",
        )


@must(needs=(Capability.ARGV,), after=("interface.passes-arguments-unchanged",))
def runs_other_programs_as_they_stand(trial: Trial) -> None:
    """An argv that is not ``[sys.executable, "-m", ...]`` is executed as it stands.

    Why: tasks are not only Python: a shell, a binary, another interpreter must work in every mode.
    Likely causes: every command is taken for a Python module; the program is not looked up on PATH.
    Origin: the contract; running Airflow's own command in a fork (commit 4839a5b) must not break the others.
    """
    subject = trial.started()
    path = os.path.join(trial.scratch, "written")
    by_path = trial.program("/bin/sh", "-c", 'printf %s "$1" > "$0"', path, "by path")
    subject.run(by_path)
    subject.expect_outcome(by_path, SUCCESS, "/bin/sh -c ...")
    written = open(path).read() if os.path.exists(path) else None  # noqa: SIM115
    expect(written == "by path", awaited="the program to have done its work", seen=f"it left {written!r}")
    by_name = trial.program("true")
    subject.run(by_name)
    subject.expect_outcome(by_name, SUCCESS, "a program found on PATH")
    script = trial.probe()
    assert script.work.argv is not None
    as_script = trial.program(sys.executable, str(probe_module.__file__), *script.work.argv[3:])
    subject.run(as_script)
    subject.expect_outcome(as_script, SUCCESS, "a Python script")
    expect(
        script.runs and script.runs[0].host_marker == 0,
        awaited="a script given to an interpreter to run in a new interpreter",
        seen="it ran inside a forked child" if script.runs else "it never ran",
    )


@must()
def events_are_pairs_by_key(trial: Trial) -> None:
    """``get_event_buffer`` returns a dict: the key as it was submitted -> a pair of state and info.

    Why: the scheduler looks tasks up by key and unpacks the pair.
    Likely causes: a list of events is returned; the key was turned into a string; the state stands alone.
    Origin: Airflow's BaseExecutor.get_event_buffer and the scheduler's process_executor_events.
    """
    subject = trial.started()
    probe = trial.probe()
    subject.submit(probe)
    if not trial.comes_true(lambda: subject.history, pump=subject.pump):
        raise Stalled(awaited="an event of 1 task", seen=subject.story([probe]))
    strangers = [event.key for event in subject.history if event.key != tuple(probe.key)]
    expect(not strangers, awaited=f"events for {tuple(probe.key)} only", seen=f"events for {strangers[:3]}")


@should()
def a_returned_buffer_is_the_callers(trial: Trial) -> None:
    """The dict that ``get_event_buffer`` returned does not change afterwards.

    Why: the scheduler keeps it while it works through the events, and more arrive meanwhile.
    Likely causes: the internal dict itself is returned and filled again; it is cleared after it was returned.
    Origin: Airflow's BaseExecutor hands out the old dict and makes a new one.
    """
    subject = trial.started()
    returned: list[tuple[object, list[object]]] = []

    def pump_and_keep() -> None:
        subject.beat()
        buffer = trial.call("get_event_buffer()", subject.driver.events)
        subject.take(buffer)
        if isinstance(buffer, dict) and buffer:
            returned.append((buffer, list(buffer.items())))

    for probe in trial.probes(2):
        subject.submit(probe)
        trial.until(
            lambda: subject.outcome(probe),  # noqa: B023
            awaited="a terminal event",
            stalled=True,
            seen=lambda: subject.story([probe]),  # noqa: B023
            pump=pump_and_keep,
        )
    for buffer, items in returned:
        now = list(buffer.items())  # type: ignore[attr-defined]
        expect(
            now == items,
            awaited="the returned dict to stay as it was",
            seen=f"{len(items)} events then, {len(now)} now",
        )


@must()
def states_are_the_agreed_words(trial: Trial) -> None:
    """States are ``queued``, ``running``, ``success`` and ``failed``, as ``str`` or an enum of ``str``.

    Why: the scheduler compares them with its own; a state that it does not know leaves the task where it is.
    Likely causes: another vocabulary (done, error, finished); upper case; an exit code or a bool as state.
    Origin: Airflow's TaskInstanceState; the transition table of this specification.
    """
    subject = trial.started()
    good, bad = trial.probe(), trial.probe("raise=on purpose")
    subject.submit(good, bad)

    # not await_terminal: a word that is not known is no terminal state, and would only be waited for
    def last_words() -> set[object]:
        return {event.key for event in subject.history if event.state not in ("queued", "running")}

    trial.comes_true(lambda: len(last_words()) >= 2, pump=subject.pump)
    if not last_words():
        raise Stalled(awaited="an event of 2 tasks", seen=subject.story([good, bad]))
    strange = [event.state for event in subject.history if event.state not in STATES]
    expect(
        not strange, awaited=f"states out of {', '.join(STATES)}", seen=f"{strange[0] if strange else ''!r}"
    )


@must(needs=(Capability.KEYS,), after=("states.no-terminal-event-before-the-end",))
def command_kinds_tell_the_truth(trial: Trial) -> None:
    """Every kind in ``command_kinds`` is run, and no other kind "succeeds" without having been run.

    Why: callers choose by it what to submit; a coroutine function that is called but never awaited has done
    nothing, and must not count as success.
    Likely causes: the attribute was copied and never checked; a coroutine function is called like any other
    callable; what cannot be run is dropped.
    Origin: apache/airflow pull requests 5788 and 6984 (the AsyncExecutor proposal: one interface for both).
    """
    kinds = trial.build().optional("command_kinds")
    expect(
        isinstance(kinds, (frozenset, set)) and set(kinds) <= {"argv", "callable", "coroutine"},
        awaited="command_kinds to be a frozenset out of argv, callable and coroutine",
        seen=repr(kinds),
    )
    subject = trial.started()
    for kind in ("argv", "callable", "coroutine"):
        probe = trial.probe()
        command = _command_of_kind(kind, probe)
        refusal = subject.refusal(lambda: subject.submit_raw(probe.key, command))  # noqa: B023
        if refusal is None:
            subject.await_terminal(probe)
        ran, outcome = probe.finished, subject.outcome(probe)
        if kind in kinds:
            expect(
                refusal is None and outcome == SUCCESS and ran,
                awaited=f"a command of the claimed kind {kind} to run and succeed",
                seen=f"refused with {refusal!r}" if refusal else f"outcome {outcome!r}, ran: {ran}",
            )
        else:
            expect(
                refusal is not None or outcome != SUCCESS or ran,
                awaited=f"a command of the kind {kind}, which is not claimed, to be refused or to fail",
                seen="it was reported as success and never ran",
            )


def _command_of_kind(kind: str, probe: Probe) -> object:
    return {"argv": probe.work.argv, "callable": probe.work.function, "coroutine": probe.work.coroutine}[kind]


@must()
def is_async_is_a_bool(trial: Trial) -> None:
    """``is_async``, where it is offered, is a bool.

    Why: schedulers branch on it; a method or a string of that name is always true.
    Likely causes: is_async is a method; it holds a string from a configuration file.
    Origin: apache/airflow pull request 6984 (AsyncExecutor: properties that tell executors apart).
    """
    seen = trial.build().optional("is_async")
    expect(isinstance(seen, bool), awaited="is_async to be True or False", seen=repr(seen))


_REFUSALS = 20
_MALFORMED = {
    "an argv of an empty word": [""],
    "an argv with a number in it": ["true", 1],
    "a number": 7,
}


# What could pass for a poison pill (None, an empty argv) is in the chapter shutdown.
@must(needs=(Capability.ARGV,), after=("interface.passes-arguments-unchanged",))
def a_malformed_command_never_succeeds(trial: Trial) -> None:
    """What is no command is refused with an error or reported ``failed``, and stalls nothing.

    Why: one bad configuration must not take the scheduler, or the tasks behind it, with it.
    Likely causes: the command is checked only in the worker, which dies of it; an exception in the hand-over
    leaves through sync() again and again; an empty command counts as done.
    Origin: apache/airflow#64476; apache/airflow#47873; apache/airflow#71380.
    """
    subject = trial.started()
    for number, (what, command) in enumerate(_MALFORMED.items()):
        key = TaskKey("dag", f"malformed-{number}", "run", 1, -1)
        bad = trial.probe(key=key)
        if subject.refusal(lambda: subject.submit_raw(key, command)) is None:  # noqa: B023
            subject.await_terminal(bad)
            expect(
                subject.outcome(bad) != SUCCESS,
                awaited=f"{what} as a command to be refused or to fail",
                seen="it was reported as success",
            )
        good = trial.probe()
        subject.run(good)
        subject.expect_outcome(good, SUCCESS, f"the task after {what}")


@must(
    needs=(Capability.ARGV, Capability.KEYS),
    after=(
        "interface.a-malformed-command-never-succeeds",
        "states.a-key-in-flight-never-runs-twice-at-once",
        "shutdown.nothing-accumulates",
        "memory.nothing-piles-up",
    ),
)
def a_refusal_leaves_nothing_behind(trial: Trial) -> None:
    """A submission that is refused leaves nothing: no process, thread or descriptor, and its key is free.

    Why: what is refused is corrected, and comes again under the same key; and a scheduler with a wrong
    configuration is refused every minute.
    Likely causes: a pipe is opened, or the key noted, before the command has been looked at; no ``finally``.
    Origin: the contract; apache/airflow#13542 (what is noted and never runs takes its slot for ever).
    """
    subject = trial.started()
    gate = trial.gate()
    held = trial.probe(gate.step)
    subject.submit(held)
    subject.await_started(held)
    refused: list[tuple[TaskKey, object]] = []
    for number, command in enumerate(_MALFORMED.values()):
        key = TaskKey("dag", f"refused-at-first-{number}", "run", 1, -1)
        if subject.refusal(lambda: subject.submit_raw(key, command)) is None:  # noqa: B023 - here and now
            subject.await_terminal(trial.probe(key=key))
        else:
            refused.append((key, command))
    if not refused:
        raise NotApplicable("it refuses no malformed command, and fails it later")
    corrected = [trial.probe(key=key) for key, _ in refused]
    in_flight = (held.key, list(held.work.argv or ()))
    if subject.refusal(lambda: subject.submit_raw(*in_flight)) is not None:
        refused.append(in_flight)
    subject.quiet()
    before = trial.belongings()
    for key, command in refused * _REFUSALS:
        subject.refusal(lambda: subject.submit_raw(key, command))  # noqa: B023
    subject.quiet()

    def grown() -> list[str]:
        now = trial.belongings()
        return [
            f"{now[what] - before[what]} more of: {what}"
            for what in now
            if now[what] - before[what] >= _REFUSALS
        ]

    gc.collect()
    trial.comes_true(lambda: not grown(), pump=subject.pump, budget_s=trial.budgets.arrival_s / 4)
    expect(
        not grown(),
        awaited=f"nothing more after {_REFUSALS * len(refused)} submissions that were refused",
        seen=", ".join(grown()),
    )
    for probe in corrected:
        refusal = subject.refusal(lambda: subject.submit(probe))  # noqa: B023
        expect(
            refusal is None,
            awaited="a key to be free whose first, malformed command was refused",
            seen=f"refused too: {refusal!r}",
        )
    subject.await_terminal(*corrected)
    for probe in corrected:
        subject.expect_outcome(probe, SUCCESS, "a task whose first, malformed command was refused")
    gate.open()
    subject.await_terminal(held)


@should(needs=(Capability.ARGV,))
def leaves_the_command_alone(trial: Trial) -> None:
    """The caller's command is not changed.

    Why: callers keep commands to run them again on the next try.
    Likely causes: words are popped off the list that was passed; words are inserted into it.
    Origin: the contract.
    """
    subject = trial.started()
    probe = trial.probe()
    assert probe.work.argv is not None
    given = list(probe.work.argv)
    subject.submit_raw(probe.key, given)
    subject.await_terminal(probe)
    expect(
        given == list(probe.work.argv),
        awaited="the list that was passed as command to stay as it was",
        seen=f"{len(given)} words instead of {len(probe.work.argv)}: {given[:3]}...",
    )


@must()
def bookkeeping_has_the_agreed_types(trial: Trial) -> None:
    """``slots_available`` and ``slots_occupied`` are ints; ``running`` and ``queued_tasks`` know keys.

    Why: the scheduler compares the numbers and asks whether a key is in the collections.
    Likely causes: a method instead of a property; a float; None while nothing runs.
    Origin: Airflow's BaseExecutor.slots_available, .running, .queued_tasks.
    """
    subject = trial.started()
    offered = [
        name for name in ("slots_available", "slots_occupied", "running", "queued_tasks") if subject.has(name)
    ]
    if not offered:
        raise NotApplicable("the executor offers no bookkeeping")
    key = trial.probe().key
    _expect_agreed_types(trial, subject, offered, key)
    gate = trial.gate()
    held = trial.probe(gate.step)
    subject.submit(held)
    subject.await_started(held)
    subject.pump()
    _expect_agreed_types(trial, subject, offered, key)
    gate.open()
    subject.await_terminal(held)


def _expect_agreed_types(trial: Trial, subject: Subject, offered: list[str], key: TaskKey) -> None:
    for name in offered:
        value = subject.optional(name)
        if name.startswith("slots"):
            expect(
                isinstance(value, int) and not isinstance(value, bool),
                awaited=f"{name} to be an int",
                seen=repr(value),
            )
            continue
        answer = trial.call(f"key in {name}", lambda: subject.driver.holds(value, key))  # noqa: B023
        expect(
            answer is False, awaited=f"a key that was never submitted not to be in {name}", seen=repr(answer)
        )


@must(needs=(Capability.CALLS,))
def a_call_gets_its_arguments(trial: Trial) -> None:
    """``submit(function, ...)`` calls the function with its positional and keyword arguments.

    Why: a call that lacks an argument is another call, and with a default in its place nobody sees it.
    Likely causes: keywords are not passed on; arguments are bound when the call is made, and not before.
    Origin: concurrent.futures.Executor.submit(fn, /, *args, **kwargs).
    """
    _expect_arguments_to_arrive(trial, ("one", 2, [3]), {"four": 4, "five": None})


@should(needs=(Capability.CALLS,), after=("interface.a-call-gets-its-arguments",))
def no_keyword_is_taken_from_a_call(trial: Trial) -> None:
    """``submit()`` takes no keyword for itself that the call was to have.

    Why: the function that has a parameter of that name gets its default, without a word.
    Likely causes: what the executor can be told of a task is told by keywords of ``submit()``, where those
    of the call are; the first parameter has a name, so that no keyword can have it.
    Origin: concurrent.futures.Executor.submit(fn, /, *args, **kwargs); Dask's ClientExecutor takes ``key``
    and ``priority``.
    """
    names = ("fn", "key", "priority", "queue", "timeout", "retries", "resources", "pure", "workers")
    _expect_arguments_to_arrive(trial, (), {name: name for name in names})


def _expect_arguments_to_arrive(
    trial: Trial, arguments: tuple[object, ...], keywords: dict[str, Any]
) -> None:
    executor = trial.started().driver.executor
    future = trial.call("submit()", lambda: executor.submit(probe_module.echo, *arguments, **keywords))
    result = _result_of(trial, future)
    expect(
        result == (arguments, keywords),
        awaited=f"the call to have the arguments {arguments} and {keywords}",
        seen=repr(result)[:300],
    )


@must(needs=(Capability.CALLS,), after=("interface.a-call-gets-its-arguments",))
def map_keeps_the_order(trial: Trial) -> None:
    """``map()`` gives its results in the order of its arguments, whichever call ends first.

    Why: who maps puts results beside arguments; in another order each is somebody else's.
    Likely causes: results are taken as they come; what is sent in chunks is put together by the end of each.
    Origin: concurrent.futures.Executor.map.
    """
    executor = trial.started(parallelism=2).driver.executor
    probes = [trial.probe("nap=0.15" if number % 3 == 0 else "nap=0") for number in range(6)]
    calls = [probe.work.function for probe in probes]
    arguments = [call.args for call in calls if isinstance(call, partial)]
    results = trial.call(
        "map()",
        lambda: list(executor.map(probe_module.run, *zip(*arguments, strict=True))),
        allowance_s=trial.budgets.arrival_s,
    )
    expected = [probe.name for probe in probes]
    expect(results == expected, awaited=f"the results {', '.join(expected)}", seen=repr(results)[:200])


@should(needs=(Capability.CALLS,), after=("interface.a-call-gets-its-arguments",))
def an_exception_arrives_as_it_was_raised(trial: Trial) -> None:
    """``Future.exception()`` is of the type, and has the arguments, that the call has raised.

    Why: callers tell one error from another by its type, and retry what can be retried.
    Likely causes: errors travel as text; they are wrapped in an error of the executor's own.
    Origin: concurrent.futures.Future.exception.
    """
    executor = trial.started().driver.executor
    calls: tuple[tuple[Callable[..., object], tuple[object, ...], type[Exception]], ...] = (
        (math.sqrt, (-1,), ValueError),
        (operator.getitem, ({}, "missing"), KeyError),
        (os.stat, (os.path.join(trial.scratch, "missing"),), FileNotFoundError),
    )
    for call, arguments, expected in calls:
        future = trial.call("submit()", lambda: executor.submit(call, *arguments))  # noqa: B023
        _await_done(trial, future)
        error = trial.call("exception()", lambda: future.exception(timeout=0))  # noqa: B023
        try:
            call(*arguments)
        except expected as here:
            expect(
                type(error) is expected and error.args == here.args,
                awaited=f"the {here!r} of a call",
                seen=repr(error)[:200],
            )


def _await_done(trial: Trial, future: Any) -> None:
    trial.until(
        lambda: trial.call("done()", future.done), awaited="a future to be done", seen=lambda: repr(future)
    )


def _result_of(trial: Trial, future: Any) -> object:
    _await_done(trial, future)
    return trial.call("result()", lambda: future.result(timeout=0))
