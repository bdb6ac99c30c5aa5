"""Runs one rule: contained in a process of its own or, for a debugger, in this one."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from dataclasses import dataclass, field, replace

from executor_conformance.harness.blackboard import Blackboard
from executor_conformance.harness.calibration import Budgets
from executor_conformance.harness.containment import Limits, contain
from executor_conformance.harness.context import EVENTS, RunContext
from executor_conformance.harness.host_process import hide_pytest
from executor_conformance.harness.scratch import new_folder
from executor_conformance.harness.trial import Trial
from executor_conformance.judging.blame import hung_calls
from executor_conformance.judging.outcome import evaluate_rule, finding_from
from executor_conformance.judging.store import VerdictStore
from executor_conformance.probes.task import HOST_MARKER
from executor_conformance.programs.generating import prepare
from executor_conformance.requirements import Capability
from executor_conformance.rules.catalogue import Rule
from executor_conformance.verdicts import Finding, Verdict

#: A call that hung in this many rules is not made again in this run.
_HANGS_BORNE = 4
#: How often a rule may wait in vain before it is stopped.
_WAITS_OF_A_RULE = 15
#: The second wait is this many times as long as the first.
SECOND_WAIT = 5
#: There is no second wait for a call that has hung in this many rules, and none for events once it was in
#: vain in this many rules.  Other calls of the same executor may still be slow without hanging.
_HANGS_BEFORE_HURRY, _WAITS_IN_VAIN_BEFORE_HURRY = 2, 5
#: A rule may last for this many second waits longer.
_SECOND_WAITS_OF_A_RULE = 10
#: Later events may be this many times later than the latest so far.
_LATER = 1.5
#: Seconds that a random program may take, at scale 1.
_PROGRAM_S = 2.0
#: By default, the rules of a run that hang may take as long as this many hangs; four minutes at scale 1.
_HANGS_OF_A_RUN = 10


def usual_time_limit_s(budgets: Budgets) -> float:
    """The default for the total seconds of rules that hang; grows with what it takes to detect a hang."""
    return _HANGS_OF_A_RUN * (budgets.call_s + SECOND_WAIT * budgets.arrival_s)


@dataclass(frozen=True)
class Runner:
    """Runs rules of one run.

    :param store: the hangs that were met so far.
    :param directory: of the run; holds, for a while, each rule's scratch directory.
    :param contained: run each rule in a process of its own; else in this one.
    :param show_output: let the executor print to pytest's own standard output.
    """

    context: RunContext
    store: VerdictStore
    directory: str
    limits: Limits = field(default_factory=Limits)
    contained: bool = True
    show_output: bool = False

    def run(self, rule: Rule) -> Finding:
        """The finding on one rule, whatever else is known."""
        scratch = new_folder(self.directory)
        try:
            if not self.contained:
                return self._run_here(rule, scratch)

            context = self._context_now()
            if self._builds_on_a_failure(rule):  # which explains a missing event: no need to wait twice
                context = replace(context, no_second_wait=context.no_second_wait | {EVENTS})

            def body(blackboard: Blackboard) -> None:
                trial = self._trial(rule, context, blackboard, scratch, os.getppid())
                blackboard.write_result(evaluate_rule(rule.body, trial).as_dict())
                trial.dispose()

            rule_s = max(self.limits.rule_s, _WAITS_OF_A_RULE * context.budgets.arrival_s)
            rule_s += _SECOND_WAITS_OF_A_RULE * context.second_wait_s
            if rule.budget == "programs":
                if self.context.replay is None:
                    context = replace(context, excused=self.store.failed())
                    prepare()
                rule_s += _PROGRAM_S * self.context.programs * self.context.budgets.scale
            limits = replace(self.limits, rule_s=rule_s)
            self._import_for_hosts(rule)
            ended = contain(body, limits=limits, scratch=scratch, show_output=self.show_output)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return finding_from(ended)

    def _builds_on_a_failure(self, rule: Rule) -> bool:
        known = (self.store.load(before) for before in rule.after)
        return any(finding is not None and finding.verdict is Verdict.FAILED for finding in known)

    def _import_for_hosts(self, rule: Rule) -> None:
        """Import here, once, what the rule's host would import."""
        rule.body  # noqa: B018
        if self.context.target.adapter.takes_coroutines and self.context.can(Capability.COROUTINE):
            importlib.import_module("executor_conformance.probes.asyncio_loop")

    def _run_here(self, rule: Rule, scratch: str) -> Finding:
        """In this process, so that a debugger can look at it; a hang stays a hang."""
        blackboard = Blackboard()
        trial = self._trial(rule, self._context_now(), blackboard, scratch, os.getpid())
        finders = hide_pytest()
        try:
            return evaluate_rule(rule.body, trial)
        finally:
            sys.meta_path[:] = finders
            trial.dispose()

    def _trial(
        self, rule: Rule, context: RunContext, blackboard: Blackboard, scratch: str, warden: int
    ) -> Trial:
        setattr(sys, HOST_MARKER, os.getpid())
        return Trial(context, blackboard=blackboard, scratch=scratch, warden=warden, needs=rule.needs)

    def _context_now(self) -> RunContext:
        """The context of the next rule, with what the rules so far have shown."""
        budgets = self.context.budgets
        # The first task had a minute: if it did not run, a second wait would not help.
        second_wait_s = SECOND_WAIT * budgets.arrival_s if self.context.facts.first_task_s else 0.0
        late_s = _LATER * self.store.late_s()
        if late_s:
            budgets = replace(
                budgets,
                arrival_s=max(budgets.arrival_s, late_s),
                call_s=max(budgets.call_s, late_s),
                stop_s=max(budgets.stop_s, late_s),
            )
        hangs = self.store.hangs()
        hurried = {call for call, rules in hangs.items() if len(rules) >= _HANGS_BEFORE_HURRY}
        if self.store.waits_in_vain() >= _WAITS_IN_VAIN_BEFORE_HURRY:
            hurried.add(EVENTS)
        return replace(
            self.context,
            budgets=budgets,
            hung_calls=hung_calls(hangs, self.store.load, borne=_HANGS_BORNE),
            second_wait_s=second_wait_s,
            no_second_wait=frozenset(hurried),
        )
