"""Judges one rule: what it needs, whether it is blocked, what came of running it, and who is to blame."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from executor_conformance.harness.linux import monotonic
from executor_conformance.judging.background import Background
from executor_conformance.judging.blame import INTERMITTENT_HANG_RULE, Ask, Blame, Decided, blocked_by
from executor_conformance.judging.outcome import internal_error, printable
from executor_conformance.judging.store import VerdictStore
from executor_conformance.requirements import Capability, TaskLocation
from executor_conformance.rules.catalogue import Rule, catalogue
from executor_conformance.verdicts import FailureMode, Finding, Verdict

#: How often a rule that met an intermittent hang is judged again: where each try hangs with a chance of one
#: half, all of them and the first do so in one run of 128.
_MORE_TRIES = 6
#: Unless this rule has passed, rules run one at a time.
_COEXIST = "lifecycle.two-executors-coexist-in-one-process"


@dataclass(frozen=True)
class Judge:
    """Judges rules on one target.

    :param run: runs a rule that is neither blocked nor without what it needs.
    :param store: the verdicts of this run.
    :param selected: ids of the rules of this run.
    :param lacks: what the executor's family lacks -> the reason.
    :param lacks_itself: what the executor lacks in addition, as discovery found -> the reason.
    :param location: where tasks were seen to run.
    :param time_limit_s: total seconds for rules that hang or are cut off; rules not reached by then are
        ``inconclusive``.  Other rules take as long as they need: a slow executor is not a broken one.
    :param replaying: a failure stands as it is, whatever explains it.
    :param background: runs long rules while others run; ``None``: every rule runs in order.
    :param hide: removes from a text what no message may show.
    """

    run: Callable[[Rule], Finding]
    store: VerdictStore
    selected: frozenset[str] = frozenset()
    lacks: Mapping[Capability, str] = field(default_factory=dict)
    lacks_itself: Mapping[Capability, str] = field(default_factory=dict)
    location: TaskLocation = TaskLocation.UNKNOWN
    time_limit_s: float = float("inf")
    replaying: bool = False
    background: Background | None = None
    hide: Callable[[str], str] = str
    _undecided: list[str] = field(default_factory=list)

    @functools.cached_property
    def _blame(self) -> Blame:
        return Blame(catalogue())

    def begin(self) -> None:
        """Judge first whether rules may run in the background, so that those of this run start at once."""
        if self.background is not None and _COEXIST in self.selected:
            self.judge(catalogue()[_COEXIST])

    def judge(self, rule: Rule) -> Finding:
        """The finding on a rule; judges it now unless that has been done.

        If another process is still finding the rule to blame for a failure, this waits for it, but only if
        the rule comes later in the specification than all those which this process has not decided: so no
        two processes wait for each other.
        """
        finding = self._first_finding(rule)
        place = self._blame.place(rule.id)
        if finding.provisional and all(place > self._blame.place(own) for own in self._undecided):
            with self.store.settling(rule.id):
                return self.store.load(rule.id) or finding
        return finding

    def _first_finding(self, rule: Rule) -> Finding:
        """The finding on a rule, which may still be provisional if another process has judged it.

        The rules that it comes after are judged first, if they are part of this run: how long it waits, and
        what is blocked, must not depend on the order in which processes get to their rules.
        """
        known = self.store.load(rule.id)
        if known is not None:
            return known
        for before in rule.after:
            if before in self.selected:
                self.judge(catalogue()[before])
        with contextlib.ExitStack() as settling:
            with self.store.locked(rule.id):
                known = self.store.load(rule.id)
                if known is not None:
                    return known
                began = monotonic()
                finding = self._unless_by_chance(rule, self._judge(rule))
                duration_s = max(round(monotonic() - began, 4), finding.duration_s)
                finding = replace(finding, duration_s=duration_s)
                if finding.verdict is not Verdict.FAILED or self.replaying:
                    self.store.save(rule.id, finding)
                    return finding
                settling.enter_context(self.store.settling(rule.id))
                self.store.save(rule.id, self._blame.first_word(rule, replace(finding, provisional=True)))
            # Suspects are judged without the lock: two rules that suspect each other, in two processes or in
            # one, find each other's verdict instead of waiting for it.
            self._undecided.append(rule.id)
            finding = self._settle_blame(rule, finding)
            self._undecided.remove(rule.id)
            self.store.save(rule.id, finding)
            return finding

    def _judge(self, rule: Rule) -> Finding:
        try:
            finding = self._finding_on(rule)
        except Exception as error:
            finding = internal_error(error)
        return printable(finding, self.hide)

    def _finding_on(self, rule: Rule) -> Finding:
        finding = self._without_running(rule)
        if finding is not None:
            return finding
        if self._is_over:
            return Finding(
                Verdict.INCONCLUSIVE,
                actual=f"not run: the {self.time_limit_s:.0f} s limit was reached (--conformance-time-limit)",
            )
        began = monotonic()
        finding = self._run(rule)
        if finding.hung_call or finding.cut_off:
            self.store.add_lost_time(max(monotonic() - began, finding.duration_s))
        if finding.hung_call and finding.trace is None:
            self.store.add_hang(finding.hung_call, rule.id, finding.hung_backlog)
        if finding.waited_in_vain:
            self.store.add_wait_in_vain(rule.id)
        if finding.late_s:
            self.store.add_late(finding.late_s)
        return finding

    def _without_running(self, rule: Rule) -> Finding | None:
        """Why a rule is not applicable or blocked; ``None``: it has to be run."""
        for need in rule.needs:
            reason = self.lacks.get(need) if isinstance(need, Capability) else None
            if reason is not None:
                return _not_applicable(reason, need.value)
        blocker = self._blame.blocker(rule, self.store.load)
        if blocker is not None:
            return blocked_by(blocker)
        for need in rule.needs:
            # A rule finds out itself what the executor lacks, but only in a host of its own.
            if isinstance(need, Capability):
                reason = self.lacks_itself.get(need, "")
            else:
                reason = need.missing(self.location)
            if reason:
                return _not_applicable(reason, need.value)
        return None

    def _run(self, rule: Rule) -> Finding:
        if self.background is None:
            return self.run(rule)
        if self._may_run_two:
            others = [other for other in catalogue().values() if other.id in self.selected and other != rule]
            self.background.start(others, self._is_still_to_run)
        return self.background.run(rule)

    @property
    def _may_run_two(self) -> bool:
        """Whether two executors work in one process, and have workers of their own on this machine."""
        seen = self.store.load(_COEXIST)
        return (
            seen is not None
            and seen.verdict is Verdict.PASSED
            and self.location in (TaskLocation.HOST, TaskLocation.LOCAL_PROCESSES)
            and Capability.OWN_WORKERS not in {**self.lacks, **self.lacks_itself}
        )

    def _is_still_to_run(self, rule: Rule) -> bool:
        return not self._is_over and self._without_running(rule) is None

    @property
    def _is_over(self) -> bool:
        return self.store.lost_s() >= self.time_limit_s

    # -- blame -----------------------------------------------------------------------------------------------

    def _unless_by_chance(self, rule: Rule, finding: Finding) -> Finding:
        """The finding on a rule, judged again if it is the first about a call that hangs now and then."""
        if not self._blame.may_hang_by_chance(rule, finding):
            return finding
        again = self._try_again(rule)
        if again is None or self._judge(catalogue()[INTERMITTENT_HANG_RULE]).verdict is not Verdict.FAILED:
            return finding
        self.store.forget_hang(rule.id)
        return again

    def _settle_blame(self, rule: Rule, finding: Finding) -> Finding:
        """The finding, or ``blocked`` if a rule that explains it failed."""
        known: dict[str, Finding] = {}
        hangs_always = False
        excused: set[str] = set()
        while True:
            step = self._blame.next_step(rule, finding, known.get, hangs_always=hangs_always, excused=excused)
            if isinstance(step, Decided):
                return step.finding
            if isinstance(step, Ask):
                known[step.rule_id] = self.judge(catalogue()[step.rule_id])
                continue
            if finding.trace is not None:
                excused.add(finding.trace.rule)
            again = self._try_again(rule)
            if again is None:
                hangs_always = True
                continue
            self.store.forget_hang(rule.id)
            if again.verdict is not Verdict.FAILED:
                return again
            finding, known = again, {}

    def _try_again(self, rule: Rule) -> Finding | None:
        """The finding on a rule that may have hung by chance; ``None`` if it hangs each time."""
        for _ in range(_MORE_TRIES):
            if self._is_over:
                break
            again = self._judge(rule)
            if again.failure_mode is not FailureMode.HUNG:
                return again
        return None


def _not_applicable(reason: str, need: str) -> Finding:
    return Finding(Verdict.NOT_APPLICABLE, actual=f"{reason} (the rule needs {need})")
