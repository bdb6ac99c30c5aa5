"""Waiting: for something to happen, at most as long as the machine and the executor deserve."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from executor_conformance.harness.calibration import (
    LARGEST_EXTENSION,
    Budgets,
    fork_here_s,
    interpreter_here_s,
    processor_share,
)
from executor_conformance.harness.context import EVENTS, Facts
from executor_conformance.harness.linux import monotonic, sleep
from executor_conformance.verdicts import Broken, Stalled

SHORTEST_NAP_S = 0.0005
_LONGEST_NAP_S = 0.004
#: The longest nap after a condition that itself takes long to check, and where nothing happens for a while: a
#: wait in vain must not take the processor from what it waits for.
_LONGEST_COSTLY_NAP_S = 0.02
#: Naps grow with the time in which nothing has happened: by this share of it.
_SHARE_OF_SILENCE = 0.02
#: A wait is extended, once, where the machine has become slower by more than the first factor since its
#: calibration; by the slowdown, at most by the second factor.
_SLOWDOWN_THAT_COUNTS, _LARGEST_EXTENSION_OF_A_WAIT = 1.5, 6.0
#: A budget of this many seconds is long enough on any machine.
_LONG_ENOUGH_S = 60.0
#: How many forks and interpreter starts are timed for a median.
_FORKS, _INTERPRETERS = 7, 3


def _never() -> bool:
    return False


@dataclass
class Patience:
    """The second wait of a rule: an event that is late is not missing, and a slow call does not hang.

    :param second_wait_s: its length in seconds; 0: there is none.
    :param exceptions: calls, or :data:`EVENTS`, for which there is none either.
    :param late_s: the longest wait, in seconds, that ended during a second wait; 0: none did.
    :param was_in_vain: a second wait for an event ended without it.
    """

    second_wait_s: float = 0.0
    exceptions: frozenset[str] = frozenset()
    late_s: float = 0.0
    was_in_vain: bool = False

    def second_s(self, what: str) -> float:
        """Seconds of the second wait for a call, or for :data:`EVENTS`."""
        return 0.0 if what in self.exceptions else self.second_wait_s

    def note(self, took_s: float) -> None:
        """A wait of this many seconds in total ended during a second wait."""
        self.late_s = max(self.late_s, round(took_s, 3))


class Waiting:
    """Waits by calibrated budgets; every wait ends as soon as its condition holds."""

    def __init__(self, budgets: Budgets, facts: Facts, patience: Patience | None = None) -> None:
        self.budgets = budgets
        self.facts = facts
        self.patience = patience or Patience()

    def require(
        self,
        condition: Callable[[], object],
        *,
        expected: str,
        actual: Callable[[], str],
        pump: Callable[[], object] | None = None,
        budget_s: float | None = None,
        patient: bool | None = None,
        stalled: bool = False,
    ) -> None:
        """Wait until ``condition`` holds.

        :param pump: called in each round, as a scheduler does.
        :param budget_s: seconds; by default the arrival budget.
        :param patient: wait a second time; by default unless there is a ``budget_s``, which is then a bound.
        :param stalled: the rule does not check this, it only needs it on its way.
        :raises Broken: it did not hold in time.
        """
        budget = self.budgets.arrival_s if budget_s is None else budget_s
        is_patient = budget_s is None if patient is None else patient
        second_s = self.patience.second_s(EVENTS) if is_patient else 0.0
        if not self._wait(condition, pump, budget, second_s):
            never = f", not even within {budget + second_s:.0f} s" if second_s else ""
            raise (Stalled if stalled else Broken)(
                expected=f"{expected} within {budget:.1f} s", actual=actual() + never
            )

    def wait_for(
        self,
        condition: Callable[[], object],
        *,
        pump: Callable[[], object] | None = None,
        budget_s: float | None = None,
        patient: bool = False,
    ) -> bool:
        """Like :meth:`require`, but returns whether the condition held in time.

        :param patient: a right executor always makes it hold, so wait a second time.
        """
        budget = self.budgets.arrival_s if budget_s is None else budget_s
        return self._wait(condition, pump, budget, self.patience.second_s(EVENTS) if patient else 0.0)

    def quiet(self, pump: Callable[[], object] | None = None, budget_s: float | None = None) -> None:
        """Wait for a short while in which something would happen if it were going to."""
        self._wait(_never, pump, self.budgets.quiet_s if budget_s is None else budget_s)

    async def wait_for_on_loop(
        self,
        condition: Callable[[], object],
        pump: Callable[[], object] | None = None,
        *,
        patient: bool = False,
    ) -> bool:
        """:meth:`wait_for`, for a rule that itself runs on an event loop, which stays free meanwhile."""
        import asyncio

        try:
            second_s = self.patience.second_s(EVENTS) if patient else 0.0
            for nap in self._naps(condition, pump, self.budgets.arrival_s, second_s):
                await asyncio.sleep(nap)
        except TimeoutError:
            return False
        return True

    def _wait(
        self,
        condition: Callable[[], object],
        pump: Callable[[], object] | None,
        budget_s: float,
        second_s: float = 0.0,
    ) -> bool:
        try:
            for nap in self._naps(condition, pump, budget_s, second_s):
                sleep(nap)
        except TimeoutError:
            return False
        return True

    def _naps(
        self,
        condition: Callable[[], object],
        pump: Callable[[], object] | None,
        budget_s: float,
        second_s: float = 0.0,
    ) -> Iterator[float]:
        """The naps to take, in seconds, until the condition holds.

        :param second_s: seconds of a second wait after the budget.
        :raises TimeoutError: it does not hold in time.
        """
        began = monotonic()
        signs, silence_s = self.signs_of_life(), 0.0
        nap = SHORTEST_NAP_S
        rounds = 0.0
        extended = is_second = False
        while True:
            if pump is not None:
                pump()
            looked = monotonic()
            if condition():
                if is_second:
                    self.patience.note(monotonic() - began)
                return
            # Both the clock and the number of looks must be used up: on a starved machine this process gets
            # few looks, and so does the executor.
            if monotonic() - began > budget_s and rounds * _LONGEST_NAP_S * 2 > budget_s:
                # The budget is for the machine as it was when it was calibrated.
                is_fixed = extended or condition is _never or budget_s >= _LONG_ENOUGH_S
                slowdown = 1.0 if is_fixed else self.slowdown()
                if slowdown >= _SLOWDOWN_THAT_COUNTS:
                    extended = True
                    budget_s *= min(slowdown, _LARGEST_EXTENSION_OF_A_WAIT)
                elif second_s and not is_second:
                    is_second = True
                    budget_s += second_s
                else:
                    self.patience.was_in_vain |= is_second
                    raise TimeoutError
            # A condition that inspects all processes and files must not keep a processor busy.
            costly_nap = min(3 * (monotonic() - looked), _LONGEST_COSTLY_NAP_S)
            taken = max(nap, costly_nap)
            yield taken
            rounds += max(taken / _LONGEST_NAP_S, 1.0)
            # Not by the clock: a starved machine must not have fewer looks for it.
            silence_s = silence_s + taken if signs == (signs := self.signs_of_life()) else 0.0
            longest = min(max(_SHARE_OF_SILENCE * silence_s, _LONGEST_NAP_S), _LONGEST_COSTLY_NAP_S)
            nap = min(nap * 1.5, longest)

    def signs_of_life(self) -> int:
        """Grows with whatever the executor and its tasks do that a wait can see."""
        return 0

    def extension(self) -> float:
        """The factor by which fixed limits grow on a machine that has become slower since its calibration."""
        return min(max(self.slowdown(), 1.0), LARGEST_EXTENSION)

    def slowdown(self) -> float:
        """How many times slower than at its calibration this machine is now.

        The least of three looks, because a slow moment does not make a slow machine.  The first look that
        finds it as fast as it was is the last.
        """
        least = self._slowdown_of_this_moment()
        for _ in range(2):
            if least <= 1.0:
                break
            least = min(least, self._slowdown_of_this_moment())
        return least

    def _slowdown_of_this_moment(self) -> float:
        slowdown = processor_share() / self.budgets.scale
        if self.facts.fork_s:
            slowdown = max(slowdown, (fork_here_s() or 0.0) / self._usual_fork_here_s)
        return slowdown

    @cached_property
    def _usual_fork_here_s(self) -> float:
        # Forks of the host only: pytest is larger, and compared with its forks a machine that has become
        # slower would not stand out.
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


def _unless_in_a_slow_moment(calibrated_s: float, now_s: float | None) -> float:
    """A calibration that was taken in a slow moment would excuse everything that comes later."""
    return now_s if now_s and calibrated_s > _SLOWDOWN_THAT_COUNTS * now_s else calibrated_s
