"""One executor under test: every call of it, what it reported, and waiting for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any
from weakref import WeakSet

from executor_conformance.adapters.api import ABSENT, Driver, Submission, Work
from executor_conformance.contract import SUCCESS, Call
from executor_conformance.harness.calls import Raised
from executor_conformance.harness.events import EventHistory, Observation, short_repr
from executor_conformance.harness.probes import Gate, Probe
from executor_conformance.harness.trial_base import TrialBase
from executor_conformance.requirements import Capability
from executor_conformance.verdicts import Misreported, NotApplicable, expect

_MOST_DRAINS = 50


class Subject:
    """One executor under test.  It is called, and pumped while the suite waits, as a scheduler does it.

    :param ready_s: seconds that ``start()`` may take; by default what two workers may take.
    :param slots: how many tasks it may run at once, as far as is known; 1 or more.
    """

    def __init__(
        self, trial: TrialBase, driver: Driver, *, ready_s: float | None = None, slots: int = 1
    ) -> None:
        self.trial = trial
        self._ready_s = trial.budgets.stop_s if ready_s is None else ready_s
        self.slots = slots
        self._futures: WeakSet[Future[Any]] = WeakSet()
        self.driver = driver
        self.reported = EventHistory(trial.began_ns)
        self.submitted: list[Probe] = []
        self._closed_gates: set[Gate] = set()

    # -- calls -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """``start()``."""
        starts_by_itself = not self.can(Capability.START)
        self.trial.call(Call.START, self.driver.start, allowance_s=self._ready_s, silent=starts_by_itself)

    def submit(self, *probes: Probe, priority: int | None = None, **extra: Any) -> None:
        """Submit tasks; with ``priority`` through ``queue_command``."""
        for probe in probes:
            with self._submitting(probe):
                self._submit(probe, priority, extra)

    def _submit(self, probe: Probe, priority: int | None, extra: Mapping[str, Any]) -> None:
        submission = Submission(probe.key, probe.work, priority, extra)
        call = Call.EXECUTE_ASYNC if priority is None else Call.QUEUE_COMMAND
        self._make_submission(submission, call)

    def submit_callable(self, probe: Probe) -> None:
        """Submit a task in its form as a callable, also where argv commands are taken."""
        work = Work(function=probe.work.function, reference=probe.work.reference)
        with self._submitting(probe):
            self._make_submission(Submission(probe.key, work))

    def submit_coroutine(self, *probes: Probe) -> None:
        """Submit tasks in their form as coroutine functions, whatever else is taken."""
        for probe in probes:
            submission = Submission(probe.key, Work(coroutine=probe.work.coroutine))
            with self._submitting(probe):
                self._make_submission(submission)

    def submit_raw(self, key: Any, command: Any) -> None:
        """Submit what no scheduler would: any key, any command."""
        work = Work(argv=command, function=command if callable(command) else None)
        self._make_submission(Submission(key, work))

    def _make_submission(self, submission: Submission, call: Call = Call.EXECUTE_ASYNC) -> None:
        self.trial.call(call, lambda: self.driver.submit(submission), backlog=self.backlog)

    @contextlib.contextmanager
    def _submitting(self, probe: Probe) -> Iterator[None]:
        self.note_gates(probe)
        yield
        self.submitted.append(probe)

    def note_gates(self, probe: Probe) -> None:
        """Remember which gates the task waits at.

        Call this before the task is submitted: a synchronous executor runs it then.
        """
        self._closed_gates.update(probe.gates)

    def note_future(self, future: Any) -> None:
        """Count a call that was submitted without the driver."""
        if isinstance(future, Future):
            with contextlib.suppress(TypeError):  # a subclass may not be hashable
                self._futures.add(future)

    @property
    def backlog(self) -> float:
        """Tasks in flight per slot, as far as is known; 0 if none of them has to wait for the rule.

        A call may wait for tasks that end by themselves.
        """
        self._closed_gates = {gate for gate in self._closed_gates if not gate.is_open}
        if not self._closed_gates:
            return 0.0
        calls = sum(not Future.done(future) for future in self._futures)
        return max(len(self.submitted) - self.reported.ended + calls, 1) / self.slots

    def sync(self) -> None:
        """``sync()`` itself."""
        self.trial.call(Call.SYNC, self.driver.sync, backlog=self.backlog)

    def pump(self) -> None:
        """One round of a scheduler's loop: ``heartbeat()`` or ``sync()``, then drain the event buffer."""
        self.beat()
        self.drain()

    def beat(self) -> None:
        """``heartbeat()`` or ``sync()`` alone."""
        name = self.trial.target.adapter.name_of(self.driver.pump_call)
        self.trial.call(Call.SYNC, self.driver.pump, name=name, silent=True, backlog=self.backlog)

    def drain(self, dag_ids: Sequence[str] | None = None) -> list[Observation]:
        """``get_event_buffer()``: take the events into the history and return them."""
        raw = self.trial.call(Call.GET_EVENT_BUFFER, lambda: self.driver.events(dag_ids), silent=True)
        fresh = self.reported.take(raw)
        self.trial.events_seen += len(fresh)
        return fresh

    def drain_all(self) -> None:
        """Drain until nothing comes: an executor may return the states of one key one at a time."""
        for _ in range(_MOST_DRAINS):  # that the same event is returned for ever is for another rule to find
            if not self.drain():
                return

    def end(self) -> None:
        """``end()``; the buffer is left as it is."""
        self.trial.call(Call.END, self.driver.end, allowance_s=self.trial.budgets.stop_s)

    def terminate(self) -> None:
        """``terminate()``."""
        self.trial.call(Call.TERMINATE, self.driver.terminate, allowance_s=self.trial.budgets.stop_s)

    def rejection(self, call: Callable[[], object]) -> Exception | None:
        """Make a call that may be rejected: its exception, or ``None`` if it was accepted.

        :raises Broken: it raised something that is not an ``Exception``, such as ``SystemExit``.
        """
        try:
            call()
        except Raised as raised:
            if not isinstance(raised.error, Exception):
                raise
            return raised.error
        return None

    # -- what it offers --------------------------------------------------------------------------------------

    def _read(self, name: str) -> Any:
        return self.trial.call(name, lambda: self.driver.optional(name), silent=True)

    def optional(self, name: str) -> Any:
        """An optional attribute of the contract.

        :raises NotApplicable: the executor does not have it.
        """
        value = self._read(name)
        if value is ABSENT:
            raise NotApplicable(f"the executor has no {name}")
        return value

    def has(self, name: str) -> bool:
        """Whether it has an optional attribute of the contract."""
        return self._read(name) is not ABSENT

    def can(self, *capabilities: Capability) -> bool:
        """Whether neither its family nor itself lacks any of the capabilities."""
        return all(self.trial.can(each) and each not in self.driver.lacks for each in capabilities)

    def runs_callables_outside_host(self) -> bool:
        """Whether callables run in other processes than the host, as argv commands do: one is run to see."""
        if not self.can(Capability.CALLABLE):
            return False
        call = self.trial.probe()
        self.submit_callable(call)
        self.await_terminal(call)
        return bool(call.runs) and call.runs[0].pid != self.trial.host.pid

    @property
    def ways_to_submit(self) -> tuple[int | None, ...]:
        """Priorities to submit with: ``None`` for ``execute_async``, 1 where there is ``queue_command``."""
        return (None, 1) if self.has("queue_command") else (None,)

    @property
    def ways(self) -> dict[str, Callable[[Probe], None]]:
        """Each way to submit a task, by name: the usual one, then other calls and forms."""
        ways: dict[str, Callable[[Probe], None]] = {str(Call.EXECUTE_ASYNC): self.submit}
        if self.has("queue_command"):
            ways[str(Call.QUEUE_COMMAND)] = partial(self.submit, priority=1)
        blocking = [form for form in (Capability.ARGV, Capability.CALLABLE) if self.can(form)]
        if len(blocking) > 1:
            ways["a callable"] = self.submit_callable
        if blocking and self.can(Capability.COROUTINE):
            ways["a coroutine function"] = self.submit_coroutine
        return ways

    # -- waiting ---------------------------------------------------------------------------------------------

    def require(
        self,
        condition: Callable[[], object],
        *,
        expected: str,
        actual: Callable[[], str],
        budget_s: float | None = None,
        patient: bool | None = None,
        stalled: bool = False,
    ) -> None:
        """:meth:`TrialBase.require`, pumping this executor."""
        self.trial.require(
            condition,
            expected=expected,
            actual=actual,
            pump=self.pump,
            budget_s=budget_s,
            patient=patient,
            stalled=stalled,
        )

    def await_started(self, *probes: Probe) -> None:
        """Pump until all of them have executed their first instruction."""
        self._await_each(probes, lambda probe: probe.started, "the start of", self.pump)

    def await_terminal(self, *probes: Probe) -> None:
        """Pump until each of them has a terminal event."""
        self._await_each(probes, self.outcome, "a terminal event for", self.pump)

    def await_finished(self, *probes: Probe) -> None:
        """Pump until each of them has ended; the events stay in the buffer."""
        self._await_each(probes, lambda probe: probe.finished, "the end of", self.beat)

    def _await_each(
        self,
        probes: Sequence[Probe],
        came: Callable[[Probe], object],
        what: str,
        pump: Callable[[], object],
    ) -> None:
        left = list(probes)
        tasks = "the task" if len(probes) == 1 else f"{len(probes)} tasks, the next of them"

        def one_more() -> bool:
            now = [probe for probe in left if not came(probe)]
            progress = len(now) < len(left)
            left[:] = now
            return progress or not now

        while left:  # the budget is for the next one, however many there are
            self.trial.require(
                one_more,
                expected=f"{what} {tasks}",
                actual=lambda: f"{len(probes) - len(left)} of {len(probes)}; {self.describe(left)}",
                pump=pump,
                stalled=True,
            )

    def run(self, *probes: Probe) -> None:
        """Submit tasks and wait for their terminal events."""
        self.submit(*probes)
        self.await_terminal(*probes)

    def succeeds(self, probe: Probe) -> bool:
        """Whether a submitted task runs to its end and is reported ``success``."""
        self.trial.wait_for(lambda: self.outcome(probe), pump=self.pump, patient=True)
        return self.outcome(probe) == SUCCESS and probe.finished

    def quiet(self) -> None:
        """Pump for a short while in which something more would happen if it were going to."""
        self.trial.quiet(self.pump)

    def forget(self) -> None:
        """Keep nothing of the tasks so far, none of which is in flight: what grows then is the executor's."""
        self.reported.forget()
        self.submitted.clear()
        self.driver.forget()
        self.trial.journal.forget()

    # -- what it reported ------------------------------------------------------------------------------------

    @property
    def history(self) -> list[Observation]:
        """Every event so far, in order."""
        return self.reported.events

    def events_of(self, probe: Probe) -> list[Observation]:
        """What was reported for this key, in order."""
        return self.reported.of(probe)

    def outcome(self, probe: Probe) -> str | None:
        """The first terminal state reported for this key, or ``None``."""
        terminal = self.reported.terminal(probe)
        return terminal.state if terminal else None

    def info(self, probe: Probe) -> object:
        """The info of the terminal event."""
        terminal = self.reported.terminal(probe)
        return terminal.info if terminal else None

    def expect_outcome(self, probe: Probe, state: str, what: str = "") -> None:
        """Its terminal event must be ``state``.

        :raises Broken: it is another one.
        """
        outcome = self.outcome(probe)
        if outcome != state:
            raise Misreported(
                expected=f"{state!r} for {what or probe}",
                actual=f"{outcome!r}"
                + (f" with info {short_repr(self.info(probe))}" if outcome else " (no event)"),
            )

    def expect_running(self, probe: Probe, when: str) -> None:
        """A task that waits at a gate must go on waiting there.

        :param when: describes what must not disturb it, for the message: ``while ...``.
        :raises Broken: it has ended, or has a terminal event.
        """
        self.quiet()
        expect(
            not self.outcome(probe) and not probe.finished,
            expected=f"a task to keep running {when}",
            actual=self.describe([probe]),
        )

    def describe(self, probes: Iterable[Probe]) -> str:
        """What is known of these tasks, for messages."""
        return self.reported.describe(probes)
