"""Which rule is to blame for a failure: one fault, one failure.

A fault shows in many rules.  A rule that needs a task to end fails where no event ever comes, whatever it is
about.  So a failure is the verdict on its own rule only if no more basic rule explains it; otherwise the rule
is *blocked* by that one.  But an executor has several faults, and each has to be reported: a failure is no
excuse for another one that it does not explain.  This module decides, from data alone.  It runs nothing and
stores nothing: it is given the finding, and looks at findings on other rules that
:class:`~executor_conformance.judging.judge.Judge` has fetched.  It answers with the next step: ask for the
finding on a suspect, judge the rule again, or a verdict.

**Before a rule is run**, the *gateways* are looked up.  If one of them failed, there is nothing to judge, and
the rule is blocked at once.  Any other rule is run even if a rule that it comes ``after`` failed: if it
passes, it has passed.

**After it has failed**, its *suspects* are asked one by one, and the first whose failure explains this one
takes the blame:

1. the rule that a random program has found broken, if a program found the failure;
2. the rules that it comes after;
3. :data:`REQUIRED_METHODS_RULE`, if a call raised AttributeError or TypeError;
4. the *owners* of the way in which it failed.  A failure mode (a call raised, a call hung, nothing came) can
   happen in any rule; its owners are the rules that are about just this, the most basic one first.  An owner
   explains it only if it failed in that way itself (:meth:`Blame._explains`);
5. in chapters that trust events, the rules about what an event means, for a wrong outcome.

**Two rules can suspect each other.**  A failure is *provisional* until its own suspects have been asked.  Of
two provisional failures the one whose rule owns what went wrong is named; if that does not decide, the first
in the specification.  No process waits for a provisional finding of a rule that stands before one which it
has not decided itself, so no two processes wait for each other (``Judge.judge()``).

**A call that hangs only now and then** fails whatever rule has the bad luck.  :data:`INTERMITTENT_HANG_RULE`
provokes such a hang each time.  Where it failed, a rule that met the hang is judged again; only one that
hangs each time is blocked or, where the call is what its chapter is about, has failed.

What has to stay in sync: the ids in the tables are rules (a test checks it), owners and gateways are ``must``
rules, and no ``must`` rule comes after a ``should`` rule.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from executor_conformance.contract import Call
from executor_conformance.rules.catalogue import Rule
from executor_conformance.verdicts import FailureMode, Finding, HungCall, Verdict

#: Its failure explains why no event came: gateways that only look at events are blocked by it.
FIRST_TASK_RULE = "lifecycle.runs-a-task"

#: Its failure explains that a call raises: the executor does not have that method.
REQUIRED_METHODS_RULE = "interface.every-required-method-exists"

#: The exceptions of a call of a method that does not exist or is not callable; empty: the type is not known.
_RAISED_WITHOUT_A_METHOD = ("AttributeError", "TypeError", "")

#: Finds, each time, a hang that other rules meet now and then.
INTERMITTENT_HANG_RULE = "shutdown.end-has-no-shutdown-race"

#: Rules in which the host runs out of something.  Their hangs are no reason to avoid the call elsewhere, and
#: a queue that is full elsewhere does not explain them.
_SHORTAGES = frozenset(
    {
        "faults.survives-file-descriptor-exhaustion",
        "faults.survives-process-exhaustion",
        "faults.sync-survives-resource-exhaustion",
        "faults.survives-a-full-disk",
    }
)

#: A call that never returns is the failure of the rule which says that it does; the most basic one first.
OWNERS_OF_CALLS: Mapping[str, tuple[str, ...]] = {
    Call.CONSTRUCTOR: ("interface.constructor-accepts-parallelism",),
    Call.START: (FIRST_TASK_RULE,),
    Call.EXECUTE_ASYNC: (FIRST_TASK_RULE, "states.submit-does-not-block"),
    Call.GET_EVENT_BUFFER: ("lifecycle.idle-sync-is-harmless", "states.exactly-one-terminal-event"),
    Call.SYNC: ("lifecycle.idle-sync-is-harmless", "states.sync-does-not-block"),
    Call.END: ("shutdown.end-leaves-no-worker", INTERMITTENT_HANG_RULE),
    Call.TERMINATE: ("shutdown.terminate-kills-running-tasks",),
}

#: What can go wrong in any rule -> the rules that are about just this, the most basic one first.
OWNERS_OF_MODES: Mapping[FailureMode, tuple[str, ...]] = {
    FailureMode.RAISED: (
        FIRST_TASK_RULE,
        "lifecycle.idle-sync-is-harmless",
        "states.an-exception-is-a-failure",
        "lifecycle.two-executors-coexist-in-one-process",
        "faults.sync-survives-a-worker-death",
    ),
    FailureMode.DIED: (FIRST_TASK_RULE, "parallelism.at-most-n-tasks-run-at-once"),
    FailureMode.CROWDED: (
        FIRST_TASK_RULE,
        "parallelism.at-most-n-tasks-run-at-once",
        "shutdown.no-zombie-is-left",
    ),
    FailureMode.CLOSED: ("lifecycle.host-file-descriptors-stay-open",),
    FailureMode.STALLED: (
        FIRST_TASK_RULE,
        "states.an-exception-is-a-failure",
        "states.exactly-one-terminal-event",
        "parallelism.n-tasks-run-at-once",
        "lifecycle.two-executors-coexist-in-one-process",
        "parallelism.failed-tasks-release-their-slots",
        "parallelism.no-slot-is-idle-while-tasks-wait",
        "parallelism.no-slot-is-lost-in-thousands-of-tasks",
        "asynchrony.blocking-commands-do-not-block-the-loop",
    ),
    FailureMode.MISREPORTED: (
        "states.no-terminal-event-before-the-task-ends",
        "states.an-exception-is-a-failure",
    ),
    FailureMode.MISCOUNTED: ("states.exactly-one-terminal-event",),
}

#: What an event means; chapters that trust events rely on all of it.
MEANING_OF_EVENTS = (
    "states.exactly-one-terminal-event",
    "states.no-terminal-event-before-the-task-ends",
    "states.an-event-is-returned-once",
    "states.a-result-belongs-to-its-task",
)

_WRONG_EVENTS = (FailureMode.MISREPORTED, FailureMode.MISCOUNTED)
#: What an owner that failed by its own check explains: the same fault shows so in rules that do not check it.
_SHOWN_ELSEWHERE = (FailureMode.CLOSED, FailureMode.CROWDED, FailureMode.STALLED, *_WRONG_EVENTS)

Lookup = Callable[[str], Finding | None]


@dataclass(frozen=True)
class Ask:
    """The finding on this rule is needed."""

    rule_id: str


@dataclass(frozen=True)
class JudgeAgain:
    """The failure may be the bad luck of one try."""


@dataclass(frozen=True)
class Decided:
    """The finding stands as it is given here."""

    finding: Finding


Step = Ask | JudgeAgain | Decided


@dataclass(frozen=True)
class Blame:
    """Decides, on a catalogue of rules in the order of the specification."""

    rules: Mapping[str, Rule]
    _before: dict[str, frozenset[str]] = field(default_factory=dict)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {rule_id: place for place, rule_id in enumerate(self.rules)}

    def place(self, rule_id: str) -> int:
        """Where a rule stands in the specification."""
        return self._places[rule_id]

    # -- before a rule is run --------------------------------------------------------------------------------

    def blocker(self, rule: Rule, lookup: Lookup) -> str | None:
        """The gateway that blocks this rule before it is run, of those that are known to have failed."""
        for before in rule.after:
            known = lookup(before) if self.rules[before].gateway else None
            if known is None or known.verdict is not Verdict.FAILED:
                continue
            if not (known.provisional and self._is_about(rule.id, before, known)):
                return before
        return None

    # -- after it has failed ---------------------------------------------------------------------------------

    def first_word(self, rule: Rule, finding: Finding) -> Finding:
        """What others may know of a finding before its suspects have been asked."""
        if self._yields(rule, finding):
            return replace(blocked_by(FIRST_TASK_RULE, finding), provisional=finding.provisional)
        return finding

    def next_step(
        self,
        rule: Rule,
        finding: Finding,
        lookup: Lookup,
        *,
        hangs_always: bool = False,
        excused: Collection[str] = (),
    ) -> Step:
        """How to go on with a failure.

        :param lookup: the findings that were asked for so far; ``None`` for others.
        :param hangs_always: the rule was judged again, and hung each time.
        :param excused: the rule was judged again by random programs without regard to these rules.
        """
        yields = self._yields(rule, finding)
        for suspect in self.suspects(rule, finding):
            owned = self._is_about(suspect, rule.id, finding)
            if rule.id in self._all_before(suspect) and not owned and not yields:
                continue
            other = lookup(suspect)
            if other is None:
                return Ask(suspect)
            if not self._explains(suspect, other, rule, finding):
                continue
            if other.verdict is Verdict.BLOCKED and other.blocked_by != rule.id:
                if not self._relies_on(rule, suspect, finding):
                    continue
                blocker = lookup(other.blocked_by)
                if blocker is None:
                    return Ask(other.blocked_by)
                if other.provisional and blocker.verdict is not Verdict.FAILED:  # it yielded in vain
                    other = replace(other, verdict=Verdict.FAILED)
                else:
                    failed_in_a_mode = other.failure_mode is not None
                    suspect, other = other.blocked_by, blocker
                    if suspect in finding.unexplained_by:
                        continue
                    # What explains how it failed need not explain how this one failed.
                    if failed_in_a_mode and not self._explains_beyond(suspect, other, rule, finding):
                        continue
            if other.provisional and not yields:
                owns = self._is_about(rule.id, suspect, other)
                if owns > owned or (owns == owned and self.place(suspect) > self.place(rule.id)):
                    continue
            if other.verdict is not Verdict.FAILED:
                continue
            if finding.trace and suspect == finding.trace.rule and suspect not in excused:
                return JudgeAgain()
            if suspect == INTERMITTENT_HANG_RULE:
                if not hangs_always:
                    return JudgeAgain()
                if rule.chapter.about_end:
                    continue
            return Decided(blocked_by(suspect, finding))
        return Decided(finding)

    def suspects(self, rule: Rule, finding: Finding) -> tuple[str, ...]:
        """The rules which, if they failed, explain this failure."""
        found = (finding.trace.rule,) if finding.trace and finding.trace.rule else ()
        raised = finding.failure_mode is FailureMode.RAISED and finding.raised in _RAISED_WITHOUT_A_METHOD
        methods = (REQUIRED_METHODS_RULE,) if raised else ()
        # What an event means explains wrong outcomes, and neither that a call raises nor that nothing comes.
        wrong = finding.failure_mode in (None, *_WRONG_EVENTS)
        meaning = MEANING_OF_EVENTS if rule.chapter.trusts_events and wrong else ()
        suspects = dict.fromkeys((*found, *rule.after, *methods, *self.owners(rule.id, finding), *meaning))
        return tuple(suspect for suspect in suspects if suspect not in (rule.id, *finding.unexplained_by))

    def owners(self, rule_id: str, finding: Finding) -> tuple[str, ...]:
        """The rules about this failure mode that are more basic in it than ``rule_id``."""
        rule = self.rules[rule_id]
        if rule.gateway and not rule.events_only:  # nothing is more basic
            return ()
        owners: tuple[str, ...] = ()
        if finding.failure_mode is FailureMode.HUNG:
            owners = OWNERS_OF_CALLS.get(finding.hung_call, ())
        elif finding.failure_mode is not None:
            owners = OWNERS_OF_MODES[finding.failure_mode]
        return owners[: owners.index(rule_id)] if rule_id in owners else owners

    def may_hang_by_chance(self, rule: Rule, finding: Finding) -> bool:
        """Whether the most basic rule about a call met a hang that the intermittent-hang rule would find.

        Every rule about that call would be blocked by its bad luck, the intermittent-hang rule among them.
        """
        owners = OWNERS_OF_CALLS.get(finding.hung_call, ())
        return (
            finding.failure_mode is FailureMode.HUNG
            and INTERMITTENT_HANG_RULE in owners
            and rule.id == owners[0]
        )

    def _explains(self, suspect: str, other: Finding, rule: Rule, finding: Finding) -> bool:
        """Whether the failure of a suspect explains this one.

        An owner has to have failed in the same way, or by its own check if that can have this effect.
        """
        if suspect in rule.after or suspect not in self.owners(rule.id, finding):
            return True
        if other.verdict is Verdict.BLOCKED and self.rules[other.blocked_by].gateway:  # it was not run
            return True
        if other.failure_mode is None:
            return finding.failure_mode in _SHOWN_ELSEWHERE
        if other.raised and finding.raised and other.raised != finding.raised:
            return False
        if rule.id in _SHORTAGES and other.hung_backlog > finding.hung_backlog:  # no queue was full
            return False
        return (other.failure_mode, other.hung_call) == (finding.failure_mode, finding.hung_call)

    def _explains_beyond(self, suspect: str, other: Finding, rule: Rule, finding: Finding) -> bool:
        """Whether a rule that explains the failure of a suspect explains this one, too."""
        if self.rules[suspect].gateway or suspect in self._all_before(rule.id):
            return True
        return suspect in self.owners(rule.id, finding) and self._explains(suspect, other, rule, finding)

    def _relies_on(self, rule: Rule, suspect: str, finding: Finding) -> bool:
        """Whether a rule builds on a suspect, and does not only trust the events that it is about."""
        return suspect not in MEANING_OF_EVENTS or suspect in (*rule.after, *self.owners(rule.id, finding))

    def _is_about(self, owner: str, rule_id: str, finding: Finding) -> bool:
        """Whether the rule ``owner`` is about just that call of the executor which failed ``rule_id``."""
        return finding.failure_mode in (FailureMode.RAISED, FailureMode.HUNG) and owner in self.owners(
            rule_id, finding
        )

    @staticmethod
    def _yields(rule: Rule, finding: Finding) -> bool:
        """Whether it only looks at events, and failed without one to look at."""
        return finding.verdict is Verdict.FAILED and finding.failure_mode is not None and rule.events_only

    def _all_before(self, rule_id: str) -> frozenset[str]:
        """The rules that ``rule_id`` comes after, directly or not."""
        if rule_id not in self._before:
            found: set[str] = set()
            left = [rule_id]
            while left:
                for before in self.rules[left.pop()].after:
                    if before not in found:
                        found.add(before)
                        left.append(before)
            self._before[rule_id] = frozenset(found)
        return self._before[rule_id]


def blocked_by(rule_id: str, finding: Finding | None = None) -> Finding:
    """``blocked`` instead of a failure, or of a run."""
    if finding is None:
        return Finding(Verdict.BLOCKED, actual=f"blocked by {rule_id}", blocked_by=rule_id)
    return Finding(
        Verdict.BLOCKED,
        actual=f"blocked by {rule_id}; here: expected {finding.expected}; actual: {finding.actual}",
        blocked_by=rule_id,
        duration_s=finding.duration_s,
        failure_mode=finding.failure_mode,
        hung_call=finding.hung_call,
        raised=finding.raised,
    )


def hung_calls(
    hangs: Mapping[str, Mapping[str, float]], lookup: Lookup, *, borne: int
) -> dict[str, HungCall]:
    """Calls that are not to be made again in this run.

    An executor with a bounded queue hangs in ``submit()`` only while the queue is full, and one that runs
    tasks in ``heartbeat()`` only if a task does not end.  So a call that hung with tasks in flight, one of
    which could not end, is still made with fewer of them.  A hang that another kind of failure explains, such
    as that of ``end()`` after the death of a worker, does not count: elsewhere the call may return.

    :param hangs: call -> id of each rule in which it hung -> tasks in flight per slot at that time.
    :param lookup: the findings so far.
    :param borne: how many rules may meet a hang, where none of them is about that call.
    """
    why = {}
    special = {INTERMITTENT_HANG_RULE, *_SHORTAGES}
    for call, rules in hangs.items():
        counted = {
            rule: backlog
            for rule, backlog in rules.items()
            if rule not in special and not _is_explained_otherwise(rule, call, lookup)
        }
        owners = [owner for owner in OWNERS_OF_CALLS.get(call, ()) if owner in counted]
        enough = 2 if owners else borne
        if len(counted) >= enough:
            why[call] = HungCall((owners or list(counted))[0], sorted(counted.values())[enough - 1])
    return why


def _is_explained_otherwise(rule_id: str, call: str, lookup: Lookup) -> bool:
    """Whether a rule in which a call hung is blocked by one that did not fail by such a hang."""
    finding = lookup(rule_id)
    if finding is None or finding.verdict is not Verdict.BLOCKED:
        return False
    blocker = lookup(finding.blocked_by)
    return blocker is not None and blocker.verdict is Verdict.FAILED and blocker.hung_call != call
