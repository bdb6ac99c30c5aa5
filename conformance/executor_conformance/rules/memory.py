"""What an executor costs in memory, and whether it grows.

Whoever writes to a page that was shared since a fork gets a copy of it.  So a process is known by its private
pages; all workers together by the pages that one of them holds and the host does not, each counted once
however many share it; the host by all of its own.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial

from executor_conformance.contract import TaskKey
from executor_conformance.driving import DEFAULT, Capability
from executor_conformance.harness import processes
from executor_conformance.harness.growth import goes_on
from executor_conformance.harness.linux import monotonic, monotonic_ns, private_disk
from executor_conformance.harness.memory import (
    MB,
    ballast,
    footprint,
    has_room_for,
    held_beside,
    private_bytes,
)
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.trial import SHARED_NAMES, Subject, Trial, expect
from executor_conformance.harness.workers import workers_of
from executor_conformance.rules import may, must, should
from executor_conformance.verdicts import Inconclusive, NotApplicable

_BALLAST = 150 * MB
_GROWTH_ALLOWED, _SHARE_ALLOWED = 20 * MB, 0.15
_COLLECTING_ROUNDS, _PAIRS_BETWEEN = 3, 15

_KIB = 1024
#: A leak of 4 KiB for each task has to be found, or one of 16 for every fifth; and what is less than 256 KiB
#: in all is noise.
_LEAK, _NOISE = 3_000, 256 * _KIB
#: Tasks in each of the stretches that are compared: where the executor is fast, and at the least.
_STRETCH, _SHORTEST_STRETCH = 30, 25
_STRETCHES_S = 1.0
#: Growth is looked at in so many windows, each as long as all before: over 1,400 tasks of what is fast, so
#: that a history of the latest thousand is full before the later half of the last of them.
_WINDOWS, _SERIES_ARRIVALS = 5, 8
#: A measure is taken when it has come to rest, at the latest at the tenth look.
_LOOKS = 10
#: Blocks of memory: so many may come and go at rest, one is kept of every fourth task, and what is less than
#: so many in all is noise.
_UNREST, _KEPT, _NOISE_OF_BLOCKS = 16, 0.25, 30
#: Executors are made one after the other: those at first, and the objects that stay at least with one that is
#: kept, itself and who holds it.
_EXECUTORS_AT_FIRST, _OBJECTS_OF_AN_EXECUTOR = 2, 2
_TASKS_OF_AN_EXECUTOR, _WINDOWS_OF_EXECUTORS = 4, 4
_PAD = "x" * 16_384
_BATCH = 12

_LIGHT_S, _LIGHT = 1.0, 50 * MB


@must(after=("shutdown.every-worker-exits",))
def copy_on_write_is_kept(trial: Trial) -> None:
    """With 150 MB of garbage-collected objects in the host before ``start()``, no worker or task that
    collects garbage grows by 20 MB, or by 15 % of what the host holds.

    Why: a collection writes to every object that it looks at, and a page that is written to is shared no
    more: each forked process ends up with a copy of the host.
    Likely causes: no ``gc.freeze()`` between the fork and the first collection; workers are forked late, from
    a host that has grown.
    Origin: apache/airflow#58365; apache/airflow discussion 58143 (20-30 MB became over 100 MB a worker).
    """
    trial.need_processes()
    if not has_room_for(_BALLAST):
        raise NotApplicable(
            f"the machine has not {_BALLAST // MB} MB to spare for the host, and for each worker"
        )
    gc.collect()  # now, and not when the ballast is there: it takes copies of what the suite itself shares
    small = _after_collecting(trial)
    before = private_bytes() or 0
    held = ballast(_BALLAST)
    size = (private_bytes() or 0) - before
    large = _after_collecting(trial)
    del held
    trial.measurements.update(
        ballast_bytes=size,
        without_bytes=small.private,
        with_bytes=large.private,
        shared_without_bytes=small.shared,
        shared_with_bytes=large.shared,
    )
    growth = max(large.private) - max(small.private)
    allowed = min(_GROWTH_ALLOWED, int(_SHARE_ALLOWED * size))
    expect(
        growth < allowed,
        awaited=f"less than {allowed / MB:.1f} MB more in each process beside {size / MB:.0f} MB in the host",
        seen=f"{growth / MB:.1f} MB more: after collecting, {max(large.private) / MB:.1f} MB were private, "
        f"and {max(small.private) / MB:.1f} MB in a small host",
    )
    shared = large.shared - small.shared
    expect(
        shared < allowed,
        awaited=f"less than {allowed / MB:.1f} MB more that processes share with each other and not with the "
        f"host, beside {size / MB:.0f} MB in it",
        seen=f"{shared / MB:.1f} MB more",
    )


@must(after=("memory.nothing-piles-up", "states.a-burst-loses-nothing"))
def workers_reach_a_plateau(trial: Trial) -> None:
    """Over a thousand tasks the memory of all workers together comes to an end of its growth.

    Why: workers live for weeks, and what each task leaves in them adds up until the machine kills something.
    Likely causes: results or arguments are kept; modules are imported anew for each task; a log handler for
    each task.
    Origin: apache/airflow#56641; apache/airflow#62212; apache/airflow#68875.
    """
    trial.need_processes()

    def of_workers() -> int:
        pids = [process.pid for process in trial.processes()]
        if not pids:
            raise NotApplicable("no process stays from one task to the next")
        found = [each for each in map(footprint, pids) if each is not None]
        if not found:
            raise NotApplicable("its processes cannot be read: not dumpable, or another user's")
        return held_beside(trial.host, trial.relatives()) + sum(each.shared_memory for each in found)

    _expect_plateau(trial.started, "the workers", of_workers)


@must(
    after=(
        "memory.nothing-piles-up",
        "states.exactly-one-terminal-event",
        "states.an-event-is-returned-once",
        "states.the-filter-flushes-what-it-returns",
        "states.a-burst-loses-nothing",
    )
)
def the_host_reaches_a_plateau(trial: Trial) -> None:
    """Over a thousand tasks the memory of the host comes to an end of its growth.

    Why: the host is the scheduler, which lives longest of all.
    Likely causes: commands, results, futures or events of tasks that have ended are kept; callbacks that hold
    them are never removed; garbage collection is turned off for speed's sake.
    Origin: apache/airflow#55768; apache/airflow#58365.
    """
    _expect_plateau(trial.started, "the host", _memory_of_this_host())


@should(
    after=(
        "memory.the-host-reaches-a-plateau",
        "states.exactly-one-terminal-event",
        "parallelism.running-is-true-to-the-journal",
        "asynchrony.coroutine-functions-are-awaited",
        "asynchrony.nothing-of-a-coroutine-stays",
    )
)
def nothing_is_kept_of_a_task(trial: Trial) -> None:
    """When the event of a task has been taken, the host holds no more objects than before the task.

    Why: a key for each task is little; of a million tasks a day it is a host that has to be restarted.
    Likely causes: a set of all keys that were ever seen; a history without a bound; a lock for each task.
    Origin: apache/airflow#62212 (a scheduler grows slowly with the tasks that it has run).
    """

    def blocks() -> int:
        gc.collect()
        return sys.getallocatedblocks()

    series = _Series(trial.started(), blocks, unrest=_UNREST)
    grows = series.goes_on(_KEPT, _NOISE_OF_BLOCKS)
    trial.measurements["blocks"] = series.samples
    expect(
        not grows,
        awaited="no object of a task that has ended to be kept",
        seen=f"{series.growth_of_a_task:.1f} blocks of memory more in the host for each of "
        f"{series.tasks} tasks, to the last",
    )


@must(
    after=(
        "states.a-burst-loses-nothing",
        "states.the-key-comes-back-whole",
        "states.the-filter-flushes-what-it-returns",
        "shutdown.nothing-accumulates",
        "shutdown.no-zombie-is-left",
        "interface.command-kinds-tell-the-truth",
        "parallelism.higher-priority-first",
        "asynchrony.coroutine-functions-are-awaited",
    )
)
def nothing_piles_up(trial: Trial) -> None:
    """While tasks come and go, descriptors, threads, processes, semaphores and mapped memory do not.

    Why: each has a limit of its own on every machine, and a host that reaches one can start nothing.
    Likely causes: a pipe, a pidfd or a log file of each task stays open until the end; a process is reaped
    only at the end; a thread waits for each task for ever.
    Origin: apache/airflow#13542; apache/airflow#56641.
    """
    _expect_nothing_piles_up(trial.started)


@may()
def importing_is_light(trial: Trial) -> None:
    """Importing the executor's module and constructing it takes less than a second, and less than 50 MB.

    Why: every process that only asks what an executor can do pays this: command lines, workers, tests.
    Likely causes: the module imports the client of a service or a database layer at its top; the constructor
    loads what only some tasks need.
    Origin: apache/airflow#58143 is about what each process of a scheduler holds because of its imports.
    """
    cost = _cost_of_import(trial)
    trial.measurements.update(asdict(cost))
    allowed_s = _LIGHT_S * max(trial.slowdown(), 1.0) * trial.budgets.scale
    heaviest = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in cost.heaviest_s.items())
    expect(
        cost.import_s + cost.construct_s < allowed_s and cost.memory_bytes < _LIGHT,
        awaited=f"import and construction within {allowed_s:.1f} s and {_LIGHT // MB} MB",
        seen=f"{cost.import_s:.2f} s and {cost.construct_s:.2f} s, {cost.memory_bytes / MB:.0f} MB; the "
        f"heaviest imports: {heaviest}",
    )


@must(
    after=(
        "memory.nothing-piles-up",
        "memory.the-host-reaches-a-plateau",
        "parallelism.unlimited-has-no-limit",
        "model.any-order-is-the-same-without-a-limit",
    )
)
def unlimited_piles_up_nothing(trial: Trial) -> None:
    """Where parallelism 0 means unlimited, nothing piles up either, and the host's memory comes to an end of
    its growth.

    Why: unlimited mode makes most processes, and has the least to clean up after them.
    Likely causes: processes are kept in a list that only the limited mode looks through; nobody closes the
    ends of pipes of processes that are made for one task.
    Origin: Airflow 2's UnlimitedParallelism, which makes a process for each task; apache/airflow#13542.
    """
    _expect_nothing_piles_up(trial.started_without_limit)
    _expect_plateau(trial.started_without_limit, "the host", _memory_of_this_host())


@must(
    after=(
        "memory.nothing-piles-up",
        "states.death-by-signal-is-a-failure",
        "states.a-hard-exit-means-its-status",
        "states.what-cannot-be-executed-fails",
        "faults.capacity-is-restored",
        "faults.all-workers-may-die-at-once",
        "faults.a-killed-workers-task-is-stopped",
        "faults.a-callable-that-leaves-has-failed",
        "faults.one-bad-task-stalls-no-other",
    )
)
def what_goes_wrong_leaves_nothing(trial: Trial) -> None:
    """When tasks die or cannot be executed, and workers are killed, nothing of it stays either: no
    descriptor, thread, process, semaphore or mapped memory.

    Why: errors take the ways that are tried least, and come by the thousand when a deployment is broken.
    Likely causes: a pipe is closed when its worker says good-bye, and the dead say nothing; what was opened
    for a program stays open when it cannot be executed; the thread that waits for a dead worker's word.
    Origin: tornadoweb/tornado#834 (the pipes of a program that is not there); varnish/hitch#203 (those of
    killed workers).
    """
    trial.need_processes()
    _expect_nothing_piles_up(partial(trial.started, parallelism=2), _let_go_wrong, "mishaps")


@should(
    after=(
        "lifecycle.host-is-left-as-it-was",
        "shutdown.nothing-accumulates",
        "shutdown.interpreter-exit-does-not-hang",
        "memory.nothing-is-kept-of-a-task",
    )
)
def an_ended_executor_is_let_go(trial: Trial) -> None:
    """When an executor has ended and its owner has let it go, so has everybody else: of executors that were
    made one after the other, the host keeps none.

    Why: services and test suites make executors again and again in one process; each that stays keeps what
    it knows of its tasks.
    Likely causes: ``atexit`` holds its ``end()``; a list of all executors on the class; a logger with a name
    of its own for each; a signal handler or a thread that refers to it.
    Origin: google/adk-python#6392 (executors stay by their exit handlers); jupyter/jupyter_client#264.
    """
    if trial.has_build_hook:
        raise NotApplicable("a hook builds it, and may hold what it has built")

    def cycle() -> None:
        subject = trial.started(parallelism=2)
        _run_some(subject, _TASKS_OF_AN_EXECUTOR)
        subject.end()
        subject.drain_all()
        subject.forget()
        trial.built.clear()

    def objects() -> int:
        # Not blocks of memory: the interpreter itself keeps some hundreds of strings, one after the other.
        trial.quiet()
        gc.collect()
        return len(gc.get_objects()) + gc.get_freeze_count()

    def more() -> Iterator[int]:
        while True:
            cycle()
            yield objects()

    for _ in range(_EXECUTORS_AT_FIRST):
        cycle()
    until = monotonic() + _SERIES_ARRIVALS * trial.budgets.arrival_s
    samples = trial.measurements["objects"] = [objects()]
    grows = goes_on(
        samples,
        more(),
        least=_OBJECTS_OF_AN_EXECUTOR,
        windows=_WINDOWS_OF_EXECUTORS,
        is_over=lambda: monotonic() > until,
    )
    if grows is None:
        raise Inconclusive("it grew with each executor, and there was no time for more of them")
    expect(
        not grows,
        awaited="no object of an executor that has ended to be kept",
        seen=f"{(samples[-1] - samples[0]) / (len(samples) - 1):.0f} objects more in the host for each "
        f"of {len(samples) - 1} executors, to the last",
    )


# -- what is shared no more ----------------------------------------------------------------------------------


@dataclass
class _Copied:
    """What the processes of an executor hold when all have collected garbage.

    :param private: bytes of each process, of tasks and of what stays.
    :param shared: bytes that several of them hold and the host does not, at the most: of a copy that two
        share nothing is private.
    """

    private: list[int] = field(default_factory=list)
    shared: int = 0

    def look(self, trial: Trial) -> None:
        # Those that nobody else may look at are known by their tasks alone.
        found = [private_bytes(process.pid) for process in trial.processes()]
        sizes = [size for size in found if size is not None]
        self.private += sizes
        self.shared = max(self.shared, held_beside(trial.host, trial.relatives()) - sum(sizes))


def _after_collecting(trial: Trial) -> _Copied:
    """What a new executor's processes hold, when it has run some tasks of which some have collected."""
    subject = trial.started(parallelism=2)
    copied = _Copied()
    with _no_collection_here():
        for number in range(_COLLECTING_ROUNDS):
            if number == _COLLECTING_ROUNDS - 1:
                _run_pairs(subject, _PAIRS_BETWEEN)  # what is done now and then has been done
            gate = trial.gate()
            probes = trial.probes(2, "collect", gate.step)
            subject.submit(*probes)
            subject.until(
                lambda: all(probe.started and probe.runs[0].notes for probe in probes),  # noqa: B023 - here
                awaited="two tasks to collect garbage",
                seen=lambda: subject.story(probes),  # noqa: B023
                stalled=True,
            )
            copied.private += [_KIB * int(probe.runs[0].notes[0]) for probe in probes]
            copied.look(trial)
            gate.open()
            subject.await_terminal(*probes)
            subject.quiet()
            copied.look(trial)
    subject.end()
    subject.drain_all()
    return copied


def _run_pairs(subject: Subject, count: int) -> None:
    """Run so many times two tasks, or fewer where they take long."""
    until = monotonic() + subject.trial.budgets.arrival_s
    for _ in range(count):
        subject.run(*subject.trial.probes(2))
        if monotonic() > until:
            return


@contextlib.contextmanager
def _no_collection_here() -> Iterator[None]:
    """The host does not collect by itself, so that whatever has been copied was copied by the others."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


# -- growth --------------------------------------------------------------------------------------------------


def _task(subject: Subject, number: int) -> Probe:
    """One more run of a few tasks, every second of which fails.

    Its command is long, and what it returns, if that travels.
    """
    key = TaskKey(
        "dag", f"task-{number % 4}", f"run-{monotonic_ns()}-{number}", 1 + number % 2, number % 5 - 1
    )
    steps = [f"pad={number:06}{_PAD}"]  # made anew for each, so that what is kept of it counts
    if number % 2:
        steps.append("raise=on purpose")
    elif subject.can(Capability.RESULTS):
        steps.append(f"return={len(_PAD)}")
    return subject.trial.probe(*steps, key=key)


def _run_some(subject: Subject, count: int) -> None:
    """Run tasks, handed over in every way that there is, and forget them."""
    ways = list(subject.ways.values())
    for first in range(0, count, _BATCH):
        numbers = range(first, min(first + _BATCH, count))
        tasks = [_task(subject, number) for number in numbers]
        for number, task in zip(numbers, tasks, strict=True):
            ways[number // 2 % len(ways)](task)  # in pairs, of which one fails
        subject.await_terminal(*tasks)
        if subject.can(Capability.EVENT_FILTER):
            for task in tasks:
                subject.drain([task.key.dag_id])
    subject.drain_all()
    subject.forget()


class _Series:
    """Samples of a measure of one executor at rest, between stretches of tasks.

    :param measure: bytes, or a count.
    :param unrest: by so much it may differ from one look to the next, at rest.
    """

    def __init__(self, subject: Subject, measure: Callable[[], int], unrest: int) -> None:
        self._subject = subject
        self._measure = measure
        self._unrest = unrest
        self._until = monotonic() + _SERIES_ARRIVALS * subject.trial.budgets.arrival_s
        _run_some(self._subject, _SHORTEST_STRETCH)
        began = monotonic()
        _run_some(self._subject, _SHORTEST_STRETCH)
        rate = _SHORTEST_STRETCH / (monotonic() - began)
        self._stretch = min(max(int(rate * _STRETCHES_S), _SHORTEST_STRETCH), _STRETCH)
        self.samples = [self._settled()]

    def goes_on(self, least: float, noise: int) -> bool:
        """Whether it grows without end.

        :param least: of each task, if it is a leak.
        :param noise: what three stretches may grow by in any case.
        :raises Inconclusive: it grew for as long as there was time.
        """
        grows = goes_on(
            self.samples,
            self._more(),
            least=max(least * self._stretch, noise / 3),
            windows=_WINDOWS,
            is_over=lambda: monotonic() > self._until,
        )
        if grows is None:
            raise Inconclusive(f"it grew with {self.tasks} tasks, and there was no time for more of them")
        return grows

    def _more(self) -> Iterator[int]:
        while True:
            _run_some(self._subject, self._stretch)
            yield self._settled()

    def _settled(self) -> int:
        """The measure, once it has come to rest: processes that begin or end are not what is looked for."""
        before = self._measure()
        for _ in range(_LOOKS):
            self._subject.quiet()
            now = self._measure()
            if abs(now - before) <= self._unrest:
                break
            before = now
        return now

    @property
    def tasks(self) -> int:
        """How many were run between the first and the last sample."""
        return (len(self.samples) - 1) * self._stretch

    @property
    def growth_of_a_task(self) -> float:
        """From the first sample to the last."""
        return (self.samples[-1] - self.samples[0]) / max(self.tasks, 1)


def _memory_of_this_host() -> Callable[[], int]:
    collects = gc.isenabled()

    def of_host() -> int:
        if gc.isenabled() or not collects:  # else the executor has turned it off, and garbage is its growth
            gc.collect()
        found = footprint()
        assert found is not None, "a process can read itself"
        return found.anonymous + found.shared_memory

    return of_host


def _expect_plateau(start: Callable[[], Subject], whose: str, measure: Callable[[], int]) -> None:
    subject = start()
    trial = subject.trial
    series = _Series(subject, measure, unrest=_NOISE // 4)
    grows = series.goes_on(_LEAK, _NOISE)
    trial.measurements["bytes"] = series.samples
    trial.measurements["bytes_a_task"] = round(series.growth_of_a_task)
    expect(
        not grows,
        awaited=f"the memory of {whose} to come to an end of its growth",
        seen=f"{series.growth_of_a_task / 1e3:.1f} KB more for each of {series.tasks} tasks, to the last: "
        + ", ".join(f"{sample / MB:.1f}" for sample in series.samples)
        + " MB",
    )


_TASKS_OF_A_STEP = 24
#: Of a step: one for each sixteenth task is found.
_PILES_UP = 1.5
#: Steps are looked at as stretches of memory are, so that what keeps the latest hundred of something is full.
_WINDOWS_OF_STEPS = 4


def _run_a_step(subject: Subject) -> None:
    _run_some(subject, _TASKS_OF_A_STEP)


def _let_go_wrong(subject: Subject) -> None:
    """Twice each: a task that kills itself, one that leaves at once, a program that is not there, a worker
    that is killed.
    """
    trial = subject.trial
    doomed = trial.probes(2, "kill=9") + trial.probes(2, "_exit=3")
    if subject.can(Capability.ARGV):
        doomed += [trial.program("/nonexistent/program") for _ in range(2)]
    accepted = [probe for probe in doomed if subject.refusal(lambda: subject.submit(probe)) is None]  # noqa: B023
    subject.await_terminal(*accepted)
    gate = trial.gate()
    held = trial.probes(2, gate.step)
    subject.submit(*held)
    subject.await_started(*held)
    for worker in set(workers_of(trial, held)):
        processes.kill(worker)
    subject.await_terminal(*held)
    subject.drain_all()
    subject.forget()


def _expect_nothing_piles_up(
    start: Callable[[], Subject],
    step: Callable[[Subject], None] = _run_a_step,
    what: str = f"{_TASKS_OF_A_STEP} tasks",
) -> None:
    subject = start()
    belongings = _Belongings(subject, step)
    for name in belongings.names:
        grows = belongings.goes_on(name)
        if grows and name == SHARED_NAMES:
            # Other programs have names there too.  Look where there are only ours, or until it is sure.
            alone = private_disk("/dev/shm", 1 << 28)
            for _ in range(1 if alone else 2):
                belongings = _Belongings(start(), step)
                grows = grows and belongings.goes_on(name)
        series = subject.trial.measurements[name] = belongings.series[name]
        expect(
            not grows,
            awaited=f"no more of it ({name}) after each step of {what}",
            seen=f"it grew without end, when no task was running: {', '.join(map(str, series))}",
        )


class _Belongings:
    """What there is between steps of tasks, when none is running.

    :param step: runs the tasks of one, and drains.
    """

    def __init__(self, subject: Subject, step: Callable[[Subject], None]) -> None:
        self._subject = subject
        self._run_step = step
        self._until = monotonic() + _SERIES_ARRIVALS * subject.trial.budgets.arrival_s
        self.series: dict[str, list[int]] = {}
        self._step()
        self.names = [name for name in self.series if name not in _NOT_KEPT_OPEN]

    def goes_on(self, name: str) -> bool:
        """Whether it grows without end.

        :raises Inconclusive: it grew for as long as there was time.
        """
        grows = goes_on(
            self.series[name][:1],
            self._more(name),
            least=_PILES_UP,
            windows=_WINDOWS_OF_STEPS,
            is_over=lambda: monotonic() > self._until,
        )
        if grows is None:
            raise Inconclusive(f"there was ever more of it ({name}), and no time for more tasks")
        return grows

    def _more(self, name: str) -> Iterator[int]:
        for number in itertools.count(1):
            while len(self.series[name]) <= number:
                self._step()
            yield self.series[name][number]

    def _step(self) -> None:
        self._run_step(self._subject)
        self._subject.quiet()
        gc.collect()
        trial = self._subject.trial
        for name, count in {**trial.belongings(), **_belongings_of_workers(trial)}.items():
            self.series.setdefault(name, []).append(count)


#: A file that is closed and stays until the end has no limit that a host could reach soon.
_NOT_KEPT_OPEN = ("temporary file",)


def _belongings_of_workers(trial: Trial) -> dict[str, int]:
    descriptors = threads = 0
    for process in trial.processes():
        try:
            descriptors += len(processes.open_descriptors(process.pid))
            threads += processes.thread_count(process.pid)
        except OSError:
            pass  # gone, or not to be looked at
    return {"descriptor of a worker": descriptors, "thread of a worker": threads}


# -- import --------------------------------------------------------------------------------------------------

_IMPORT = """\
import json, os, sys, time
order = json.loads(sys.argv.pop())
sys.path[:] = order["path"]
def private():
    with open("/proc/self/smaps_rollup") as file:
        return 1024 * sum(int(line.split()[1]) for line in file if line.startswith("Private_"))
before, began = private(), time.monotonic()
import importlib
found = importlib.import_module(order["module"])
for name in order["names"]:
    found = getattr(found, name)
imported = time.monotonic()
if order["arguments"] is not None:
    executor = found(**order["arguments"])
constructed = time.monotonic()
print(json.dumps(["cost", imported - began, constructed - imported, private() - before]), flush=True)
os._exit(0)
"""


@dataclass(frozen=True)
class _Cost:
    """Of a new interpreter that imports and constructs.

    :param heaviest_s: seconds that the modules of a package took by themselves, by package.
    """

    import_s: float
    construct_s: float
    memory_bytes: int
    heaviest_s: dict[str, float]


def _cost_of_import(trial: Trial) -> _Cost:
    target = trial.target
    module, _, path = target.spec.partition(":")
    order = {
        "path": sys.path,
        "module": module,
        "names": path.split("."),
        "arguments": None if trial.has_build_hook else target.arguments(DEFAULT),
    }
    # No pipes: what a constructor starts may hold their other ends for ever.
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as errors:
        subprocess.run(
            [sys.executable, "-X", "importtime", "-c", _IMPORT, json.dumps(order)],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=errors,
            check=False,
        )
        printed.seek(0)
        errors.seek(0)
        told, imports = printed.read(), errors.read()
    lines = [line for line in told.splitlines() if line.startswith('["cost"')]
    if not lines:
        raise NotApplicable(f"a new interpreter cannot import and construct it: {imports.strip()[-200:]}")
    _, import_s, construct_s, memory = json.loads(lines[-1])
    packages: dict[str, float] = {}
    for line in imports.splitlines():
        head, _, rest = line.partition("import time:")
        own, _, name = (part.strip() for part in [*rest.split("|"), "", ""][:3])
        if not head and own.isdigit():
            package = name.partition(".")[0]
            packages[package] = packages.get(package, 0.0) + int(own) / 1e6
    heaviest = sorted(packages, key=lambda name: -packages[name])[:5]
    return _Cost(
        import_s=round(import_s, 4),
        construct_s=round(construct_s, 4),
        memory_bytes=memory,
        heaviest_s={name: round(packages[name], 4) for name in heaviest},
    )
