"""How long a task waits for its first instruction although there is a slot for it.

Queued time runs from the call of ``execute_async()`` to the first instruction of the task, by one monotonic
clock.  Whether the task was forked or has a new interpreter is seen in its memory, and decides what it may
cost: 0.1 s or 1.5 s, or 25 times what a fork or an interpreter costs on this machine, whichever is more.
A median is decided sample by sample, until the word is wrong once in 10,000 (once in 400 where each takes
seconds); one that is above its budget is taken again, with a budget that grows as the machine has become
slower since its calibration: the field's figures to twice what they are, those of the machine as it has.
"""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from executor_conformance.contract import TaskKey
from executor_conformance.driving import Capability
from executor_conformance.harness.calibration import fork_here_s, interpreter_here_s, times_out_of_processor
from executor_conformance.harness.linux import monotonic, monotonic_ns, process_time, sleep, thread_time
from executor_conformance.harness.memory import MB, ballast, has_room_for
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.timing import (
    AtAnyMoment,
    ShareAbove,
    distribution,
    quantile,
    recurring_interval_s,
)
from executor_conformance.harness.trial import Subject, Trial, expect
from executor_conformance.rules import must, should
from executor_conformance.verdicts import Inconclusive, NotApplicable

#: The field's own figures (Airflow: 1.5 s with a new interpreter for each task, 0.1 s with a fork).
_FORKED_S, _INTERPRETER_S = 0.1, 1.5
#: Times the machine's own cost of such a process.
_TIMES, _TIMES_TIGHT, _TIMES_LARGE = 25, 6, 4
#: The field's own figures are slow already: a machine excuses so many times them, and its own cost in full.
_MOST_EXCUSED = 2.0
_TIGHT_S = 0.005
#: Samples by which a plain case is decided, however slow the executor is.
_ENOUGH = 12
#: Where these take so many seconds, so many do if all of them are above: it will be asked again.
_FEW, _SLOW_S = 5, 10.0
#: After so many seconds it is not asked again.
_LONG_S = 25.0
#: The latest tasks may wait so many times longer than the median.
_TAIL = 3
_WARM_UP, _MOST, _MOST_OF_A_TAIL = 2, 120, 250
#: Who has been late gets so many times the time, until it is sure.
_STRETCHES_OF_A_TAIL = 4
_LATENCY_S = 1.0
_FAILING = ("raise=on purpose",)
_LONGEST_PHASE_S, _PHASES = 0.08, 24
#: So many of them come after a long rest, because some intervals grow while nothing happens.
_RESTS, _REST_S = 3, 0.5
_ROUNDS = 3
#: Longer than most timeouts of who waits for work; and what comes after it takes every slot.
_LONG_REST_S, _LONG_RESTS, _PUMP_EVERY_S = 5.0, 3, 0.1
#: Tasks that come at once, how often until they start at once, and how often the host looks after them.
_TOGETHER, _BURSTS, _BETWEEN_PUMPS_S = 8, 6, 0.001
#: Times the cost of each of their processes.
_TIMES_TOGETHER = 3
#: So many times as many tasks, where a limit on the processor delays some.
_TRIES = 3
#: Where the machine itself scatters so much that nothing would show.
_MOST_ROUNDS = 6
_BALLAST = 150 * MB
_HUNDREDS, _BATCH = 600, 20
_LONG_COMMAND = 100_000
_BACKLOGS = (100, 1_000, 10_000)
#: Where a submission takes milliseconds, so many will do.
_LEAST_BACKLOG = 2_000
#: By the priority that they are called with.
_CALLS = {None: "execute_async()", 1: "queue_command()"}
#: Calls are measured for so many seconds, and so many of them however long they take.
_CALLS_S, _FEW_CALLS = 2.0, 3
#: Of a processor.
_IDLE_SHARE = 0.1
_NAP_S = 0.6


@dataclass(frozen=True)
class _Circumstances:
    """Of the tasks that are measured.

    :param steps: what each of them does.
    :param way: how it is handed over (:attr:`Subject.ways`).
    :param limited: by two slots; else the executor has no limit.
    :param beside_one: while another task runs.
    :param is_new_try: it is another try of a task that has just failed.
    :param past: when so many tasks have ended, or as many as there is time for.
    """

    steps: Sequence[str] = ()
    way: str = "execute_async()"
    limited: bool = True
    beside_one: bool = False
    is_new_try: bool = False
    past: int = 0


@must()
def the_first_instruction_comes_soon(trial: Trial) -> None:
    """On an idle executor a task reaches its first instruction within 0.1 s, with a new interpreter in 1.5 s
    (in the median; or 25 times what such a process costs on the machine, where that is more).

    Why: a pipeline of short tasks spends its time waiting for slots that are free.
    Likely causes: tasks are handed over by a loop that sleeps; a new interpreter imports the world before the
    task; the executor forks a large process.
    Origin: Airflow's LocalExecutor took 1.5 s with a new interpreter and 0.1 s with a fork (commit 4839a5b).
    """
    _expect_median_within(trial, partial(_budget_s, trial), "the first instruction of a task")


@must(after=("queued_time.the-first-instruction-comes-soon", "parallelism.n-is-reached"))
def a_slot_beside_a_busy_one_is_as_quick(trial: Trial) -> None:
    """While a task runs, another that is submitted to a free slot reaches its first instruction within the
    same time as on an idle executor.

    Why: executors are hardly ever idle; a budget that is kept on idle ones only is kept by chance.
    Likely causes: a busy executor looks for new tasks less often; new tasks are looked for between two looks
    at those that run, each of which waits for a while.
    Origin: apache/airflow#28120 (tasks stay queued while slots are free).
    """
    _expect_median_within(
        trial,
        partial(_budget_s, trial),
        "the first instruction of a task beside one that runs",
        _Circumstances(beside_one=True),
    )


@must(after=("queued_time.the-first-instruction-comes-soon",))
def no_task_waits_far_longer(trial: Trial) -> None:
    """One task in fifty, at the most, waits three times longer than the median may.

    Why: a run of many tasks is as late as its latest; and whoever waits for that one sees no reason.
    Likely causes: every so often a worker is replaced while tasks wait for it; a lost wake-up is made up for
    by a timeout; a retry after a refused connection.
    Origin: Airflow 3's supervisor is late by a whole heartbeat interval with some tasks in a hundred.
    """
    for _ in range(2):
        tail = _look_at_the_tail(trial)
        trial.measurements["queued_time"] = distribution(tail.samples)
        trial.measurements["budget_s"] = round(tail.budget_s, 6)
        # A slow executor gets few samples; if none of them was late, there is nothing against it.
        if tail.is_above is False or not tail.above:
            return
    if tail.is_above is None:
        raise Inconclusive(f"{tail.above} of {len(tail.samples)} tasks were late, too few to be sure")
    expect(
        False,
        awaited=f"one task in fifty, at the most, to wait longer than {tail.budget_s:.3f} s",
        seen=f"{tail.above} of {len(tail.samples)} did, the longest {max(tail.samples):.3f} s; "
        f"{statistics.median(tail.samples):.4f} s in the median",
    )


@should(
    needs=(Capability.ARGV,),
    after=(
        "interface.runs-other-programs-as-they-stand",
        "queued_time.the-first-instruction-comes-soon",
    ),
)
def a_fork_is_faster_than_an_interpreter(trial: Trial) -> None:
    """Where some tasks are forked and others get a new interpreter, the forked ones start sooner.

    Why: this is what forking is for; all that it costs in care is paid in vain otherwise.
    Likely causes: the fork imports all anew; a new interpreter is started beside it; the forked process is
    large.
    Origin: Airflow forks its tasks since that made 0.1 s of 1.5 s (commit 4839a5b).
    """
    subject = trial.started(parallelism=2)
    decision = ShareAbove(0.0)
    forked_s, interpreter_s = [], []
    for number in range(_WARM_UP + 60):
        forked, first = _one(subject)
        if not _is_forked(trial, forked):
            raise NotApplicable("its tasks have new interpreters, as was seen in their memory")
        other, second = _one(subject, trial.probe_as_program())
        if _is_forked(trial, other):
            raise NotApplicable("no command gets it to start a new interpreter")
        if number >= _WARM_UP:
            forked_s.append(first)
            interpreter_s.append(second)
            decision.add(first - second)
            if decision.is_above is not None:
                break
    subject.end()
    trial.measurements["forked"] = distribution(forked_s)
    trial.measurements["interpreter"] = distribution(interpreter_s)
    if decision.is_above is None:
        raise Inconclusive("sometimes the one is faster and sometimes the other")
    expect(
        not decision.is_above,
        awaited="a forked task to start sooner than one with a new interpreter",
        seen=f"medians of {statistics.median(forked_s) * 1e3:.1f} ms and "
        f"{statistics.median(interpreter_s) * 1e3:.1f} ms",
    )


@should(
    after=(
        "queued_time.the-first-instruction-comes-soon",
        "queued_time.no-task-waits-far-longer",
        "queued_time.a-fork-is-faster-than-an-interpreter",
    )
)
def no_polling_interval_shows(trial: Trial) -> None:
    """Tasks that are submitted at any moments wait equally long: no interval shows between them.

    Why: an interval of polling is added to every task, half of it in the mean, on the idlest machine.
    Likely causes: a loop that sleeps between two looks into its queue, the longer the more often there was
    nothing; a timeout instead of a wake-up.
    Origin: Airflow's schedulers add a heartbeat interval to each task (apache/airflow#28120).
    """
    chance = random.Random(trial.seed)
    shown, not_shown = 0, 0.0
    looks: list[tuple[list[float], list[float]]] = []
    for _ in range(_MOST_ROUNDS):
        look = _look_for_an_interval(trial, chance, looks)
        if look is None:
            continue
        trial.measurements |= look.measurements()
        if look.shows:
            shown += look.says > 0
        else:
            not_shown += look.says
        if not_shown >= 1:
            return
        if shown == _ROUNDS:
            break
    else:
        raise Inconclusive(
            "the machine itself scatters, or stops, so much that an interval of polling would not show"
        )
    expect(
        False,
        awaited=f"the queued times of tasks submitted at any moments within {look.allowed_s * 1e3:.0f} ms of "
        f"each other (from the 10th percentile to the 90th; {look.allowed_to_median_s * 1e3:.0f} ms to the "
        "median), and not the shorter the later they come, nor in step with a clock",
        seen=f"{look.spread_s * 1e3:.0f} ms ({look.to_median_s * 1e3:.0f} ms), three times: an "
        f"interval of about {look.spread_s * 1.25e3:.0f} ms shows; correlation with the moment "
        f"{look.follows:.2f}, {f'in step with {look.recurs_s * 1e3:.0f} ms' if look.recurs_s else 'no step'}",
    )


@should(
    after=(
        "queued_time.the-first-instruction-comes-soon",
        "queued_time.no-polling-interval-shows",
        "queued_time.a-fork-is-faster-than-an-interpreter",
    )
)
def a_task_costs_little_more_than_its_process(trial: Trial) -> None:
    """Queued time is within 5 ms and six times what the machine needs for such a process (in the median).

    Why: what is beyond that is the executor's own.
    Likely causes: a new connection or import for each task; several processes for one; work that could be
    done before or after.
    Origin: Airflow's commit 4839a5b, by which queued time fell from 1.5 s to 0.1 s.
    """
    _expect_median_within(
        trial,
        lambda probe, slowdown: (
            min(slowdown, _MOST_EXCUSED) * (_TIGHT_S + _TIMES_TIGHT * _start_cost_s(trial, probe))
        ),
        "the first instruction of a task",
    )


@must(
    after=(
        "queued_time.the-first-instruction-comes-soon",
        "parallelism.never-more-than-n",
        "parallelism.no-slot-stays-idle",
    )
)
def a_free_slot_is_filled_at_once(trial: Trial) -> None:
    """When a task ends, the next one in line reaches its first instruction as soon as on an idle executor.

    Why: a scheduler's slots are taken nearly always; what passes between two tasks is lost for good.
    Likely causes: waiting tasks are looked at by a timer of their own; the end of a task frees its slot late,
    or that of a failure.
    Origin: apache/airflow#19769; apache/airflow#28120 (tasks stay queued while slots are free).
    """
    for _ in range(2):
        subject = trial.started(parallelism=1)
        first = trial.probe()
        others = [trial.probe(*(_FAILING if number % 2 else ())) for number in range(40)]
        subject.run(first)  # whatever is made for the first task is made
        subject.submit(*others)
        budget_s = _budget_s(trial, first, max(trial.slowdown(), 1.0))
        subject.await_terminal(*others)
        subject.await_started(*others)
        failures = {probe.name for probe in others[1::2]}
        runs = sorted((probe.runs[0] for probe in others), key=lambda run: run.started_ns)
        gaps = {"a success": ShareAbove(budget_s), "a failure": ShareAbove(budget_s)}
        for before, after in itertools.pairwise(runs):
            what = "a failure" if before.probe in failures else "a success"
            gaps[what].add(max(after.started_ns - (before.finished_ns or after.started_ns), 0) / 1e9)
        subject.end()
        trial.measurements["gap"] = distribution([gap for some in gaps.values() for gap in some.samples])
        if all(some.is_above is False for some in gaps.values()):
            return
    for what, some in gaps.items():
        expect(
            not some.is_above,
            awaited=f"the next task within {budget_s:.3f} s of the end of {what} (median)",
            seen=f"{statistics.median(some.samples):.3f} s in the median of {len(some.samples)}",
        )
    late = sum(some.above for some in gaps.values())
    raise Inconclusive(f"{late} of {len(runs)} tasks came late, too few to be sure")


@should(after=("states.no-terminal-event-before-the-end", "states.exactly-one-terminal-event"))
def the_end_of_a_task_is_told_within_a_second(trial: Trial) -> None:
    """The terminal event is in the buffer within a second of the task's end, be it a success or a failure.

    Why: what depends on the task cannot start before; a thousand tasks in a row make it a quarter of an hour.
    Likely causes: results are polled for; a heartbeat interval is waited out before the end is looked at.
    Origin: Airflow 3's supervisor tells the end of some tasks 5 s late (its heartbeat interval).
    """
    subject = trial.started(parallelism=2)
    latencies: list[float] = []
    late: list[float] = []
    for _ in range(2):
        successes, failures = _samples(subject, 20), _samples(subject, 20, _Circumstances(_FAILING))
        for probe, _ in itertools.chain.from_iterable(zip(successes, failures, strict=False)):
            event = next(event for event in subject.events_of(probe) if event.state in ("success", "failed"))
            finished = probe.runs[0].finished_ns
            if finished is not None:
                latency = max(event.at_ns - finished, 0) / 1e9
                if latency > _LATENCY_S:
                    latency /= min(max(trial.slowdown(), 1.0), _MOST_EXCUSED)
                latencies.append(latency)
        late = [latency for latency in latencies if latency > _LATENCY_S]
        if len(late) != 1:  # a single one may be the machine's
            break
    if not latencies:
        raise NotApplicable("no task was seen to end")
    trial.measurements["latency"] = distribution(latencies)
    expect(
        len(late) < 2,
        awaited=f"the event of each task within {_LATENCY_S:.0f} s of its end",
        seen=f"{len(late)} of {len(latencies)} came later, the latest after {max(latencies):.2f} s",
    )


@should(
    after=(
        "queued_time.no-task-waits-far-longer",
        "queued_time.a-task-costs-little-more-than-its-process",
    )
)
def a_large_host_delays_no_task(trial: Trial) -> None:
    """With 150 MB of objects in the host a task waits no longer than the fork of such a host explains.

    Why: schedulers are large; their heap is not the task's affair.
    Likely causes: garbage is collected, or the heap is looked through, for each task; the host is forked
    several times for one.
    Origin: a fork of a process takes 33 microseconds for each MB (Linux 6.18), and a collection far more.
    """
    if not has_room_for(_BALLAST):
        raise NotApplicable(
            f"the machine has not {_BALLAST // MB} MB to spare for the host, and for each worker"
        )
    small = trial.started(parallelism=2)
    without = statistics.median(seconds for _, seconds in _samples(small, 15))
    small.end()
    held = ballast(_BALLAST)
    trial.measurements["without_s"] = round(without, 6)
    _expect_median_within(
        trial,
        lambda _, __: _TIGHT_S + 1.5 * without + _TIMES_LARGE * (fork_here_s(1) or 0.0),
        f"the first instruction of a task beside {_BALLAST // MB} MB in the host",
        is_of_now=True,
    )
    del held


@should(
    after=(
        "states.a-burst-loses-nothing",
        "queued_time.no-task-waits-far-longer",
        "queued_time.a-task-costs-little-more-than-its-process",
    )
)
def what_has_ended_delays_nothing(trial: Trial) -> None:
    """After hundreds of tasks the next one waits no longer than the first ones did.

    Why: an executor runs for months; what it does for each ended task, it does again for every new one.
    Likely causes: a file or a table of all tasks is read for each of them; a list of them is searched; what
    was opened for each has to be looked through.
    Origin: apache/airflow#62212 (a scheduler that has run for long is slower than a new one).
    """
    young = trial.started(parallelism=2)
    without = statistics.median(seconds for _, seconds in _samples(young, 15))
    young.end()
    trial.measurements["without_s"] = round(without, 6)
    _expect_median_within(
        trial,
        lambda _, __: _TIGHT_S + 1.5 * without + _TIMES_LARGE * (fork_here_s(1) or 0.0),
        f"the first instruction of a task after {_HUNDREDS} others",
        _Circumstances(past=_HUNDREDS),
        is_of_now=True,
    )


@should(
    needs=(Capability.ARGV,),
    after=(
        "interface.passes-arguments-unchanged",
        "queued_time.no-task-waits-far-longer",
        "queued_time.a-task-costs-little-more-than-its-process",
    ),
)
def a_long_command_waits_no_longer(trial: Trial) -> None:
    """A task with 100 KB of arguments waits no longer than a short one.

    Why: arguments carry lists of files, queries and documents; who passes one must not pay in seconds.
    Likely causes: what is longer than a pipe or a message goes by a file that is looked for by a timer; it is
    sent in pieces with a rest between them.
    Origin: the contract; a pipe of Linux holds 64 KiB, and one word of a command 128.
    """
    subject = trial.started(parallelism=2)
    without = statistics.median(seconds for _, seconds in _samples(subject, 15))
    subject.end()
    trial.measurements["without_s"] = round(without, 6)
    _expect_median_within(
        trial,
        lambda _, __: _TIGHT_S + 1.5 * without + _TIMES_LARGE * (fork_here_s(1) or 0.0),
        f"the first instruction of a task with {_LONG_COMMAND} bytes of arguments",
        _Circumstances((f"pad={'x' * _LONG_COMMAND}",)),
        is_of_now=True,
    )


@must(
    after=(
        "states.a-burst-loses-nothing",
        "states.a-submission-waits-for-no-slot",
        "parallelism.never-more-than-n",
    )
)
def a_submission_costs_the_same_however_many_wait(trial: Trial) -> None:
    """``execute_async()`` and ``queue_command()`` cost as much with 10,000 tasks waiting as with a hundred.

    Why: the scheduler submits in its loop; a cost that grows with the backlog stops it when it matters most.
    Likely causes: the backlog is sorted at each submission; it is copied or searched.
    Origin: the contract: the backlog is the executor's, and may be any.
    """
    for priority in trial.build().ways_to_submit:
        subject = _with_full_slots(trial)
        costs = {}
        for size in _BACKLOGS:
            reached = _grow_backlog(subject, size, priority)
            spare = trial.probes(75)
            costs[reached] = _cheapest(lambda: subject.submit(spare.pop(), priority=priority))  # noqa: B023
            if reached < size:
                break
        name = _CALLS[priority]
        trial.measurements[f"submission_s by {name}"] = {str(size): cost for size, cost in costs.items()}
        few, many = min(costs), max(costs)
        expect(
            costs[many] < 5 * costs[few] + 50e-6,
            awaited=f"{name} beside {many} waiting tasks to cost less than five times one beside {few}",
            seen=f"{costs[many] * 1e6:.0f} microseconds of processor time, and {costs[few] * 1e6:.0f}",
        )
        if many < _LEAST_BACKLOG:
            raise Inconclusive(f"{many} submissions took too long to wait for {_LEAST_BACKLOG}")


@must(
    after=(
        "states.a-submission-waits-for-no-slot",
        "queued_time.a-submission-costs-the-same-however-many-wait",
        "faults.a-backlog-never-blocks-the-host",
    )
)
def a_sync_costs_no_more_for_each_waiting_task(trial: Trial) -> None:
    """What ``sync()`` costs grows no faster than the number of tasks that wait.

    Why: the scheduler calls it in its loop; one that compares all with all stops it when it matters most.
    Likely causes: a list is searched for each of its own items; the backlog is sorted by a key that searches.
    Origin: the contract: the backlog is the executor's, and may be any.
    """
    for priority in trial.build().ways_to_submit:
        subject = _with_full_slots(trial)
        sizes, costs = [], []
        for size in _BACKLOGS[1:]:
            sizes.append(_grow_backlog(subject, size, priority))
            subject.beat()  # what it does with the new ones once, it has done
            costs.append(_cheapest(subject.beat, times=5))
        if sizes[1] < _LEAST_BACKLOG:
            raise Inconclusive(f"{sizes[1]} submissions took too long to wait for {_LEAST_BACKLOG}")
        waiting = f"tasks that came by {_CALLS[priority]}"
        trial.measurements[f"sync_s beside {waiting}"] = dict(zip(map(str, sizes), costs, strict=True))
        times = sizes[1] / sizes[0]
        expect(
            costs[1] < 3 * times * costs[0] + 0.01,
            awaited=f"sync() beside {sizes[1]} {waiting} to cost about {times:.0f} times what it costs "
            f"beside {sizes[0]}",
            seen=f"{costs[1] * 1e3:.1f} ms of processor time, and {costs[0] * 1e3:.2f} ms",
        )


@should(after=("parallelism.n-is-reached", "shutdown.running-tasks-are-finished"))
def waiting_takes_no_processor(trial: Trial) -> None:
    """While there is no task, and while those that run wait for something else, the executor takes less than
    a tenth of a processor, also in ``end()``.

    Why: most tasks of a scheduler wait for a database or a service; who looks all the time whether one has
    ended takes the processor from those that compute.
    Likely causes: a loop that looks for work, or for ends, without a rest; a poll with a timeout of zero;
    a program is started every so often to ask how things are.
    Origin: apache/airflow#13637 and apache/airflow#13777 (a whole processor without any task).
    """
    subject = trial.started(parallelism=2)
    subject.run(*trial.probes(2))
    shares = {"there is no task": trial.processor_share_at_rest(_IDLE_SHARE)}
    gate = trial.gate()
    running, waiting = trial.probes(2, gate.step), trial.probes(2)
    subject.submit(*running, *waiting)
    subject.await_started(*running)
    subject.quiet()
    shares["two tasks wait, and two wait for their slots"] = trial.processor_share_at_rest(_IDLE_SHARE)
    gate.open()
    subject.await_terminal(*running, *waiting)
    shares["end() waits for a task"] = _share_of_end(trial)
    trial.measurements["processor_share"] = [round(share, 4) for share in shares.values()]
    for meanwhile, share in shares.items():
        expect(
            share < _IDLE_SHARE,
            awaited=f"less than {_IDLE_SHARE:.0%} of a processor while {meanwhile}",
            seen=f"{share:.0%}",
        )


@must(
    after=(
        "queued_time.the-first-instruction-comes-soon",
        "interface.command-kinds-tell-the-truth",
        "parallelism.higher-priority-first",
    )
)
def every_way_in_is_as_quick(trial: Trial) -> None:
    """However a task comes, by ``queue_command()`` or as a command of any kind that the executor takes, it
    reaches its first instruction within the same time.

    Why: a scheduler uses the way that it has; what is measured of another is nothing to it.
    Likely causes: one kind of command goes through a queue that is looked at by a timer; ``queue_command()``
    waits for another round than that of ``execute_async()``.
    Origin: apache/airflow#28120; the contract: both calls, and all kinds, share slots and promises.
    """
    _, *others = trial.build().ways
    if not others:
        raise NotApplicable("it has one call for its tasks, and takes one kind of command")
    for name in others:
        _expect_median_within(
            trial,
            partial(_budget_s, trial),
            f"the first instruction of a task that came by {name}",
            _Circumstances(way=name),
        )


@should(
    after=(
        "parallelism.n-is-reached",
        "queued_time.no-task-waits-far-longer",
        "queued_time.no-polling-interval-shows",
    )
)
def a_long_rest_delays_no_task(trial: Trial) -> None:
    """When nothing has come for five seconds, the tasks that come then wait no longer than others, in each of
    the slots.

    Why: most executors rest most of the time; a task that comes after a quiet night is not less urgent.
    Likely causes: whoever has had nothing to do looks for work less often; idle workers have been stopped,
    and new ones are made one after the other, or by a timer.
    Origin: celery/celery#4062 and celery/celery#4921 (after minutes without a task the next one waits).
    """
    subject = trial.started(parallelism=2)
    subject.run(*trial.probes(2))
    waited: list[float] = []
    for _ in range(_LONG_RESTS):
        until = monotonic() + _LONG_REST_S
        while monotonic() < until:
            subject.pump()
            sleep(_PUMP_EVERY_S)
        pair = trial.probes(2)
        submitted = monotonic_ns()
        subject.submit(*pair)
        subject.await_started(*pair)
        waited.append((max(probe.runs[0].started_ns for probe in pair) - submitted) / 1e9)
        subject.await_terminal(*pair)
        budget_s = _budget_s(trial, pair[0], max(trial.slowdown(), 1.0))
        if waited[-1] < budget_s:
            break
    subject.end()
    trial.measurements["queued_time"] = distribution(waited)
    expect(
        waited[-1] < budget_s,
        awaited=f"two tasks within {budget_s:.3f} s after {_LONG_REST_S:.0f} s without any",
        seen=f"{min(waited):.3f} s at the least, of {len(waited)} times",
    )


@must(
    after=(
        "queued_time.the-first-instruction-comes-soon",
        "queued_time.a-slot-beside-a-busy-one-is-as-quick",
        "states.a-submission-waits-for-no-slot",
        "parallelism.unlimited-has-no-limit",
    )
)
def without_a_limit_it_is_as_quick(trial: Trial) -> None:
    """Where parallelism 0 means unlimited, a task reaches its first instruction within the same time as with
    a limit, on an idle executor and beside a task that runs.

    Why: no limit is what one asks for to have no task wait.
    Likely causes: unlimited mode has a loop of its own, which sleeps; it starts what the limited mode has
    ready.
    Origin: Airflow 2's UnlimitedParallelism, which is a code path of its own; commit 4839a5b is about both.
    """
    for beside_one in (False, True):
        _expect_median_within(
            trial,
            partial(_budget_s, trial),
            f"the first instruction of a task without a limit{', beside one that runs' * beside_one}",
            _Circumstances(limited=False, beside_one=beside_one),
        )


@must(
    needs=(Capability.KEYS,),
    after=(
        "queued_time.the-first-instruction-comes-soon",
        "queued_time.no-task-waits-far-longer",
        "states.a-new-try-runs",
    ),
)
def a_new_try_is_as_quick(trial: Trial) -> None:
    """When a task has failed and the event has been taken, its next try reaches its first instruction within
    the same time as any other task.

    Why: when to try again is the scheduler's affair, which has waited as long as it was told to.
    Likely causes: the key is held back until something of the first try has been cleaned up, which is looked
    at by a timer; the executor has delays between tries of its own.
    Origin: apache/airflow#28586 and apache/airflow#21316 (Airflow 2 holds a key back for seconds that it
    believes to be running still).
    """
    _expect_median_within(
        trial,
        partial(_budget_s, trial),
        "the first instruction of a new try",
        _Circumstances(is_new_try=True),
    )


@should(
    after=(
        "parallelism.n-is-reached",
        "queued_time.a-slot-beside-a-busy-one-is-as-quick",
        "queued_time.no-task-waits-far-longer",
        "queued_time.a-task-costs-little-more-than-its-process",
    )
)
def tasks_that_come_together_start_together(trial: Trial) -> None:
    """Of eight tasks that are submitted at once to eight free slots, the last reaches its first instruction
    within the time that one may take, and three times what the machine needs for eight such processes.

    Why: schedulers hand over whole batches; slots that fill one after the other are not there at first.
    Likely causes: a rest between two starts, to spare the machine; a worker is woken up in each round of a
    loop that sleeps; each start waits until the one before has reported itself.
    Origin: apache/datafusion-ballista#544 (10 ms for each launch are a second for a hundred of them).
    """
    subject = trial.started(parallelism=_TOGETHER)
    subject.run(*trial.probes(_TOGETHER))  # what is made for the first tasks has been made
    waited: list[float] = []
    for _ in range(_BURSTS):
        subject.quiet()
        gate = trial.gate()
        probes = trial.probes(_TOGETHER, gate.step)
        submitted = monotonic_ns()
        subject.submit(*probes)
        until = monotonic() + trial.budgets.arrival_s
        while not all(probe.started for probe in probes) and monotonic() < until:
            subject.pump()  # some start one task in each round
            sleep(_BETWEEN_PUMPS_S)
        subject.await_started(*probes)
        waited.append((max(probe.runs[0].started_ns for probe in probes) - submitted) / 1e9)
        gate.open()
        subject.await_terminal(*probes)
        cost_s = _start_cost_s(trial, probes[0])
        budget_s = min(max(trial.slowdown(), 1.0), _MOST_EXCUSED) * (
            _TIGHT_S + (_TIMES_TIGHT + _TIMES_TOGETHER * _TOGETHER) * cost_s
        )
        if waited[-1] < budget_s:
            break
    subject.end()
    trial.measurements["queued_time"] = distribution(waited)
    expect(
        waited[-1] < budget_s,
        awaited=f"{_TOGETHER} tasks within {budget_s:.3f} s",
        seen=f"{min(waited):.3f} s at the least, of {len(waited)} times",
    )


def _share_of_end(trial: Trial) -> float:
    """Processor time of the host a second, while ``end()`` waits for a task; without that of an idle end."""

    def of_end(*steps: str) -> float:
        subject = trial.started(parallelism=2)
        subject.run(trial.probe())
        if steps:
            last = trial.probe(*steps)
            subject.submit(last)
            subject.await_started(last)
        began = process_time()
        subject.end()
        subject.drain_all()
        return process_time() - began

    shares = []
    for _ in range(3):
        shares.append((of_end(f"nap={_NAP_S}") - of_end()) / _NAP_S)
        if shares[-1] < _IDLE_SHARE:
            break
    return min(shares)


# -- samples -------------------------------------------------------------------------------------------------


def _is_forked(trial: Trial, probe: Probe) -> bool:
    return probe.runs[0].host_marker == trial.host


def _start_cost_s(trial: Trial, probe: Probe) -> float:
    """What it costs this machine to start the process of such a task, in seconds."""
    return trial.fork_s if _is_forked(trial, probe) else trial.interpreter_s


def _budget_s(trial: Trial, probe: Probe, slowdown: float = 1.0) -> float:
    """Seconds that such a task may wait on a machine that has become so many times slower."""
    absolute = _FORKED_S if _is_forked(trial, probe) else _INTERPRETER_S
    return max(min(slowdown, _MOST_EXCUSED) * absolute, slowdown * _TIMES * _start_cost_s(trial, probe))


def _one(
    subject: Subject, probe: Probe | None = None, hand_over: Callable[[Probe], None] | None = None
) -> tuple[Probe, float]:
    """Run a task on an idle executor: it, and its queued time in seconds."""
    probe = probe or subject.trial.probe()
    submitted = monotonic_ns()
    (hand_over or subject.submit)(probe)
    subject.await_terminal(probe)
    subject.await_started(probe)  # an event may come before its task, which is another rule's affair
    return probe, max(probe.runs[0].started_ns - submitted, 0) / 1e9


def _samples(
    subject: Subject, count: int, circumstances: _Circumstances | None = None, at_least: int = 0
) -> Iterator[tuple[Probe, float]]:
    """Tasks one after the other, each on an idle executor; ends with the time that a rule has.

    :param at_least: so many, however long they take.
    """
    circumstances = circumstances or _Circumstances()
    hand_over = subject.ways[circumstances.way]
    until = monotonic() + 2 * subject.trial.budgets.arrival_s
    for number in range(_WARM_UP + count):
        key = _key_of_a_new_try(subject) if circumstances.is_new_try else None
        sample = _one(subject, subject.trial.probe(*circumstances.steps, key=key), hand_over)
        if number >= _WARM_UP:
            yield sample
            if monotonic() > until and number >= _WARM_UP + at_least:
                return


def _key_of_a_new_try(subject: Subject) -> TaskKey:
    """Of a task whose first try has failed."""
    first = subject.trial.probe(*_FAILING)
    subject.run(first)
    return first.key._replace(try_number=first.key.try_number + 1)


def _correlation(moments: list[float], waited: list[float]) -> float:
    try:
        return statistics.correlation(moments, waited)
    except statistics.StatisticsError:  # all are the same
        return 0.0


def _look_at_the_tail(trial: Trial) -> ShareAbove:
    subject = trial.started(parallelism=2)
    tail: ShareAbove | None = None
    for _ in range(_STRETCHES_OF_A_TAIL):
        for probe, seconds in _samples(subject, _MOST_OF_A_TAIL):
            tail = tail or ShareAbove(_TAIL * _budget_s(trial, probe), low=0.02, high=0.1, error=1e-3)
            # late with a machine that is late is not late
            is_late = seconds > tail.budget_s and seconds > _TAIL * _budget_s(trial, probe, trial.slowdown())
            tail.add(seconds if is_late else min(seconds, tail.budget_s))
            if tail.is_above is not None:
                break
        if tail is None or tail.is_above is not None or not tail.above:
            break
    subject.end()
    assert tail is not None
    return tail


@dataclass(frozen=True)
class _Sample:
    """A task that was submitted ``phase`` seconds after the one before had ended; all in seconds."""

    phase: float
    submitted: float
    waited: float
    control: float
    is_in_known_process: bool


def _look_for_an_interval(
    trial: Trial, chance: random.Random, earlier: list[tuple[list[float], list[float]]]
) -> AtAnyMoment | None:
    """What tasks of one more executor waited; ``None``: the machine stopped too often.

    :param earlier: when the tasks of others were submitted, and what they waited; these are added.
    """
    subject = trial.started(parallelism=2)
    samples: list[_Sample] = []
    known: set[int] = set()
    for number in range(_WARM_UP + _TRIES * _PHASES):
        rest = _REST_S if len(samples) >= _PHASES - _RESTS else 0.0
        phase = chance.uniform(0.0, _LONGEST_PHASE_S * trial.budgets.scale)
        trial.quiet(subject.pump, rest + phase)
        stopped = times_out_of_processor()
        probe, seconds = _one(subject)
        run = probe.runs[0]
        places = {run.pid, run.parent} - {trial.host}
        # Whoever has used up a container's share of the processor waits for the next tenth of a second: an
        # interval, and not the executor's.
        if number >= _WARM_UP and times_out_of_processor() == stopped:
            control = _control_s(trial, probe)
            submitted = run.started_ns / 1e9 - seconds
            samples.append(_Sample(phase, submitted, seconds, control, bool(places & known)))
        known |= places
        if len(samples) == _PHASES:
            break
    subject.end()
    if len(samples) < _PHASES:
        return None
    follows = _correlation(
        [sample.phase for sample in samples[:-_RESTS]], [sample.waited for sample in samples[:-_RESTS]]
    )
    # A worker that is made after a rest costs what it costs, which is no interval.
    in_known = [sample for sample in samples if sample.is_in_known_process]
    judged = in_known if len(in_known) >= len(samples) / 2 else samples
    waited = [sample.waited for sample in judged]
    earlier.append(([sample.submitted for sample in judged], waited))
    recurs_s = recurring_interval_s(earlier)
    return AtAnyMoment(waited, [sample.control for sample in samples], follows, recurs_s)


def _control_s(trial: Trial, probe: Probe) -> float:
    """Seconds that a process of this kind takes without any executor, now."""
    return (fork_here_s(1) if _is_forked(trial, probe) else interpreter_here_s()) or 0.0


def _expect_median_within(
    trial: Trial,
    budget_s: Callable[[Probe, float], float],
    what: str,
    circumstances: _Circumstances | None = None,
    *,
    is_of_now: bool = False,
) -> None:
    """Decide whether the median queued time is within a budget, and put the distribution down.

    What is above is taken again: a machine that has become slow has that much more time.

    :param budget_s: seconds for a task, on a machine that has become so many times slower; asked for with
        each sample.
    :param is_of_now: the budget itself follows the machine.
    """
    slowdown = 1.0
    began = monotonic()
    for _ in range(_ROUNDS):
        is_above, samples, latest = _decide_median(
            trial,
            lambda probe: budget_s(probe, slowdown),  # noqa: B023
            circumstances or _Circumstances(),
        )
        budget = budget_s(latest, slowdown)
        trial.measurements["queued_time"] = distribution(samples)
        trial.measurements["budget_s"] = round(budget, 6)
        if is_above is False:
            return
        median = statistics.median(samples)
        if not is_of_now:
            slowdown = max(slowdown, trial.slowdown())
        if monotonic() - began > _LONG_S and median > budget_s(latest, slowdown):
            break  # so slow that there is no time for another round, and the machine is not the reason
    if is_above is None:
        raise Inconclusive(
            f"after {len(samples)} tasks the median ({median:.4f} s) is too near to the budget of "
            f"{budget:.4f} s to be sure"
        )
    expect(
        False,
        awaited=f"{what} within {budget:.4f} s (median)",
        seen=f"{median:.4f} s in the median of {len(samples)} tasks, {quantile(samples, 0.95):.4f} s in the "
        "95th percentile",
    )


def _decide_median(
    trial: Trial,
    budget_s: Callable[[Probe], float],
    circumstances: _Circumstances,
) -> tuple[bool | None, list[float], Probe]:
    """Whether the median is above its budget (``None`` for undecided), the samples, and the last task."""
    subject = trial.started(parallelism=2) if circumstances.limited else trial.started_without_limit()
    until = monotonic() + trial.budgets.arrival_s
    for _ in range(0, circumstances.past, _BATCH):
        subject.run(*trial.probes(_BATCH))
        if monotonic() > until:
            break
    gate = trial.gate()
    if circumstances.beside_one:
        running = trial.probe(gate.step)
        subject.submit(running)
        subject.await_started(running)
    began = monotonic()
    shares = ShareAbove(1.0)
    samples: list[float] = []
    is_above = None
    for probe, seconds in _samples(subject, _MOST, circumstances, at_least=_ENOUGH):
        samples.append(seconds)
        shares.add(seconds / budget_s(probe))
        is_above = shares.is_above
        if monotonic() - began > _SLOW_S and shares.above == len(samples) >= _FEW:
            is_above = True
        if is_above is not None:
            break
    gate.open()
    subject.end()
    return is_above, samples, probe


# -- backlogs ------------------------------------------------------------------------------------------------


def _with_full_slots(trial: Trial) -> Subject:
    """An executor whose one slot is taken for good."""
    subject = trial.started(parallelism=1)
    held = trial.probe(trial.gate().step)
    subject.submit(held)
    subject.await_started(held)
    return subject


def _grow_backlog(subject: Subject, size: int, priority: int | None = None) -> int:
    """Submit tasks until so many have been, or time is up: how many it are."""
    until = monotonic() + 2 * subject.trial.budgets.arrival_s
    while len(subject.submitted) < size and monotonic() < until:
        subject.submit(subject.trial.probe(), priority=priority)
    return len(subject.submitted)


def _cheapest(call: Callable[[], object], times: int = 25) -> float:
    """Processor time of a call in seconds: the best of three medians, so that others count little.

    Of fewer calls, where they take long.
    """
    medians = []
    for _ in range(3):
        took: list[float] = []
        until = monotonic() + _CALLS_S
        while len(took) < times and (monotonic() < until or len(took) < _FEW_CALLS):
            began = thread_time()
            call()
            took.append(thread_time() - began)
        medians.append(statistics.median(took))
    return round(min(medians), 8)
