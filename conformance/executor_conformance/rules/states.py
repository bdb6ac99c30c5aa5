"""What is reported of a task, when, and how often.

For every accepted try there is exactly one last word, ``success`` or ``failed``, under the key it was
submitted with, and it is true: the probes' journal says what really happened and when, and reports are held
against it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from dataclasses import replace
from functools import partial

from executor_conformance.contract import (
    FAILED,
    LEGAL_TRANSITIONS,
    SUCCESS,
    TERMINAL_STATES,
    TaskKey,
)
from executor_conformance.driving import Capability
from executor_conformance.harness.linux import monotonic
from executor_conformance.harness.probes import Gate, Probe
from executor_conformance.harness.trial import Subject, Trial, expect
from executor_conformance.rules import must, should
from executor_conformance.verdicts import Miscounted, NotApplicable, Stalled

#: Events of a burst that are taken while it goes on.
_TAKEN_AT_ONCE = 40


@must()
def an_exception_is_a_failure(trial: Trial) -> None:
    """A task that ends with an exception is reported ``failed``, and the next task runs.

    Why: a failure that is reported as success is the worst thing that a scheduler can be told.
    Likely causes: only the hand-over is watched, not the outcome; the worker dies of the exception.
    Origin: apache/airflow#47873; apache/airflow#64476 (a task's exception ends the scheduler).
    """
    subject = trial.started()
    bad = trial.probe("raise=on purpose")
    subject.run(bad)
    subject.expect_outcome(bad, FAILED, "a task that raised RuntimeError")
    good = trial.probe()
    subject.run(good)
    subject.expect_outcome(good, SUCCESS, "the task after one that raised")


@must(
    needs=(Capability.EXIT_STATUS,),
    after=("interface.command-kinds-tell-the-truth", "interface.runs-other-programs-as-they-stand"),
)
def every_exit_status_tells(trial: Trial) -> None:
    """Exit status 0 is ``success``; 1, 2, 3 and 255 are ``failed``.

    Why: the exit status is all that a command has to say.
    Likely causes: only status 1 counts as failure; the status is cut to one bit or compared as signed; an
    exit status above 127 is taken for a signal and dropped.
    Origin: apache/airflow#1199; apache/airflow#8030; apache/airflow#65833; apache/airflow#43300.
    """
    # Not by exit=0: what SystemExit means is the next rule's affair.
    codes = (1, 2, 3, 255)
    _expect_endings(trial, {"": SUCCESS, **{f"exit={code}": FAILED for code in codes}})
    subject = trial.started()
    if subject.can(Capability.ARGV):
        programs = {code: trial.program("/bin/sh", "-c", f"exit {code}") for code in (0, *codes)}
        subject.run(*programs.values())
        for code, program in programs.items():
            subject.expect_outcome(program, FAILED if code else SUCCESS, f"a program that exits with {code}")


@must(needs=(Capability.EXIT_STATUS,), after=("states.every-exit-status-tells",))
def system_exit_means_its_status(trial: Trial) -> None:
    """``SystemExit`` means what the interpreter makes of it: none, ``None`` and 0 are ``success``, a text is
    ``failed``.

    Why: ``sys.exit()`` is how Python programs end well; run inside a forked worker it is an exception, and
    both ways of running must agree.
    Likely causes: SystemExit is caught as any exception and always fails; its argument is taken for a number.
    Origin: Airflow 2.11's LocalExecutor in fork mode reports SystemExit(0) as failed.
    """
    _expect_endings(
        trial, {"exit=none": SUCCESS, "exit=None": SUCCESS, "exit=0": SUCCESS, "exit=text": FAILED}
    )
    subject = trial.started()
    if subject.can(Capability.CALLABLE):
        call = trial.probe("exit=3")
        subject.submit_callable(call)
        subject.await_terminal(call)
        subject.expect_outcome(call, FAILED, "a callable that ended with SystemExit(3)")


@must(needs=(Capability.EXIT_STATUS,), after=("states.every-exit-status-tells",))
def a_hard_exit_means_its_status(trial: Trial) -> None:
    """A task that leaves by ``os._exit`` is judged by its exit status like any other.

    Why: libraries written in C leave that way; no Python code of the worker runs afterwards.
    Likely causes: the outcome is reported by code that runs after the task in the same process; a worker that
    is gone is replaced and its task forgotten.
    Origin: apache/airflow#65833 (exit code lost).
    """
    trial.need_processes()
    _expect_endings(trial, {"_exit=3": FAILED, "_exit=255": FAILED})


def _expect_endings(trial: Trial, endings: dict[str, str]) -> None:
    subject = trial.started()
    probes = {step: trial.probe(*([step] if step else [])) for step in endings}
    subject.submit(*probes.values())
    subject.await_terminal(*probes.values())
    for step, state in endings.items():
        subject.expect_outcome(probes[step], state, f"a task that ended with {step or 'nothing to say'}")


@must(after=("isolation.a-task-can-be-interrupted",))
def death_by_signal_is_a_failure(trial: Trial) -> None:
    """A task that dies of a signal is reported ``failed``.

    Why: the kernel's memory killer sends SIGKILL, and a crash in C code is SIGSEGV; the task cannot say
    anything itself, so the executor has to see it.
    Likely causes: the worker waits for a message that the dead task cannot send; a negative return code is
    not counted as failure.
    Origin: apache/airflow#1157; apache/airflow#13215 (killed tasks never reported).
    """
    trial.need_processes()
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
        subject = trial.started()
        probe = trial.probe(f"kill={int(number)}")
        subject.run(probe)
        subject.expect_outcome(probe, FAILED, f"a task that died of {number.name}")
    if subject.can(Capability.ARGV):
        program = trial.program("/bin/sh", "-c", "kill -9 $$")
        subject = trial.started()
        subject.run(program)
        subject.expect_outcome(program, FAILED, "a program that died of SIGKILL")


@must(needs=(Capability.ARGV,))
def what_cannot_be_executed_fails(trial: Trial) -> None:
    """A missing program, a file that may not be executed and a module that is not there are refused or
    ``failed``, and the next task runs.

    Why: a wrong command is the most common mistake there is, and must not look like anything else.
    Likely causes: the exception of Popen ends the worker; the fork that cannot exec goes on as a second host.
    Origin: apache/airflow#16829; apache/airflow#71380.
    """
    subject = trial.started()
    plain = os.path.join(trial.scratch, "not-executable")
    with open(plain, "w") as file:
        file.write("#!/bin/sh\nexit 0\n")
    module = trial.probe()
    assert module.work.argv is not None
    for what, argv in {
        "a program that does not exist": ("/nonexistent/program",),
        "a name that is not on PATH": ("executor-conformance-no-such-program",),
        "a file that may not be executed": (plain,),
        "a directory": (trial.scratch,),
        "a module that does not exist": (*module.work.argv[:2], "executor_conformance.no_such_module"),
    }.items():
        probe = trial.program(*argv)
        if subject.refusal(lambda: subject.submit(probe)) is None:  # noqa: B023
            subject.await_terminal(probe)
            subject.expect_outcome(probe, FAILED, what)
        good = trial.probe()
        subject.run(good)
        subject.expect_outcome(good, SUCCESS, f"the task after {what}")


@must(after=("states.an-event-is-returned-once",))
def exactly_one_terminal_event(trial: Trial) -> None:
    """Every accepted task has exactly one terminal event, also after more pumping.

    Why: a second last word is taken for the next try's, or overwrites what was decided since.
    Likely causes: a result is collected in two places; buffered events are returned again; a worker's death
    and its result are both reported.
    Origin: apache/airflow#69975; apache/airflow#55004; apache/airflow#71580.
    """
    subject = trial.started()
    probes = [trial.probe(*steps) for steps in ((), ("raise=on purpose",), (), ("nap=0.01",))]
    subject.submit(*probes)
    subject.await_terminal(*probes)
    subject.quiet()
    _expect_one_terminal_event_each(subject, probes)


def _expect_one_terminal_event_each(subject: Subject, probes: list[Probe]) -> None:
    counts = dict.fromkeys((tuple(probe.key) for probe in probes), 0)
    for event in subject.history:
        if event.state in TERMINAL_STATES and event.key in counts:
            counts[event.key] += 1
    wrong = {key: count for key, count in counts.items() if count != 1}
    if wrong:
        raise Miscounted(
            awaited=f"exactly one terminal event for each of {len(probes)} tasks",
            seen=f"{len(wrong)} with another number, such as {next(iter(wrong.items()))}",
        )


@must(
    after=(
        "states.exactly-one-terminal-event",
        "states.a-submission-waits-for-no-slot",
    )
)
def only_legal_transitions(trial: Trial) -> None:
    """What is reported of a task goes queued, running, then success or failed; steps may be left out, none
    comes twice, and nothing follows a terminal event.

    Why: the scheduler acts on each event; one out of order takes a finished task back to running.
    Likely causes: events of several workers are merged without order; running is reported when the result is
    collected; a state is reported again at every sync.
    Origin: apache/airflow#21316; apache/airflow#66374; the transition table of this specification.
    """
    subject = trial.started()
    gate = trial.gate()
    probes = [*trial.probes(4, gate.step), trial.probe("raise=on purpose")]
    subject.submit(*probes)
    subject.quiet()
    gate.open()
    subject.await_terminal(*probes)
    subject.quiet()
    for probe in probes:
        last: str | None = None
        for event in subject.events_of(probe):
            expect(
                event.state in LEGAL_TRANSITIONS.get(last, ()),
                awaited=f"after {last!r} one of {sorted(LEGAL_TRANSITIONS.get(last, ())) or 'nothing'}",
                seen=f"{event.state!r}; {subject.story([probe])}",
            )
            last = event.state


@must()
def no_terminal_event_before_the_end(trial: Trial) -> None:
    """No terminal event comes before the task has ended.

    Why: what comes after a task is started on the strength of this event.
    Likely causes: success is reported when the task was handed over; the end of a wrapper process is taken
    for the end of the task.
    Origin: apache/airflow#72716; apache/airflow#23846.
    """
    subject = trial.started()
    gate = trial.gate()
    probes = trial.probes(2, gate.step)
    subject.submit(*probes)
    subject.await_started(*probes)
    subject.quiet()
    for probe in probes:
        expect(
            subject.outcome(probe) is None,
            awaited="no terminal event while the task runs",
            seen=f"{subject.outcome(probe)!r}; {subject.story([probe])}",
        )
    gate.open()
    subject.await_terminal(*probes)
    for probe in probes:
        event = next(event for event in subject.events_of(probe) if event.state in TERMINAL_STATES)
        ended = [run.finished_ns for run in probe.runs if run.finished_ns is not None]
        expect(
            ended and ended[0] <= event.at_ns,
            awaited="the terminal event after the task's end",
            seen=subject.story([probe]),
        )


@must(needs=(Capability.KEYS,))
def the_key_comes_back_whole(trial: Trial) -> None:
    """Each event carries the key of its own task, in all five fields.

    Why: two tries, or two mapped instances, of one task differ in one field only; mixed up, the wrong one is
    marked.
    Likely causes: the key is rebuilt from parts; a dict is keyed by task_id alone; results are matched to
    tasks by order; labels of another system are shorter than keys, or in lower case.
    Origin: apache/airflow#71580; Airflow's TaskInstanceKey has grown from three fields to five.
    """
    subject = trial.started(parallelism=3)
    base = TaskKey("dag", "task", "run", 1, -1)
    keys = [
        base,
        base._replace(dag_id="dag.other"),
        base._replace(task_id="group.task"),
        base._replace(run_id="manual__2026-01-01T00:00:00+00:00"),
        base._replace(try_number=2),
        base._replace(map_index=0),
        base._replace(map_index=1),
        base._replace(try_number=2, map_index=1),
        TaskKey("ünïcode ☃", "a b\tc", "", 11, 111),
        base._replace(task_id="Task"),
        *(base._replace(task_id="t" * 200 + end) for end in "ab"),
    ]
    # Failing and succeeding in turn, the later ones faster: a mix-up shows as a wrong state.
    probes = [
        trial.probe(
            "nap=0.02" if number < 3 else "nap=0", *(("raise=on purpose",) if number % 2 else ()), key=key
        )
        for number, key in enumerate(keys)
    ]
    subject.submit(*probes)
    subject.await_terminal(*probes)
    subject.quiet()
    known = {tuple(key) for key in keys}
    strange = [event.key for event in subject.history if event.key not in known]
    expect(not strange, awaited="events under the submitted keys only", seen=f"an event for {strange[:1]}")
    for number, probe in enumerate(probes):
        subject.expect_outcome(probe, FAILED if number % 2 else SUCCESS, f"{probe.key}")
    _expect_one_terminal_event_each(subject, probes)
    _expect_told_apart(trial, [(base, keys[-3]), (keys[-2], keys[-1])])


def _expect_told_apart(trial: Trial, pairs: list[tuple[TaskKey, TaskKey]]) -> None:
    """Two keys that are taken for one are mixed up by the order in which they come, or in which they end."""
    subject = trial.started(parallelism=2)
    runs = itertools.count()
    for pair, last_ends_first in itertools.product([*pairs, *(pair[::-1] for pair in pairs)], (False, True)):
        run_id = f"run-{next(runs)}"
        gates = [trial.gate() for _ in pair]
        probes = [
            trial.probe(gate.step, key=key._replace(run_id=run_id))
            for gate, key in zip(gates, pair, strict=True)
        ]
        subject.submit(*probes)
        order = [0, 1]
        last = probes[1]
        if last_ends_first and trial.comes_true(partial(getattr, last, "started"), pump=subject.pump):
            order.reverse()
        for place in order:
            gates[place].open()
            subject.await_terminal(probes[place])
            subject.expect_outcome(probes[place], SUCCESS, f"{probes[place].key}")
        _expect_one_terminal_event_each(subject, probes)


@must()
def an_event_is_returned_once(trial: Trial) -> None:
    """``get_event_buffer`` returns each event once.

    Why: the scheduler handles what it is given; what it is given again it handles again.
    Likely causes: the buffer is returned but not emptied; a copy is emptied instead.
    Origin: Airflow's BaseExecutor.get_event_buffer; apache/airflow#55004.
    """
    subject = trial.started()
    probes = trial.probes(2)
    subject.submit(*probes)
    subject.await_terminal(*probes)
    subject.drain_all()  # a ``running`` event of the same moment may still be there
    again = [*subject.drain(), *subject.drain()]
    expect(
        not again, awaited="an empty buffer after it was drained", seen=f"again: {again[0] if again else ''}"
    )


@must(
    needs=(
        Capability.EVENT_FILTER,
        Capability.KEYS,
    ),
    after=(
        "states.no-terminal-event-before-the-end",
        "states.the-key-comes-back-whole",
    ),
)
def the_filter_flushes_what_it_returns(trial: Trial) -> None:
    """``get_event_buffer(dag_ids)`` returns, and takes out, only the events of these DAGs.

    Why: several schedulers, or a backfill, share an executor; one must not swallow the other's events.
    Likely causes: the buffer is emptied whatever the filter; the filter is ignored; it is compared with the
    whole key.
    Origin: Airflow's BaseExecutor.get_event_buffer(dag_ids).
    """
    subject = trial.started()
    wanted = [trial.probe(key=TaskKey("wanted", f"task-{n}", "run")) for n in range(2)]
    others = [trial.probe(key=TaskKey("other", f"task-{n}", "run")) for n in range(2)]
    gate_key = TaskKey("wanted-too", "task", "run")
    similar = trial.probe(key=gate_key)
    subject.submit(*wanted, *others, similar)
    subject.await_finished(*wanted, *others, similar)

    def take_wanted() -> None:
        subject.beat()
        subject.drain([])  # of no DAG, which is not "of all"
        subject.drain(["wanted"])

    trial.until(
        lambda: all(subject.outcome(probe) for probe in wanted),
        awaited="the events of the DAG that was asked for",
        seen=lambda: subject.story(wanted),
        pump=take_wanted,
    )
    trial.quiet(take_wanted)  # until the others are in the buffer too
    strangers = {event.key[0] for event in subject.history} - {"wanted"}
    expect(not strangers, awaited="only events of the DAG that was asked for", seen=f"events of {strangers}")
    subject.await_terminal(*others, similar)
    _expect_one_terminal_event_each(subject, [*wanted, *others, similar])


@must(after=("states.no-terminal-event-before-the-end",))
def a_submission_waits_for_no_slot(trial: Trial) -> None:
    """While all slots are taken, a submission returns at once: what cannot start is the executor's to keep.

    Why: the scheduler submits in the loop in which it learns that tasks have ended; held up there, it gives
    no slot back, sees no event and serves no other executor.
    Likely causes: a semaphore or a queue bounds what is in flight; the task runs in the caller; the call
    waits until a worker has taken the task.
    Origin: apache/airflow#70526 (the scheduler stands still while it hands over a task); in
    bounded-pool-executor 0.0.3 it waits there for a slot.
    """
    subject = trial.started()
    gate = trial.gate()
    held = trial.probes(2, gate.step)
    waiting = trial.probes(4)
    subject.submit(*held)
    subject.await_started(*held)
    shortest = min(_duration(partial(subject.submit, probe)) for probe in waiting)
    expect(
        shortest < trial.budgets.block_s,
        awaited=f"a submission to return within {trial.budgets.block_s:.1f} s while 2 of 2 slots are taken",
        seen=f"{shortest:.2f} s at the least, in {len(waiting)} calls",
    )
    gate.open()
    subject.await_terminal(*held, *waiting)


@must(after=("states.no-terminal-event-before-the-end", "states.a-submission-waits-for-no-slot"))
def sync_waits_for_no_task(trial: Trial) -> None:
    """While tasks run and wait, every call of the scheduler's loop returns at once.

    Why: one loop serves all tasks of all DAGs; whatever waits in it for one task stops the others.
    Likely causes: sync() joins a worker or takes a result without a timeout of zero; a lock is held while a
    task runs; tasks are run in the caller.
    Origin: apache/airflow#71380; apache/airflow#37979; Airflow's SequentialExecutor blocks in heartbeat().
    """
    subject = trial.started()
    gate = trial.gate()
    held = trial.probes(2, gate.step)
    waiting = trial.probes(3)
    subject.submit(*held, *waiting)
    subject.await_started(*held)
    for name, call in {
        "sync()": subject.sync,
        "heartbeat()": subject.beat,
        "get_event_buffer()": subject.drain,
    }.items():
        shortest = min(_duration(call) for _ in range(4))
        expect(
            shortest < trial.budgets.block_s,
            awaited=f"{name} to return within {trial.budgets.block_s:.1f} s while 2 tasks run",
            seen=f"{shortest:.2f} s at the least, in 4 calls",
        )
    expect(
        not any(subject.outcome(probe) for probe in held),
        awaited="the tasks to go on running",
        seen=subject.story(held),
    )
    gate.open()
    subject.await_terminal(*held, *waiting)


def _duration(call: object) -> float:
    began = monotonic()
    call()  # type: ignore[operator]
    return monotonic() - began


@must(
    after=(
        "interface.passes-arguments-unchanged",
        "interface.runs-other-programs-as-they-stand",
        "states.every-exit-status-tells",
        "states.no-terminal-event-before-the-end",
        "states.only-legal-transitions",
    )
)
def a_burst_loses_nothing(trial: Trial) -> None:
    """Of hundreds of short tasks at once none is lost, run twice, reported twice or mixed up, also where most
    end before anybody takes an event.

    Why: this is Monday morning: races between hand-over, workers and collection show under load.
    Likely causes: events are kept in a structure that two threads change, or in one that keeps the latest
    few; a result that arrives while another is handled is dropped; a full pipe is not waited for.
    Origin: apache/airflow#69975; apache/airflow#19769; apache/airflow#28120.
    """
    # About four seconds of work for a slow executor, and never less than two hundred tasks.
    subject = trial.started(parallelism=4)
    pace = max(trial.facts.first_task_s, 0.002)
    probes = _burst(subject, count=200 if pace > 0.05 else 300, by_shell=pace > 0.012)
    subject.submit(*probes)
    subject.await_terminal(*probes[:_TAKEN_AT_ONCE])
    with contextlib.suppress(Stalled):  # an executor may wait until its events have been taken
        subject.await_finished(*probes)
    subject.await_terminal(*probes)
    subject.quiet()
    _expect_one_terminal_event_each(subject, probes)
    for number, probe in enumerate(probes):
        subject.expect_outcome(probe, FAILED if number % 7 == 3 else SUCCESS, f"task {number} of the burst")
        expect(len(probe.runs) == 1, awaited=f"task {number} to run once", seen=f"{len(probe.runs)} runs")
    trial.measurements["tasks"] = len(probes)


def _burst(subject: Subject, count: int, by_shell: bool) -> list[Probe]:
    trial = subject.trial
    probes = []
    for number in range(count):
        probe = trial.probe(*(("raise=on purpose",) if number % 7 == 3 else ()))
        if by_shell and subject.can(Capability.ARGV) and number % 8:
            # Where each probe costs a new interpreter most are the same record written by a shell.
            probe = trial.shell_probe(exit_status=int(number % 7 == 3))
        probes.append(probe)
    return probes


@must(needs=(Capability.KEYS,), after=("states.a-submission-waits-for-no-slot",))
def a_key_in_flight_never_runs_twice_at_once(trial: Trial) -> None:
    """A key that is submitted again while its task waits or runs never runs twice at the same time.

    Why: two runs of one try write to the same place; the scheduler submits again when it has lost track.
    Likely causes: nothing remembers which keys are in flight; a waiting key is put on the queue again.
    Origin: apache/airflow#28206; Airflow 3.3's LocalExecutor runs it twice.
    """
    for priority in trial.build().ways_to_submit:
        subject = trial.started()
        gate = trial.gate()
        running = trial.probes(2, gate.step)
        subject.submit(*running)
        subject.await_started(*running)
        _expect_no_overlap(subject, running[0], gate, priority)
        subject = trial.started()
        first_gate, gate = trial.gate(), trial.gate()
        blockers = trial.probes(2, first_gate.step)
        subject.submit(*blockers)
        subject.await_started(*blockers)
        waiting = trial.probe(gate.step)
        subject.submit(waiting)
        subject.quiet()
        _expect_no_overlap(subject, waiting, gate, priority, then_open=first_gate)


def _expect_no_overlap(
    subject: Subject, first: Probe, gate: Gate, priority: int | None, then_open: Gate | None = None
) -> None:
    trial = subject.trial
    again = trial.probe(gate.step, key=first.key)
    accepted = subject.refusal(lambda: subject.submit(again, priority=priority)) is None
    both = [first, again]
    if then_open is not None:
        then_open.open()
        subject.until(
            lambda: any(probe.started for probe in both),
            awaited="the waiting task to start",
            stalled=True,
            seen=lambda: subject.story(both),
        )
    trial.quiet(subject.pump, trial.budgets.quiet_s * 2)
    gate.open()
    subject.await_terminal(first)
    subject.quiet()
    runs = sorted((run for probe in both for run in probe.runs), key=lambda run: run.started_ns)
    for earlier, later in itertools.pairwise(runs):
        expect(
            earlier.finished_ns is not None and earlier.finished_ns <= later.started_ns,
            awaited=f"one run at a time of {tuple(first.key)}, which was submitted again while in flight",
            seen=f"two at once, in processes {earlier.pid} and {later.pid}"
            + ("" if accepted else ", although the second submission was refused"),
        )


@must(needs=(Capability.KEYS,), after=("states.the-key-comes-back-whole",))
def a_new_try_runs(trial: Trial) -> None:
    """After a try has ended, the next try of the same task runs and is reported under its own key.

    Why: this is a retry; the end of the first try must not be taken for the second's.
    Likely causes: keys are remembered for ever; the try number is not part of what is compared.
    Origin: apache/airflow#71580; apache/airflow#72716; apache/airflow#66374.
    """
    subject = trial.started()
    key = TaskKey("dag", "retried", "run", 1, -1)
    first, second = trial.probe("raise=on purpose", key=key), trial.probe(key=key._replace(try_number=2))
    subject.run(first)
    subject.run(second)
    subject.quiet()
    subject.expect_outcome(first, FAILED, "the first try")
    subject.expect_outcome(second, SUCCESS, "the second try")
    expect(second.finished, awaited="the second try to have run", seen="it was reported, but never ran")
    _expect_one_terminal_event_each(subject, [first, second])


@should(
    needs=(Capability.KEYS,),
    after=(
        "states.a-new-try-runs",
        "states.only-legal-transitions",
        "states.exactly-one-terminal-event",
    ),
)
def a_finished_key_can_run_again(trial: Trial) -> None:
    """A key whose task has ended may be submitted again and runs again.

    Why: a deferred or rescheduled task comes back under the same key.
    Likely causes: keys are remembered for ever; the second submission is dropped without a word.
    Origin: apache/airflow#21316; apache/airflow#23846.
    """
    subject = trial.started()
    first = trial.probe("raise=on purpose")
    subject.run(first)
    subject.expect_outcome(first, FAILED, "the first run")
    again = trial.probe(key=first.key)
    seen_before = len(subject.events_of(first))
    subject.submit(again)
    subject.until(
        lambda: any(event.state in TERMINAL_STATES for event in subject.events_of(first)[seen_before:]),
        awaited="a terminal event for a finished key that was submitted again",
        seen=lambda: subject.story([again]),
    )
    state = subject.events_of(first)[-1].state
    expect(state == SUCCESS and again.finished, awaited="the second run to succeed", seen=f"{state!r}")


@must(after=("states.exactly-one-terminal-event", "parallelism.n-is-reached"))
def equal_commands_run_each(trial: Trial) -> None:
    """Tasks with the same command run each, side by side and one after the other.

    Why: a task is known by its key; what it does to the world is wanted each time, and a copy of an earlier
    success is a task that never ran.
    Likely causes: tasks are known by their command, or by a digest of it; a library below takes functions for
    pure, as ``Client.submit()`` of Dask does.
    Origin: dask/distributed#2022; dask/distributed#2015; PrefectHQ/prefect-dask#31 (equal calls run once).
    """
    subject = trial.started(parallelism=2)
    gate = trial.gate()
    one = trial.probe(gate.step)
    argv = one.work.argv
    # Lists of their own, because some executors take words out of what they are given.
    works = [replace(one.work, argv=None if argv is None else list(argv)) for _ in range(2)]
    other, later = (replace(one, key=trial.probe().key, work=work) for work in works)
    subject.submit(one, other)
    subject.until(
        lambda: len(one.runs) == 2,
        awaited="two tasks with the same command to run side by side",
        seen=lambda: f"{len(one.runs)} runs",
    )
    gate.open()
    subject.await_terminal(one, other)
    subject.submit(later)
    subject.await_terminal(later)
    subject.until(
        lambda: len(one.runs) == 3,
        awaited="a third task with the same command, after the others, to run too",
        seen=lambda: f"{subject.outcome(later)!r}, and {len(one.runs)} runs in all",
    )
    for probe in (one, other, later):
        subject.expect_outcome(probe, SUCCESS, "one of three tasks with the same command")


@must(needs=(Capability.RESULTS,))
def a_result_belongs_to_its_task(trial: Trial) -> None:
    """Where results travel, each task gets its own.

    Why: a swapped result is wrong data without an error.
    Likely causes: results are matched to tasks by order of arrival; a result is kept in one place for all.
    Origin: concurrent.futures: Future.result() is the value that this call returned.
    """
    subject = trial.started(parallelism=3)
    probes = [trial.probe("nap=0.01" if number % 3 == 0 else "nap=0") for number in range(12)]
    subject.submit(*probes)
    subject.await_terminal(*probes)
    if all(subject.info(probe) is None for probe in probes):
        raise NotApplicable("no result came with the events")
    for probe in probes:
        info = subject.info(probe)
        expect(
            type(info) is str and info == probe.name,
            awaited=f"the result {probe.name!r} of {probe}",
            seen=repr(info)[:120],
        )
