"""Who is to blame for a failure, decided from data alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from executor_conformance.contract import Call
from executor_conformance.judging.blame import (
    FIRST_TASK_RULE,
    INTERMITTENT_HANG_RULE,
    MEANING_OF_EVENTS,
    REQUIRED_METHODS_RULE,
    Ask,
    Blame,
    Decided,
    JudgeAgain,
    Step,
    blocked_by,
    hung_calls,
)
from executor_conformance.rules import catalogue
from executor_conformance.verdicts import FailureMode, Finding, HungCall, ProgramTrace, Verdict

BLAME = Blame(catalogue())

PASSED = Finding(Verdict.PASSED)
FAILED = Finding(Verdict.FAILED, expected="one thing", actual="another")
STALLED = replace(FAILED, failure_mode=FailureMode.STALLED)
CROWDED = replace(FAILED, failure_mode=FailureMode.CROWDED)
RAISED = replace(FAILED, failure_mode=FailureMode.RAISED)
KEY_ERROR = replace(RAISED, raised="KeyError")
HUNG = replace(FAILED, failure_mode=FailureMode.HUNG, hung_call="end()")

QUEUED_TIME = catalogue()["queued_time.median-queued-time-is-within-budget"]
EVENTS_ONLY = catalogue()["interface.only-known-states-are-reported"]


def decide(rule_id: str, finding: Finding, findings: dict[str, Finding]) -> tuple[Step, list[str]]:
    """The decision, with all suspects passing but those in ``findings``; and the suspects that were asked."""
    known: dict[str, Finding] = {}
    while True:
        step = BLAME.next_step(catalogue()[rule_id], finding, known.get)
        if not isinstance(step, Ask):
            return step, list(known)
        assert step.rule_id not in known, "no suspect is asked twice"
        known[step.rule_id] = findings.get(step.rule_id, PASSED)


def test_a_failure_that_nothing_explains_stands() -> None:
    step, asked = decide(QUEUED_TIME.id, FAILED, {})
    assert step == Decided(FAILED)
    assert asked == [*QUEUED_TIME.after]


@pytest.mark.parametrize("blocker", QUEUED_TIME.after)
def test_a_more_basic_failure_blocks(blocker: str) -> None:
    step, _ = decide(QUEUED_TIME.id, FAILED, {blocker: FAILED})
    assert isinstance(step, Decided)
    assert step.finding.verdict is Verdict.BLOCKED
    assert step.finding.blocked_by == blocker
    assert "expected one thing; actual: another" in step.finding.actual


def test_what_blocks_a_suspect_blocks_the_rule_as_well() -> None:
    suspect, root = QUEUED_TIME.after[-1], "states.exactly-one-terminal-event"
    findings = {suspect: Finding(Verdict.BLOCKED, blocked_by=root), root: FAILED}
    step, asked = decide(QUEUED_TIME.id, FAILED, findings)
    assert isinstance(step, Decided)
    assert step.finding.blocked_by == root
    assert asked[-1] == root


def test_what_explains_that_no_event_came_does_not_explain_an_outcome() -> None:
    rule, suspect = "states.exceptions-of-every-type-are-failures", "faults.a-base-exception-fails-one-task"
    root = "parallelism.no-slot-is-idle-while-tasks-wait"
    assert suspect in catalogue()[rule].after
    stalled = replace(STALLED, verdict=Verdict.BLOCKED, blocked_by=root)
    assert decide(rule, FAILED, {suspect: stalled, root: FAILED})[0] == Decided(FAILED)
    # but it does explain that no event came here, too
    step, _ = decide(rule, STALLED, {suspect: stalled, root: FAILED})
    assert isinstance(step, Decided)
    assert step.finding.blocked_by == root


def test_an_owner_that_a_gateway_blocks_passes_the_blame_on() -> None:
    hung = replace(FAILED, failure_mode=FailureMode.HUNG, hung_call="sync()")
    owner = "lifecycle.idle-sync-is-harmless"
    findings = {owner: Finding(Verdict.BLOCKED, blocked_by=FIRST_TASK_RULE), FIRST_TASK_RULE: FAILED}
    step, _ = decide(EVENTS_ONLY.id, hung, findings)
    assert isinstance(step, Decided)
    assert step.finding.blocked_by == FIRST_TASK_RULE


def test_an_owner_that_was_run_and_blocked_explains_no_exception() -> None:
    owner, root = "lifecycle.idle-sync-is-harmless", "states.an-event-is-returned-once"
    findings = {owner: Finding(Verdict.BLOCKED, blocked_by=root), root: FAILED}
    assert decide(QUEUED_TIME.id, KEY_ERROR, findings)[0] == Decided(KEY_ERROR)


@pytest.mark.parametrize("finding", [FAILED, STALLED, RAISED, HUNG])
def test_what_events_mean_explains_wrong_outcomes_only(finding: Finding) -> None:
    fault, meaning = "faults.survives-file-descriptor-exhaustion", "states.an-event-is-returned-once"
    assert meaning not in catalogue()[fault].after
    step, _ = decide(fault, finding, {meaning: FAILED})
    assert isinstance(step, Decided)
    assert step.finding.blocked_by == (meaning if finding is FAILED else "")


def test_each_failure_mode_has_suspects_of_its_own() -> None:
    assert "parallelism.n-tasks-run-at-once" in BLAME.suspects(QUEUED_TIME, STALLED)
    assert "parallelism.n-tasks-run-at-once" not in BLAME.suspects(QUEUED_TIME, FAILED)
    assert INTERMITTENT_HANG_RULE in BLAME.suspects(QUEUED_TIME, HUNG)


def test_a_missing_method_explains_only_that_a_call_raises() -> None:
    assert REQUIRED_METHODS_RULE in BLAME.suspects(QUEUED_TIME, RAISED)
    assert REQUIRED_METHODS_RULE in BLAME.suspects(QUEUED_TIME, replace(RAISED, raised="AttributeError"))
    assert REQUIRED_METHODS_RULE not in BLAME.suspects(QUEUED_TIME, replace(RAISED, raised="ValueError"))
    assert REQUIRED_METHODS_RULE not in BLAME.suspects(QUEUED_TIME, STALLED)


@pytest.mark.parametrize(
    ("owner", "its_finding", "finding", "explains"),
    [
        ("states.exactly-one-terminal-event", STALLED, STALLED, True),
        (
            "states.exactly-one-terminal-event",
            replace(FAILED, failure_mode=FailureMode.MISCOUNTED),
            STALLED,
            False,
        ),
        ("parallelism.n-tasks-run-at-once", FAILED, STALLED, True),
        ("shutdown.no-zombie-is-left", FAILED, CROWDED, True),
        ("shutdown.no-zombie-is-left", STALLED, CROWDED, False),
        ("lifecycle.idle-sync-is-harmless", RAISED, RAISED, True),
        ("lifecycle.idle-sync-is-harmless", FAILED, RAISED, False),
        ("lifecycle.idle-sync-is-harmless", KEY_ERROR, KEY_ERROR, True),
        ("lifecycle.idle-sync-is-harmless", KEY_ERROR, RAISED, True),
        ("lifecycle.idle-sync-is-harmless", replace(RAISED, raised="OSError"), KEY_ERROR, False),
        ("shutdown.end-leaves-no-worker", HUNG, HUNG, True),
        ("shutdown.end-leaves-no-worker", FAILED, HUNG, False),
    ],
)
def test_an_owner_explains_what_fails_as_it_does_itself(
    owner: str, its_finding: Finding, finding: Finding, explains: bool
) -> None:
    step, _ = decide(QUEUED_TIME.id, finding, {owner: its_finding})
    assert isinstance(step, Decided)
    assert step.finding.blocked_by == (owner if explains else "")


def test_an_owner_suspects_only_more_basic_owners() -> None:
    owner = catalogue()["parallelism.n-tasks-run-at-once"]
    suspects = BLAME.suspects(owner, STALLED)
    assert "states.exactly-one-terminal-event" in suspects
    assert "parallelism.failed-tasks-release-their-slots" not in suspects


def test_a_program_names_the_rule_that_it_violates_first() -> None:
    model = catalogue()["model.random-sequences-keep-every-invariant"]
    trace = ProgramTrace("states.only-legal-transitions", {})
    assert BLAME.suspects(model, replace(FAILED, trace=trace))[0] == trace.rule


def test_a_program_that_violates_a_failed_rule_is_looked_for_again_without_it() -> None:
    model = catalogue()["model.random-sequences-keep-every-invariant"]
    violated = "states.only-legal-transitions"
    finding = replace(FAILED, trace=ProgramTrace(violated, {}))
    step = BLAME.next_step(model, finding, {violated: FAILED}.get)
    assert step == JudgeAgain()
    step = BLAME.next_step(model, finding, {violated: FAILED}.get, excused={violated})
    assert isinstance(step, Decided)
    assert step.finding.blocked_by == violated


def test_chapters_that_trust_events_suspect_what_events_mean() -> None:
    fault = catalogue()["faults.sync-survives-a-worker-death"]
    assert set(MEANING_OF_EVENTS) <= set(BLAME.suspects(fault, FAILED))
    assert not set(MEANING_OF_EVENTS) <= set(BLAME.suspects(QUEUED_TIME, FAILED))


@pytest.mark.parametrize(
    ("rule_id", "of_death"),
    [
        ("isolation.environment-does-not-leak-between-tasks", FAILED),
        (
            "faults.an-unpicklable-argument-fails-one-call",
            Finding(Verdict.BLOCKED, blocked_by="isolation.sigint-and-sigterm-work-in-tasks"),
        ),
    ],
)
def test_ignored_signals_explain_no_other_fault_of_tasks(rule_id: str, of_death: Finding) -> None:
    findings = {
        "states.death-by-signal-is-a-failure": of_death,
        "isolation.sigint-and-sigterm-work-in-tasks": FAILED,
    }
    step, _ = decide(rule_id, FAILED, findings)
    assert step == Decided(FAILED)


def test_a_rule_can_say_what_does_not_explain_its_failure() -> None:
    zombies, leaks = "shutdown.no-zombie-is-left", "memory.no-resource-leak-per-task"
    step, _ = decide(leaks, FAILED, {zombies: FAILED})
    assert isinstance(step, Decided)
    assert step.finding.blocked_by == zombies
    descriptors = replace(FAILED, unexplained_by=(zombies,))
    cycles = {"shutdown.no-leak-across-start-end-cycles": blocked_by(zombies, FAILED)}
    step, _ = decide(leaks, descriptors, {zombies: FAILED, **cycles})
    assert step == Decided(descriptors)


def test_nothing_is_more_basic_than_a_gateway_that_runs_tasks() -> None:
    assert BLAME.owners(FIRST_TASK_RULE, STALLED) == ()
    assert BLAME.owners(EVENTS_ONLY.id, STALLED)[0] == FIRST_TASK_RULE


def test_a_gateway_without_events_to_look_at_yields() -> None:
    word = BLAME.first_word(EVENTS_ONLY, replace(STALLED, provisional=True))
    assert word.verdict is Verdict.BLOCKED
    assert word.blocked_by == FIRST_TASK_RULE
    assert BLAME.first_word(EVENTS_ONLY, replace(FAILED, provisional=True)).provisional


def test_a_gateway_that_yielded_to_a_rule_that_passes_blocks() -> None:
    """Its failure is its own then, even while it is still provisional."""
    hung = replace(HUNG, hung_call="get_event_buffer()")
    rule = catalogue()["states.an-event-is-returned-once"]
    findings = {EVENTS_ONLY.id: BLAME.first_word(EVENTS_ONLY, replace(hung, provisional=True))}
    step, _ = decide(rule.id, hung, findings)
    assert isinstance(step, Decided)
    assert step.finding.blocked_by == EVENTS_ONLY.id
    step, _ = decide(rule.id, hung, {**findings, FIRST_TASK_RULE: FAILED})
    assert isinstance(step, Decided)
    assert step.finding.blocked_by == FIRST_TASK_RULE


def test_of_two_that_suspect_each_other_the_owner_of_the_mode_is_named() -> None:
    owner, other = catalogue()["lifecycle.idle-sync-is-harmless"], QUEUED_TIME
    step, _ = decide(other.id, RAISED, {owner.id: replace(RAISED, provisional=True)})
    assert isinstance(step, Decided)
    assert step.finding.blocked_by == owner.id
    # and the other way round: what the first owns is not blamed on the second
    provisional = replace(RAISED, provisional=True)
    assert BLAME.blocker(owner, {EVENTS_ONLY.id: provisional}.get) is None


def test_only_a_gateway_blocks_a_rule_before_it_is_run() -> None:
    for before in QUEUED_TIME.after:
        is_gateway = catalogue()[before].gateway
        assert BLAME.blocker(QUEUED_TIME, {before: FAILED}.get) == (before if is_gateway else None)
        assert BLAME.blocker(QUEUED_TIME, {before: PASSED}.get) is None


def test_an_intermittent_hang_is_tried_again_and_then_blamed() -> None:
    step, asked = decide(QUEUED_TIME.id, HUNG, {INTERMITTENT_HANG_RULE: HUNG})
    assert step == JudgeAgain()
    known = dict.fromkeys(asked, PASSED) | {INTERMITTENT_HANG_RULE: HUNG}
    step = BLAME.next_step(QUEUED_TIME, HUNG, known.get, hangs_always=True)
    assert isinstance(step, Decided)
    assert step.finding.blocked_by == INTERMITTENT_HANG_RULE


def test_a_hang_each_time_fails_a_rule_whose_chapter_is_about_the_end() -> None:
    rule = catalogue()["shutdown.end-returns-after-a-worker-death"]
    known = dict.fromkeys(catalogue(), PASSED) | {INTERMITTENT_HANG_RULE: HUNG}
    assert BLAME.next_step(rule, HUNG, known.get, hangs_always=True) == Decided(HUNG)


def test_only_the_first_rule_about_a_call_may_be_the_victim_of_chance() -> None:
    assert BLAME.may_hang_by_chance(catalogue()["shutdown.end-leaves-no-worker"], HUNG)
    assert not BLAME.may_hang_by_chance(QUEUED_TIME, HUNG)
    assert not BLAME.may_hang_by_chance(catalogue()["shutdown.end-leaves-no-worker"], FAILED)


END = "shutdown.end-leaves-no-worker"
SUBMIT = "states.submit-does-not-block"


@pytest.mark.parametrize(("backlog", "blocked"), [(0.0, False), (1.5, True)])
def test_a_bounded_queue_does_not_explain_a_hang_with_an_empty_one(backlog: float, blocked: bool) -> None:
    full = replace(HUNG, hung_call=Call.EXECUTE_ASYNC, hung_backlog=1.0)
    hung = replace(full, hung_backlog=backlog)
    step, asked = decide("faults.survives-process-exhaustion", hung, {SUBMIT: full})
    assert SUBMIT in asked
    assert isinstance(step, Decided)
    assert step.finding.blocked_by == (SUBMIT if blocked else "")


@pytest.mark.parametrize(
    ("hangs", "blamed"),
    [
        ({}, {}),
        ({"end()": {"a.b": 0.0}}, {}),
        ({"end()": {"a.b": 0.0, "a.c": 0.0, "a.d": 0.0}}, {}),
        ({"end()": {"a.b": 0.0, "a.c": 0.0, "a.d": 0.0, "a.e": 0.0}}, {"end()": HungCall("a.b")}),
        ({"end()": {"a.b": 0.0, END: 0.0}}, {"end()": HungCall(END)}),
        ({"end()": {INTERMITTENT_HANG_RULE: 0.0}}, {}),
        # a host that runs out of processes: the call is still made elsewhere
        ({Call.EXECUTE_ASYNC: {SUBMIT: 1.0, "faults.survives-process-exhaustion": 0.5}}, {}),
        # a bounded queue: it hangs with one task in flight for each slot, and with none only by another fault
        ({Call.EXECUTE_ASYNC: {"a.b": 1.0, SUBMIT: 1.5}}, {Call.EXECUTE_ASYNC: HungCall(SUBMIT, 1.5)}),
        (
            {Call.EXECUTE_ASYNC: {"a.b": 0.0, SUBMIT: 1.0, "a.c": 1.5}},
            {Call.EXECUTE_ASYNC: HungCall(SUBMIT, 1.0)},
        ),
    ],
)
def test_a_call_that_hung_often_enough_is_not_made_again(
    hangs: dict[str, dict[str, float]], blamed: dict[str, HungCall]
) -> None:
    assert hung_calls(hangs, {}.get, borne=4) == blamed


def test_a_hang_after_a_worker_death_is_no_reason_to_avoid_the_call() -> None:
    death = "faults.a-killed-worker-fails-its-task"
    hung = blocked_by(death, HUNG)
    findings = {death: FAILED, "a.b": hung, "a.c": hung, "a.d": hung, "a.e": HUNG}
    hangs = {"end()": dict.fromkeys(["a.b", "a.c", "a.d", "a.e"], 0.0)}
    assert hung_calls(hangs, findings.get, borne=2) == {}
    findings[death] = HUNG
    assert hung_calls(hangs, findings.get, borne=2) == {"end()": HungCall("a.b")}
