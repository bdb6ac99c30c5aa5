"""What a rule is given: a trial of the executor, in a host of its own."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from executor_conformance.adapters.api import CannotDrive
from executor_conformance.contract import Call
from executor_conformance.harness.blackboard import Blackboard
from executor_conformance.harness.calls import Raised
from executor_conformance.harness.containment import ContainmentResult, Limits, contain
from executor_conformance.harness.context import DISPOSE_HOOK, MOST_SLOTS, RunContext
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial_base import TrialBase
from executor_conformance.probes.task import HOST_MARKER
from executor_conformance.requirements import Capability, Need
from executor_conformance.verdicts import AboveTheLimit, NotApplicable

Result = TypeVar("Result")

#: As parallelism, where it is not rejected.
NO_LIMIT = 0
#: An import may take this many times as long as the first one.
_TIMES_IMPORT = 5
#: An executor may have an upper bound between these.  Above the second, a rule is about the rejection itself.
_LEAST_LIMIT, _ABSURD = 2, 10_000


class Trial(TrialBase):
    """One rule's dealings with the executor under test.

    :param warden: pid of the process below which everything that the executor makes can be found.
    :param needs: what the rule needs of an executor.
    """

    def __init__(
        self,
        context: RunContext,
        *,
        blackboard: Blackboard,
        scratch: str,
        warden: int,
        needs: Sequence[Need] = (),
    ) -> None:
        super().__init__(context, blackboard=blackboard, scratch=scratch, warden=warden)
        self._blackboard = blackboard
        self._needs = needs
        self.built: list[Any] = []
        #: Random programs for which there was no time, if they are more than a third; shown to the user.
        self.programs_not_run = 0

    # -- executors -------------------------------------------------------------------------------------------

    def build(self, parallelism: Any = 2, *, slots: int | None = None) -> Subject:
        """Construct an executor; it is not started.

        :param parallelism: ``DEFAULT`` leaves the argument out.
        :param slots: where the executor's parallelism is fixed, how many tasks at once the rule needs; by
            default the rule needs the parallelism that it asks for, no more and no less.
        :raises NotApplicable: it lacks something that the rule needs.
        :raises AboveTheLimit: it has an upper bound, and ``parallelism`` is above it.
        """
        self._need_slots(parallelism, slots)
        arguments = self.context.arguments(parallelism)
        shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        with _limit_is_not_applicable(parallelism):
            executor = self.call(
                Call.CONSTRUCTOR,
                lambda: self.context.construct(arguments),
                allowance_s=self.budgets.ready_s(parallelism) + self._import_s,
                name=f"{self.target.name}({shown})",
            )
        self.built.append(executor)
        try:
            driver = self.target.adapter.drive(executor)
        except CannotDrive as reason:
            raise NotApplicable(str(reason)) from None
        for need in self._needs:
            if isinstance(need, Capability) and need in driver.lacks:
                raise NotApplicable(f"{driver.lacks[need]} (the rule needs {need.value})")
        is_chosen = isinstance(parallelism, int) and parallelism > 0 and not self.context.fixed
        at_once = int(parallelism) if is_chosen else self.facts.slots or 1
        return Subject(self, driver, ready_s=self.budgets.ready_s(parallelism), slots=at_once)

    @property
    def _import_s(self) -> float:
        """What the constructor may take longer, in seconds, where it is the first to import the target."""
        return _TIMES_IMPORT * self.facts.import_s if self.facts.starts_on_import else 0.0

    def slots(self, usual: int) -> int:
        """How many slots an executor has, for a rule that fills all of them: ask for as many.

        :param usual: as many as the rule chooses where it can.
        :raises NotApplicable: the executor's own number is fixed, and not known.
        """
        if not self.context.fixed:
            return usual
        if not 0 < self.facts.slots < MOST_SLOTS:
            raise NotApplicable(f"{self.context.fixed}, and {self.facts.at_once}")
        return self.facts.slots

    def slots_up_to(self, usual: int) -> int:
        """How many tasks a rule can hold at once, where ``usual`` are better, and one is enough."""
        return min(usual, max(self.facts.slots, 1)) if self.context.fixed else usual

    def _need_slots(self, parallelism: Any, slots: int | None) -> None:
        if not self.context.fixed:
            return
        seen = self.facts.slots
        if not seen and slots != 1:
            what = self.facts.at_once
        elif slots is None and (parallelism != seen or seen == MOST_SLOTS):
            what = f"{self.facts.at_once}; the rule needs exactly {parallelism}"
        elif slots is not None and slots > max(seen, 1):
            what = f"{self.facts.at_once}; the rule needs {slots}"
        else:
            return
        raise NotApplicable(f"{self.context.fixed}, and {what}")

    def started(self, parallelism: Any = 2, *, slots: int | None = None) -> Subject:
        """Construct an executor and start it; see :meth:`build`."""
        subject = self.build(parallelism, slots=slots)
        with _limit_is_not_applicable(parallelism):
            subject.start()
        return subject

    def dispose(self) -> None:
        """Have a conftest hook dispose of the executors that were constructed."""
        if self.context.dispose is not None:
            self._blackboard.enter(DISPOSE_HOOK, allowance_s=self.budgets.stop_s, pid=os.getpid())
            for executor in self.built:
                self.context.dispose(executor)
            self._blackboard.leave()

    def started_without_limit(self) -> Subject:
        """Construct an executor with parallelism 0, which means that there is no limit, and start it.

        :raises NotApplicable: it rejects that, or takes no parallelism.
        """
        if self.context.fixed:
            raise NotApplicable(f"{self.context.fixed}, so there is no unlimited mode")
        try:
            return self.started(parallelism=NO_LIMIT)
        except Raised as raised:
            if not isinstance(raised.error, Exception):
                raise
            raise NotApplicable(f"parallelism=0 is rejected: {raised.error}") from None

    # -- a trial within this one -----------------------------------------------------------------------------

    def contained(
        self,
        body: Callable[[Trial, Blackboard], None],
        *,
        scratch: str,
        limits: Limits,
        second_wait_s: float,
    ) -> ContainmentResult:
        """Run ``body`` on a trial of its own, in a contained host within this one.

        :param scratch: the directory of that trial.
        :param second_wait_s: its second wait, in seconds.
        """

        def inside(blackboard: Blackboard) -> None:
            setattr(sys, HOST_MARKER, os.getpid())
            within = Trial(
                replace(self.context, second_wait_s=second_wait_s),
                blackboard=blackboard,
                scratch=scratch,
                warden=os.getppid(),
                needs=self._needs,
            )
            body(within, blackboard)
            within.dispose()

        return contain(inside, limits=limits, scratch=scratch)


@contextmanager
def _limit_is_not_applicable(parallelism: Any) -> Iterator[None]:
    """Turn the rejection of a parallelism that is above the executor's limit into ``AboveTheLimit``."""
    try:
        yield
    except Raised as raised:
        raise _above_the_limit(parallelism, raised.error) or raised from None


def _above_the_limit(parallelism: Any, error: BaseException) -> AboveTheLimit | None:
    """What an error means that rejects a parallelism: an upper bound, if it is about the value."""
    if type(parallelism) is not int or not _LEAST_LIMIT < parallelism <= _ABSURD:
        return None
    is_about_the_value = isinstance(error, ValueError) or (
        isinstance(error, Exception)
        and not isinstance(error, (OSError, MemoryError))
        and re.search(rf"\b{parallelism}\b", str(error)) is not None
    )
    return AboveTheLimit(f"parallelism={parallelism} is rejected: {error}") if is_about_the_value else None
