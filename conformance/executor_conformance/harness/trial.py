"""What a rule is given: a trial of the executor, in a host of its own.

A :class:`Trial` builds executors and probes.  A :class:`Subject` is one executor under test: it makes every
call under a deadline, pumps as a scheduler does, and keeps the history of what the executor reported.
"""

from __future__ import annotations

import asyncio
import enum
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from multiprocessing import Pipe
from typing import Any, TypeVar

from executor_conformance.contract import SUCCESS, TERMINAL_STATES, TaskKey
from executor_conformance.driving import ABSENT, Capability, Driver, Submission, Work
from executor_conformance.harness import processes
from executor_conformance.harness.blackboard import Blackboard
from executor_conformance.harness.calibration import Budgets, fork_here_s, interpreter_here_s, processor_share
from executor_conformance.harness.containment import Account, Limits, contain
from executor_conformance.harness.linux import die_with_parent, monotonic, monotonic_ns, sleep
from executor_conformance.harness.probes import Gate, Probe, ProbeFactory
from executor_conformance.harness.processes import Process
from executor_conformance.harness.target import Target
from executor_conformance.probe import HOST_MARKER
from executor_conformance.verdicts import (
    Aside,
    Blocked,
    Broken,
    Judgement,
    Misreported,
    NotApplicable,
    Stalled,
)

Result = TypeVar("Result")

#: Calls that are made all the time, or only look; a message does not tell them.
_NOT_TOLD = frozenset(
    {
        "pump",
        "get_event_buffer()",
        "slots_available",
        "slots_occupied",
        "running",
        "queued_tasks",
        "command_kinds",
        "queue_command",
        "key in running",
    }
)
#: What :meth:`Trial.belongings` calls POSIX semaphores and shared memory; other programs have some, too.
SHARED_NAMES = "name in /dev/shm"
#: As parallelism, where it is not refused.
NO_LIMIT = 0
_MOST_DRAINS = 50
_STEPS_TOLD = 4
_SHORTEST_NAP_S = 0.0005
#: How long it is looked at whether nothing is done.
_REST_S = 0.4
_LONGEST_NAP_S = 0.004
#: A wait that was in vain goes on, once, where the machine is slower by more than this; and this much longer.
_SLOWDOWN_THAT_COUNTS, _LARGEST_EXTENSION = 1.5, 6.0
#: So many make a median.
_FORKS, _INTERPRETERS = 7, 3


def _never() -> bool:
    return False


class Raised(Broken):
    """A call of the executor raised."""

    aside = Aside.RAISED

    def __init__(self, call: str, error: BaseException) -> None:
        super().__init__(
            awaited=f"{call} to return",
            seen=f"it raised {describe_error(error)}",
            evidence="".join(traceback.format_exception(error)),
        )
        self.error = error


def describe_error(error: BaseException) -> str:
    """The type and the text of an exception, whatever its ``__str__`` does."""
    try:
        text = str(error)
    except BaseException:
        text = "<its str() fails>"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def expect(condition: object, *, awaited: str, seen: str) -> None:
    """The executor must have done this.

    :raises Broken: ``condition`` is false.
    """
    __tracebackhide__ = True
    if not condition:
        raise Broken(awaited=awaited, seen=seen)


@dataclass(frozen=True)
class Observation:
    """One event as the host saw it, at CLOCK_MONOTONIC nanoseconds."""

    key: tuple[Any, ...]
    state: str
    info: object
    at_ns: int


@dataclass(frozen=True)
class Facts:
    """What was seen of the executor before the first rule.

    :param tasks_in_host: tasks run in the host's own process (threads), so nothing can be said of workers
        as processes; ``None``: not known.
    :param first_task_s: seconds from the first submission to its event.
    :param import_s: seconds that importing the target took.
    :param forked: tasks inherit the host's memory; ``None``: not known.
    :param fork_s: seconds for a fork of a host with the executor in it; 0: not known.
    """

    tasks_in_host: bool | None = None
    first_task_s: float = 0.0
    import_s: float = 0.0
    forked: bool | None = None
    fork_s: float = 0.0


class Trial:
    """One rule's dealings with the executor under test.

    :param warden: the pid below which everything that the executor makes can be found.
    :param needs: capabilities without which the rule is not applicable.
    :param hung_calls: calls that have hung repeatedly in this run -> the rule that says so.
    :param seed: of whatever a rule leaves to chance.
    :param programs: how many programs of chance it may perform.
    :param replay: a program to be performed instead of those that chance makes.
    """

    def __init__(
        self,
        *,
        target: Target,
        budgets: Budgets,
        blackboard: Blackboard,
        scratch: str,
        warden: int,
        needs: Sequence[Capability] = (),
        facts: Facts | None = None,
        hung_calls: Mapping[str, str] | None = None,
        build: Callable[[Target, dict[str, Any]], Any] | None = None,
        dispose: Callable[[Any], None] | None = None,
        seed: int = 0,
        programs: int = 60,
        replay: Mapping[str, Any] | None = None,
    ) -> None:
        self.target = target
        self.budgets = budgets
        self.scratch = scratch
        self._needs = needs
        self.facts = facts or Facts()
        self.measurements: dict[str, Any] = {}
        self.began_ns = monotonic_ns()
        self.built: list[Any] = []
        self._blackboard = blackboard
        self._hung_calls = hung_calls or {}
        self._build = build
        self._dispose = dispose
        self.seed = seed
        self.programs = programs
        self.replay = replay
        self._factory = ProbeFactory(scratch)
        self._own_processes: set[int] = set()
        self._steps: list[tuple[str, int]] = []  # the last few, with how often in a row
        self.warden = warden
        self.host = os.getpid()
        self.journal = self._factory.journal

    # -- executors -------------------------------------------------------------------------------------------

    def build(self, parallelism: Any = 2) -> Subject:
        """Construct an executor; it is not started.

        :param parallelism: ``DEFAULT`` leaves the argument out.
        """
        arguments = self.target.arguments(parallelism)
        shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        executor = self.call(
            f"the constructor ({shown})",
            lambda: (
                self._build(self.target, arguments)
                if self._build is not None
                else self.target.make(**arguments)
            ),
            allowance_s=self.budgets.stop_s,
            kind="constructor",
        )
        self.built.append(executor)
        driver = self.target.adapter.drive(executor)
        for need in self._needs:
            if need in driver.lacks:
                raise NotApplicable(f"{driver.lacks[need]} (the rule needs {need.value})")
        return Subject(self, driver)

    def started(self, parallelism: Any = 2) -> Subject:
        """Construct an executor and start it."""
        subject = self.build(parallelism)
        subject.start()
        return subject

    def started_without_limit(self) -> Subject:
        """Construct an executor with parallelism 0, which means that there is no limit, and start it.

        :raises NotApplicable: it refuses that.
        """
        try:
            return self.started(parallelism=NO_LIMIT)
        except Raised as raised:
            if not isinstance(raised.error, Exception):
                raise
            raise NotApplicable(f"parallelism=0 is refused: {raised.error}") from None

    # -- tasks -----------------------------------------------------------------------------------------------

    def probe(self, *steps: str, key: TaskKey | None = None) -> Probe:
        """A task of the suite; see :mod:`executor_conformance.probe` for its steps."""
        return self._factory.probe(*steps, key=key)

    def probes(self, count: int, *steps: str) -> list[Probe]:
        """``count`` tasks that do the same."""
        return [self.probe(*steps) for _ in range(count)]

    def probe_as_program(self, *steps: str) -> Probe:
        """A task of the suite by way of ``env``, so that nobody can run it without a new interpreter."""
        probe = self.probe(*steps)
        return replace(probe, work=Work(argv=["/usr/bin/env", *(probe.work.argv or ())]))

    def program(self, *argv: str) -> Probe:
        """A task that is any program."""
        return self._factory.program(*argv)

    def shell_probe(self, exit_status: int) -> Probe:
        """A task that records its run by means of a shell, in a millisecond even where each Python task
        costs a new interpreter.
        """
        return self._factory.shell_probe(exit_status)

    def gate(self) -> Gate:
        """A closed gate."""
        return self._factory.gate()

    # -- the host --------------------------------------------------------------------------------------------

    def processes(self) -> list[Process]:
        """Every process that the executor made and that is still there, zombies included, wherever it was
        reparented to.
        """
        found = []
        for process in processes.descendants(self.warden):
            if process.pid == self.host or process.pid in self._own_processes:
                continue
            if process.is_interpreter_helper and (
                process.parent == self.host or process.parent in self._own_processes
            ):
                continue
            found.append(process)
        return found

    def relatives(self) -> list[int]:
        """The pids of all that may share memory with the host or its executor, from the pytest process on."""
        warden = processes.look(self.warden)
        return [*([warden.parent] if warden else []), self.warden, *processes.descendant_pids(self.warden)]

    def belongings(self) -> dict[str, int]:
        """How much there is of whatever an executor may leave behind, by its name."""
        return {
            "process": len(self.processes()),
            "thread": processes.thread_count(),
            "descriptor": len(processes.open_descriptors()),
            "temporary file": sum(len(files) for _, _, files in os.walk(tempfile.gettempdir())),
            SHARED_NAMES: len(processes.shared_memory_names()),
            "mapped shared memory": len(processes.mapped_shared_memory()),
        }

    def processor_share_at_rest(self, little: float) -> float:
        """Processor time of the host and the executor's processes, a second, while nobody calls the executor.

        :param little: if it is more, it is looked at again: what has just ended may still be clearing up.
        """
        for _ in range(3):
            share = self._processor_share()
            if share < little:
                break
        return share

    def _processor_share(self) -> float:
        pids = [self.host, *(process.pid for process in self.processes())]
        before, began = sum(map(processes.cpu_s, pids)), monotonic()
        sleep(_REST_S)
        return (sum(map(processes.cpu_s, pids)) - before) / (monotonic() - began)

    def in_another_host(self, body: Callable[[], Result]) -> tuple[int, Result]:
        """Run ``body`` in a forked host within this one, which then stays as it is until it is killed.

        :returns: the pid of that host and what ``body`` returned there.
        """
        reader, writer = Pipe(duplex=False)
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            try:
                reader.close()
                die_with_parent(signal.SIGKILL, parent)
                self.host = os.getpid()
                try:
                    writer.send(("result", body()))
                except Judgement as judgement:
                    writer.send(("judgement", judgement))
                while True:
                    signal.pause()
            finally:
                os._exit(1)
        self._own_processes.add(child)
        writer.close()
        try:
            # One message, not the end of the file: workers may have inherited the other end.
            kind, value = reader.recv()
        except EOFError:
            raise Broken(
                awaited="the host to go on", seen="the process that holds the executor ended"
            ) from None
        if kind == "judgement":
            raise value
        return child, value

    def contained(
        self, body: Callable[[Trial, Blackboard], None], *, scratch: str, limits: Limits
    ) -> Account:
        """Run ``body`` on a trial of its own, in a contained host within this one.

        :param scratch: the directory of that trial.
        """

        def inside(blackboard: Blackboard) -> None:
            setattr(sys, HOST_MARKER, os.getpid())
            within = Trial(
                target=self.target,
                budgets=self.budgets,
                blackboard=blackboard,
                scratch=scratch,
                warden=os.getppid(),
                needs=self._needs,
                facts=self.facts,
                hung_calls=self._hung_calls,
                build=self._build,
            )
            body(within, blackboard)
            if self._dispose is not None:
                for executor in within.built:
                    self._dispose(executor)

        return contain(inside, limits=limits, scratch=scratch)

    def meanwhile(self, body: Callable[[], object]) -> int:
        """Run ``body`` in a process of the suite's own, while this one is in a call of the executor.

        :returns: its pid, for :meth:`kill_own`.
        """
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            try:
                die_with_parent(signal.SIGKILL, parent)
                self._own_processes.add(os.getpid())
                body()
            finally:
                os._exit(1)
        self._own_processes.add(child)
        return child

    def await_call(self, kind: str) -> None:
        """In a process made by :meth:`meanwhile`: wait until the host is in this call."""
        while True:
            call = self._blackboard.call()
            if call is not None and call.name.partition("\0")[0] == kind:
                return
            sleep(_SHORTEST_NAP_S)

    def kill_own(self, pid: int) -> None:
        """Kill and reap a process made by :meth:`in_another_host` or :meth:`meanwhile`."""
        processes.kill(pid)
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass  # the executor collects whatever child it finds

    # -- what rules are built on -----------------------------------------------------------------------------

    def call(
        self, name: str, function: Callable[[], Result], *, allowance_s: float | None = None, kind: str = ""
    ) -> Result:
        """Make one call of the executor under a deadline.

        :param kind: the name under which repeated hangs are counted; by default ``name``.
        :raises Raised: the call raised.
        :raises Blocked: this call has hung repeatedly before.
        """
        kind = kind or name
        if name not in _NOT_TOLD:
            self._note_step(self.target.adapter.words.get(name, name))
        name = self.target.adapter.words.get(name, name)
        if kind in self._hung_calls:
            raise Blocked(self._hung_calls[kind], f"{name} has hung repeatedly")
        self._blackboard.enter(
            f"{kind}\0{name}\0{self.after}", allowance_s or self.budgets.call_s, os.getpid()
        )
        try:
            return function()
        except Judgement:
            raise
        except BaseException as error:
            raise Raised(name, error) from None
        finally:
            self._blackboard.leave()

    def _note_step(self, step: str) -> None:
        count = self._steps.pop()[1] if self._steps and self._steps[-1][0] == step else 0
        self._steps.append((step, count + 1))
        del self._steps[:-_STEPS_TOLD]

    @property
    def after(self) -> str:
        """The last calls that were made, for messages; pumping is left out."""
        return ", ".join(f"{step} x{count}" if count > 1 else step for step, count in self._steps)

    def until(
        self,
        condition: Callable[[], object],
        *,
        awaited: str,
        seen: Callable[[], str],
        pump: Callable[[], object] | None = None,
        budget_s: float | None = None,
        stalled: bool = False,
    ) -> None:
        """Wait until ``condition`` holds, pumping all the while.

        :param stalled: it is not what the rule is about, only on the way there.
        :raises Broken: it does not hold within ``budget_s`` (by default the arrival budget).
        """
        budget = self.budgets.arrival_s if budget_s is None else budget_s
        if not self._wait(condition, pump, budget):
            raise (Stalled if stalled else Broken)(awaited=f"{awaited} within {budget:.1f} s", seen=seen())

    def comes_true(
        self,
        condition: Callable[[], object],
        *,
        pump: Callable[[], object] | None = None,
        budget_s: float | None = None,
    ) -> bool:
        """Like :meth:`until`, but says whether it came true."""
        return self._wait(condition, pump, self.budgets.arrival_s if budget_s is None else budget_s)

    def quiet(self, pump: Callable[[], object] | None = None, budget_s: float | None = None) -> None:
        """Wait for a short while in which something would happen if it were going to."""
        self._wait(_never, pump, self.budgets.quiet_s if budget_s is None else budget_s)

    def _wait(
        self, condition: Callable[[], object], pump: Callable[[], object] | None, budget_s: float
    ) -> bool:
        try:
            for nap in self._naps(condition, pump, budget_s):
                sleep(nap)
        except TimeoutError:
            return False
        return True

    async def comes_true_on_loop(
        self, condition: Callable[[], object], pump: Callable[[], object] | None = None
    ) -> bool:
        """:meth:`comes_true` for a rule that is on an event loop itself, which goes on all the while."""
        try:
            for nap in self._naps(condition, pump, self.budgets.arrival_s):
                await asyncio.sleep(nap)
        except TimeoutError:
            return False
        return True

    def _naps(
        self, condition: Callable[[], object], pump: Callable[[], object] | None, budget_s: float
    ) -> Iterator[float]:
        """The naps to be taken, in seconds, until the condition holds.

        :raises TimeoutError: it does not.
        """
        began = monotonic()
        nap = _SHORTEST_NAP_S
        rounds = 0
        extended = False
        while True:
            if pump is not None:
                pump()
            if condition():
                return
            # Both the clock and the number of looks must have passed: on a starved machine this process
            # gets few looks, and so does the executor.
            if monotonic() - began > budget_s and rounds * _LONGEST_NAP_S * 2 > budget_s:
                # The budget is for the machine as it was when it was calibrated.
                slowdown = 1.0 if extended or condition is _never else self.slowdown()
                if slowdown < _SLOWDOWN_THAT_COUNTS:
                    raise TimeoutError
                extended = True
                budget_s *= min(slowdown, _LARGEST_EXTENSION)
            yield nap
            nap = min(nap * 1.5, _LONGEST_NAP_S)
            rounds += 1

    def slowdown(self) -> float:
        """How many times slower than at its calibration this machine is now.

        The least of three looks, because a slow moment is no slow machine.
        """
        return min(self._slowdown_of_this_moment() for _ in range(3))

    def _slowdown_of_this_moment(self) -> float:
        slowdown = processor_share() / self.budgets.scale
        if self.facts.fork_s:
            slowdown = max(slowdown, (fork_here_s() or 0.0) / self._usual_fork_here_s)
        return slowdown

    @cached_property
    def _usual_fork_here_s(self) -> float:
        # Of the host alone: pytest is larger, and by its forks a machine that has become slow would not show.
        return _unless_in_a_slow_moment(self.facts.fork_s, fork_here_s(_FORKS))

    @cached_property
    def fork_s(self) -> float:
        """What a fork of the host costs on this machine, in seconds."""
        calibrated = max(self.facts.fork_s, self.budgets.fork_s)
        return _unless_in_a_slow_moment(calibrated, fork_here_s(_FORKS))

    @cached_property
    def interpreter_s(self) -> float:
        """What a new interpreter costs on this machine, in seconds."""
        return _unless_in_a_slow_moment(self.budgets.interpreter_s, interpreter_here_s(_INTERPRETERS))

    def need_processes(self) -> None:
        """Leave the rule if tasks run in the host's own process.

        :raises NotApplicable: they do.
        """
        if self.facts.tasks_in_host:
            raise NotApplicable("its tasks run in the host's own process, as was seen by their pid")

    @property
    def has_build_hook(self) -> bool:
        """Whether a conftest builds the executors of this run."""
        return self._build is not None


class Subject:
    """One executor under test."""

    def __init__(self, trial: Trial, driver: Driver) -> None:
        self.trial = trial
        self.driver = driver
        self.history: list[Observation] = []
        self._by_key: dict[tuple[Any, ...], list[Observation]] = {}
        self.submitted: list[Probe] = []
        self._budgets = trial.budgets

    # -- calls -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """``start()``."""
        self.trial.call("start()", self.driver.start, allowance_s=self._budgets.stop_s)

    def submit(self, *probes: Probe, priority: int | None = None, **extra: Any) -> None:
        """Hand over tasks; with ``priority`` through ``queue_command``."""
        for probe in probes:
            self._submit(probe, priority, extra)
            self.submitted.append(probe)

    def _submit(self, probe: Probe, priority: int | None, extra: Mapping[str, Any]) -> None:
        submission = Submission(probe.key, probe.work, priority, extra)
        name = "execute_async()" if priority is None else "queue_command()"
        self.trial.call(name, lambda: self.driver.submit(submission))

    def submit_callable(self, probe: Probe) -> None:
        """Hand over a task in its form as a callable, also where argv commands are taken."""
        work = Work(function=probe.work.function, reference=probe.work.reference)
        self.trial.call("execute_async()", lambda: self.driver.submit(Submission(probe.key, work)))
        self.submitted.append(probe)

    def submit_coroutine(self, *probes: Probe) -> None:
        """Hand over tasks in their form as coroutine functions, whatever else is taken."""
        for probe in probes:
            work = Work(coroutine=probe.work.coroutine)
            submission = Submission(probe.key, work)
            self.trial.call("execute_async()", lambda: self.driver.submit(submission))  # noqa: B023
            self.submitted.append(probe)

    def submit_raw(self, key: Any, command: Any) -> None:
        """Hand over what no scheduler would: any key, any command."""
        work = Work(argv=command, function=command if callable(command) else None)
        self.trial.call("execute_async()", lambda: self.driver.submit(Submission(key, work)))

    def sync(self) -> None:
        """``sync()`` itself."""
        self.trial.call("sync()", self.driver.sync)

    def pump(self) -> None:
        """One round of a scheduler's loop: ``heartbeat()`` or ``sync()``, then drain the event buffer."""
        self.beat()
        self.drain()

    def beat(self) -> None:
        """``heartbeat()`` or ``sync()`` alone."""
        self.trial.call("pump", self.driver.pump, kind="sync()")

    def drain(self, dag_ids: Sequence[str] | None = None) -> list[Observation]:
        """``get_event_buffer()``: take the events into the history and return them."""
        raw = self.trial.call("get_event_buffer()", lambda: self.driver.events(dag_ids))
        return self.take(raw)

    def drain_all(self) -> None:
        """Drain until nothing comes: an executor may return the states of one key one at a time."""
        for _ in range(_MOST_DRAINS):  # one that returns the same for ever is another rule's affair
            if not self.drain():
                return

    def take(self, raw: object) -> list[Observation]:
        """Take what ``get_event_buffer()`` returned into the history."""
        now = monotonic_ns()
        fresh = [Observation(key, state, info, now) for key, state, info in _plain_events(raw)]
        self.history.extend(fresh)
        for event in fresh:
            self._by_key.setdefault(event.key, []).append(event)
        return fresh

    def end(self) -> None:
        """``end()``; the buffer is left as it is."""
        self.trial.call("end()", self.driver.end, allowance_s=self._budgets.stop_s)

    def terminate(self) -> None:
        """``terminate()``."""
        self.trial.call("terminate()", self.driver.terminate, allowance_s=self._budgets.stop_s)

    def refusal(self, call: Callable[[], object]) -> Exception | None:
        """Make a call that may be refused: its exception, or ``None`` if it was accepted.

        :raises Broken: it was left by something that is not an ``Exception``, such as ``SystemExit``.
        """
        try:
            call()
        except Raised as raised:
            if not isinstance(raised.error, Exception):
                raise
            return raised.error
        return None

    def optional(self, name: str) -> Any:
        """An optional attribute of the contract.

        :raises NotApplicable: the executor does not have it.
        """
        value = self.trial.call(name, lambda: self.driver.optional(name))
        if value is ABSENT:
            raise NotApplicable(f"the executor has no {name}")
        return value

    def can(self, capability: Capability) -> bool:
        """Whether neither its family nor itself lacks the capability."""
        return capability not in self.trial.target.adapter.lacks and capability not in self.driver.lacks

    def has_callables_elsewhere(self) -> bool:
        """Whether callables have processes of their own, where argv commands have: one is run to see it."""
        if not self.can(Capability.CALLABLE):
            return False
        call = self.trial.probe()
        self.submit_callable(call)
        self.await_terminal(call)
        return bool(call.runs) and call.runs[0].pid != self.trial.host

    def has(self, name: str) -> bool:
        """Whether it has an optional attribute of the contract."""
        return self.trial.call(name, lambda: self.driver.optional(name)) is not ABSENT

    @property
    def ways_to_submit(self) -> tuple[int | None, ...]:
        """Priorities to submit by: ``None`` for ``execute_async``, 1 where there is ``queue_command``."""
        return (None, 1) if self.has("queue_command") else (None,)

    @property
    def ways(self) -> dict[str, Callable[[Probe], None]]:
        """Each way to hand over a task, by its name: the usual one, then other calls and forms."""
        ways: dict[str, Callable[[Probe], None]] = {"execute_async()": self.submit}
        if self.has("queue_command"):
            ways["queue_command()"] = partial(self.submit, priority=1)
        blocking = [form for form in (Capability.ARGV, Capability.CALLABLE) if self.can(form)]
        if len(blocking) > 1:
            ways["a callable"] = self.submit_callable
        if blocking and self.can(Capability.COROUTINE):
            ways["a coroutine function"] = self.submit_coroutine
        return ways

    # -- waiting ---------------------------------------------------------------------------------------------

    def until(
        self,
        condition: Callable[[], object],
        *,
        awaited: str,
        seen: Callable[[], str],
        budget_s: float | None = None,
        stalled: bool = False,
    ) -> None:
        """:meth:`Trial.until`, pumping this executor."""
        self.trial.until(
            condition, awaited=awaited, seen=seen, pump=self.pump, budget_s=budget_s, stalled=stalled
        )

    def await_started(self, *probes: Probe) -> None:
        """Pump until all of them have reached their first instruction."""
        self.until(
            lambda: all(probe.started for probe in probes),
            awaited=f"{_count(probes, 'task')} to start",
            seen=lambda: (
                f"{sum(p.started for p in probes)} started; "
                + self.story([p for p in probes if not p.started])
            ),
            stalled=True,
        )

    def await_terminal(self, *probes: Probe) -> None:
        """Pump until each of them has a terminal event."""
        self._await_each(probes, self.outcome, "a terminal event for", self.pump)

    def await_finished(self, *probes: Probe) -> None:
        """Until each of them has ended; the events stay where they are."""
        self._await_each(probes, lambda probe: probe.finished, "the end of", self.beat)

    def _await_each(
        self,
        probes: Sequence[Probe],
        came: Callable[[Probe], object],
        what: str,
        pump: Callable[[], object],
    ) -> None:
        left = list(probes)

        def one_more() -> bool:
            now = [probe for probe in left if not came(probe)]
            progress = len(now) < len(left)
            left[:] = now
            return progress or not now

        while left:  # the budget is for the next one, however many there are
            self.trial.until(
                one_more,
                awaited=f"{what} {_count(probes, 'task')}, the next one",
                seen=lambda: f"{len(probes) - len(left)} came; {self.story(left)}",
                pump=pump,
                stalled=True,
            )

    def run(self, *probes: Probe) -> None:
        """Submit tasks and wait for their terminal events."""
        self.submit(*probes)
        self.await_terminal(*probes)

    def comes_to_run(self, probe: Probe) -> bool:
        """Whether it is run to its end and reported as ``success``."""
        self.trial.comes_true(lambda: self.outcome(probe), pump=self.pump)
        return self.outcome(probe) == SUCCESS and probe.finished

    def forget(self) -> None:
        """Keep nothing of the tasks so far, none of which is in flight: what grows then is the executor's."""
        self.history.clear()
        self._by_key.clear()
        self.submitted.clear()
        self.driver.forget()
        self.trial.journal.forget()

    def quiet(self) -> None:
        """Pump for a short while in which something more would happen if it were going to."""
        self.trial.quiet(self.pump)

    # -- what was reported -----------------------------------------------------------------------------------

    def events_of(self, probe: Probe) -> list[Observation]:
        """What was reported for this key, in order."""
        return self._by_key.get(tuple(probe.key), [])

    def outcome(self, probe: Probe) -> str | None:
        """The first terminal state reported for this key, or ``None``."""
        terminal = self._terminal_event(probe)
        return terminal.state if terminal else None

    def info(self, probe: Probe) -> object:
        """What came with the terminal event."""
        terminal = self._terminal_event(probe)
        return terminal.info if terminal else None

    def _terminal_event(self, probe: Probe) -> Observation | None:
        return next((event for event in self.events_of(probe) if event.state in TERMINAL_STATES), None)

    def expect_outcome(self, probe: Probe, state: str, what: str = "") -> None:
        """Its terminal event must say ``state``."""
        outcome = self.outcome(probe)
        if outcome != state:
            raise Misreported(
                awaited=f"{state!r} for {what or probe}",
                seen=f"{outcome!r}"
                + (f" with info {_short(self.info(probe))}" if outcome else " (no event)"),
            )

    def story(self, probes: Iterable[Probe]) -> str:
        """What is known of these tasks, for messages."""
        told = []
        for probe in list(probes)[:3]:
            runs = ", ".join(
                f"started at {self._at(run.started_ns)} in process {run.pid}, "
                + ("has not ended" if run.finished_ns is None else f"ended at {self._at(run.finished_ns)}")
                for run in probe.runs
            )
            events = ", ".join(f"{event.state} at {self._at(event.at_ns)}" for event in self.events_of(probe))
            told.append(f"{probe}: {runs or 'never started'}; events: {events or 'none'}")
        return "; ".join(told)

    def _at(self, time_ns: int) -> str:
        if not time_ns:
            return "a moment that was not recorded"  # by a shell
        return f"{(time_ns - self.trial.began_ns) / 1e9:.3f} s"


def _unless_in_a_slow_moment(calibrated_s: float, now_s: float | None) -> float:
    """A calibration in a slow moment would excuse whatever comes after it."""
    return now_s if now_s and calibrated_s > _SLOWDOWN_THAT_COUNTS * now_s else calibrated_s


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}{'s' if len(things) != 1 else ''}"


def _short(value: object) -> str:
    try:
        text = repr(value)
    except BaseException:
        text = "<its repr() fails>"
    return text if len(text) <= 120 else text[:117] + "..."


def _plain_events(raw: object) -> list[tuple[tuple[Any, ...], str, object]]:
    """Events as plain data, so that no ``__eq__`` or ``__hash__`` of the executor's decides anything."""
    if not isinstance(raw, dict):
        raise Broken(awaited="get_event_buffer() to return a dict", seen=_short(raw))
    events = []
    for key, value in dict.items(raw):
        if not isinstance(value, tuple) or tuple.__len__(value) != 2:
            raise Broken(awaited="each event to be a tuple (state, info)", seen=_short(value))
        state, info = tuple.__iter__(value)
        events.append((_plain_key(key), _plain_state(state), info))
    return events


def _plain_key(key: object) -> tuple[Any, ...]:
    if not isinstance(key, tuple):
        return (f"not a key: {_short(key)}",)
    fields: list[object] = []
    for field in tuple.__iter__(key):
        if isinstance(field, str):
            fields.append(str.__str__(field))
        elif field is None or type(field) in (int, bool):
            fields.append(field)
        elif isinstance(field, int):
            fields.append(int.__int__(field))
        else:
            fields.append(f"not a field: {_short(field)}")
    return tuple(fields)


def _plain_state(state: object) -> str:
    if isinstance(state, enum.Enum):
        state = state.value
    if isinstance(state, str):
        return str.__str__(state)
    return f"not a state: {_short(state)}"
