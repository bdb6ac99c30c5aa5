"""Calls of the executor: each under a deadline, and in the record that messages show."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping
from typing import TypeVar

from executor_conformance.harness.blackboard import Blackboard
from executor_conformance.harness.linux import monotonic
from executor_conformance.harness.waiting import Patience
from executor_conformance.verdicts import Blocked, Broken, FailureMode, HungCall, Judgement

Result = TypeVar("Result")

_STEPS_SHOWN = 4
_SUITE = "executor_conformance."


class Raised(Broken):
    """A call of the executor raised."""

    failure_mode = FailureMode.RAISED

    def __init__(self, call: str, error: BaseException) -> None:
        super().__init__(
            expected=f"{call} to return",
            actual=f"it raised {describe_error(error)}",
            evidence=own_traceback(error),
        )
        self.error = error


def describe_error(error: BaseException) -> str:
    """The type and the text of an exception, whatever its ``__str__`` does."""
    try:
        text = str(error)
    except BaseException:
        text = "<its str() fails>"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def own_traceback(error: BaseException) -> str:
    """The traceback of an exception without the suite's frames, which are the first ones."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith(_SUITE):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames)).rstrip()


class Calls:
    """Makes calls of the executor, and remembers the last few.

    :param hung: calls that have hung repeatedly in this run.
    :param patience: for calls that return late.
    """

    def __init__(self, blackboard: Blackboard, hung: Mapping[str, HungCall], patience: Patience) -> None:
        self._blackboard = blackboard
        self._hung = hung
        self._patience = patience
        self._steps: list[tuple[str, int]] = []  # the last few, with how often in a row

    def make(
        self,
        kind: str,
        function: Callable[[], Result],
        *,
        allowance_s: float,
        name: str = "",
        silent: bool = False,
        backlog: float = 0.0,
    ) -> Result:
        """Make one call under a deadline.

        :param kind: the call of the contract; repeated hangs are counted under it.
        :param allowance_s: seconds after which it is late; after a second wait it hangs.
        :param name: what the executor's family calls it; by default ``kind``.
        :param silent: leave it out of :attr:`history`: it is made all the time, or only reads.
        :param backlog: tasks in flight per slot; 0 if all of them end by themselves.
        :raises Raised: the call raised.
        :raises Blocked: this call has hung repeatedly before, with no more tasks in flight than now.
        """
        name = name or str(kind)
        if not silent:
            self._note(name)
        hung = self._hung.get(kind)
        if hung is not None and backlog >= hung.backlog:
            when = f" with {hung.backlog:g} or more tasks in flight per slot" if hung.backlog else ""
            raise Blocked(hung.rule, f"{name} has hung repeatedly{when}")
        self._blackboard.enter(
            str(kind),
            name=name,
            history=self.history,
            allowance_s=allowance_s + self._patience.second_s(str(kind)),
            backlog=backlog,
            pid=os.getpid(),
        )
        began = monotonic()
        try:
            return function()
        except Judgement:
            raise
        except BaseException as error:
            raise Raised(name, error) from None
        finally:
            took_s = monotonic() - began
            if took_s > allowance_s:
                self._patience.note(took_s)
            self._blackboard.leave()

    def _note(self, step: str) -> None:
        count = self._steps.pop()[1] if self._steps and self._steps[-1][0] == step else 0
        self._steps.append((step, count + 1))
        del self._steps[:-_STEPS_SHOWN]

    @property
    def history(self) -> str:
        """The last calls, for messages: ``start(), submit() x3``."""
        return ", ".join(f"{step} x{count}" if count > 1 else step for step, count in self._steps)
