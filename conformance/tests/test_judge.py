"""In which order rules are judged, how often they are looked up, and what an intermittent hang does."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from executor_conformance.harness.blackboard import Blackboard
from executor_conformance.harness.calibration import Budgets, Calibration
from executor_conformance.harness.containment import Limits, contain
from executor_conformance.judging.blame import FIRST_TASK_RULE, INTERMITTENT_HANG_RULE, blocked_by, hung_calls
from executor_conformance.judging.judge import Judge
from executor_conformance.judging.runner import usual_time_limit_s
from executor_conformance.judging.store import VerdictStore
from executor_conformance.requirements import Capability, TaskLocation
from executor_conformance.rules import Rule, catalogue
from executor_conformance.verdicts import FailureMode, Finding, Verdict

BUILDS = "interface.constructor-accepts-parallelism"
END = "shutdown.end-leaves-no-worker"
QUEUED_TIME = "queued_time.median-queued-time-is-within-budget"

PASSED = Finding(Verdict.PASSED)
FAILED = Finding(Verdict.FAILED)
HUNG = Finding(Verdict.FAILED, failure_mode=FailureMode.HUNG, hung_call="end()")


class CountingStore(VerdictStore):
    """Counts how often a finding is looked up."""

    lookups = 0

    def load(self, rule_id: str) -> Finding | None:
        self.lookups += 1
        return super().load(rule_id)


def outcomes(tries: dict[str, list[Finding]], store: VerdictStore) -> Callable[[Rule], Finding]:
    """Runs of rules: each gives its findings one after the other, the last of them again and again."""

    def run(rule: Rule) -> Finding:
        left = tries.get(rule.id, [PASSED])
        finding = left.pop(0) if len(left) > 1 else left[0]
        if finding.hung_call:
            store.add_hang(finding.hung_call, rule.id)
        return finding

    return run


def judge_of(store: VerdictStore, tries: dict[str, list[Finding]], selected: set[str]) -> Judge:
    return Judge(outcomes(tries, store), store, frozenset(selected), location=TaskLocation.LOCAL_PROCESSES)


def test_a_blocked_rule_costs_no_more_lookups_than_one_that_passes(tmp_path: Path) -> None:
    """Rules build on rules that build on rules: following every path would take for ever."""
    store = CountingStore(str(tmp_path))
    judge = judge_of(store, {BUILDS: [FAILED]}, set(catalogue()))
    for rule in catalogue().values():
        judge.judge(rule)
    paths = sum(len(rule.after) for rule in catalogue().values())
    assert store.lookups <= 3 * (paths + len(catalogue()))
    assert {finding.verdict for finding in store.all().values()} == {Verdict.FAILED, Verdict.BLOCKED}


@pytest.mark.parametrize(
    ("rule_id", "tries", "verdict"),
    [
        (QUEUED_TIME, [HUNG, PASSED], Verdict.PASSED),
        (QUEUED_TIME, [HUNG, HUNG, FAILED], Verdict.FAILED),
        (QUEUED_TIME, [HUNG], Verdict.BLOCKED),
        ("shutdown.end-returns-after-a-worker-death", [HUNG], Verdict.FAILED),
    ],
)
def test_a_rule_that_met_an_intermittent_hang_is_judged_again(
    rule_id: str, tries: list[Finding], verdict: Verdict, tmp_path: Path
) -> None:
    """Its own promise is judged all the same, and other rules go on making the call."""
    store = VerdictStore(str(tmp_path))
    judge = judge_of(store, {rule_id: tries, INTERMITTENT_HANG_RULE: [HUNG]}, {rule_id})
    assert judge.judge(catalogue()[rule_id]).verdict is verdict
    assert judge.judge(catalogue()[INTERMITTENT_HANG_RULE]).verdict is Verdict.FAILED
    assert not hung_calls(store.hangs(), store.load, borne=4)


@pytest.mark.parametrize(
    ("tries", "of_the_race_rule", "verdict", "race_verdict"),
    [
        ([HUNG, HUNG, PASSED], HUNG, Verdict.PASSED, Verdict.FAILED),
        ([HUNG, FAILED], HUNG, Verdict.FAILED, Verdict.BLOCKED),
        ([HUNG, PASSED], PASSED, Verdict.FAILED, Verdict.PASSED),
        ([HUNG], HUNG, Verdict.FAILED, Verdict.BLOCKED),
    ],
)
def test_bad_luck_of_the_first_rule_about_a_call_blocks_no_other(
    tries: list[Finding],
    of_the_race_rule: Finding,
    verdict: Verdict,
    race_verdict: Verdict,
    tmp_path: Path,
) -> None:
    """A hang by chance is the failure of the rule that provokes it each time, if that one fails."""
    store = VerdictStore(str(tmp_path))
    judge = judge_of(
        store, {END: tries, INTERMITTENT_HANG_RULE: [of_the_race_rule]}, {END, INTERMITTENT_HANG_RULE}
    )
    assert judge.judge(catalogue()[END]).verdict is verdict
    assert judge.judge(catalogue()[INTERMITTENT_HANG_RULE]).verdict is race_verdict


NEEDS_PROCESSES = "faults.sync-survives-a-worker-death"


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        (TaskLocation.HOST, "same pid"),
        (TaskLocation.ELSEWHERE, "cannot see"),
        (TaskLocation.UNKNOWN, "no task was seen"),
    ],
)
def test_what_cannot_be_seen_is_not_judged(location: TaskLocation, reason: str, tmp_path: Path) -> None:
    store = VerdictStore(str(tmp_path))
    judge = Judge(outcomes({}, store), store, location=location)
    finding = judge.judge(catalogue()[NEEDS_PROCESSES])
    assert finding.verdict is Verdict.NOT_APPLICABLE
    assert reason in finding.actual


def test_what_the_family_lacks_is_not_judged(tmp_path: Path) -> None:
    store = VerdictStore(str(tmp_path))
    judge = Judge(outcomes({}, store), store, lacks={Capability.TERMINATE: "it has none"})
    rule = next(rule for rule in catalogue().values() if Capability.TERMINATE in rule.needs)
    finding = judge.judge(rule)
    assert finding.verdict is Verdict.NOT_APPLICABLE
    assert finding.actual == f"it has none (the rule needs {Capability.TERMINATE.value})"


def test_a_failure_of_a_replay_stands_as_it_is(tmp_path: Path) -> None:
    store = VerdictStore(str(tmp_path))
    stalled = Finding(Verdict.FAILED, failure_mode=FailureMode.STALLED)
    tries = {QUEUED_TIME: [stalled], "lifecycle.runs-a-task": [FAILED]}
    judge = Judge(outcomes(tries, store), store, replaying=True)
    assert judge.judge(catalogue()[QUEUED_TIME]) == replace_duration(stalled, judge, QUEUED_TIME)


@pytest.mark.parametrize(
    ("asked", "settled", "finding"),
    [
        (FIRST_TASK_RULE, FAILED, blocked_by(BUILDS)),
        (BUILDS, FAILED, FAILED),
        (BUILDS, blocked_by(FIRST_TASK_RULE), blocked_by(FIRST_TASK_RULE)),
    ],
)
def test_no_verdict_is_given_while_another_process_finds_the_rule_to_blame(
    asked: str, settled: Finding, finding: Finding, tmp_path: Path
) -> None:
    class SharedStore(VerdictStore):
        """Another process holds the lock on each failure, and saves its answer before it releases it."""

        @contextlib.contextmanager
        def settling(self, rule_id: str) -> Iterator[None]:
            self.save(rule_id, settled)
            with super().settling(rule_id):
                yield

    store = SharedStore(str(tmp_path))
    store.save(BUILDS, replace(FAILED, provisional=True))
    judge = judge_of(store, {}, {BUILDS, FIRST_TASK_RULE})
    assert replace(judge.judge(catalogue()[asked]), duration_s=0.0) == finding


@pytest.mark.parametrize(("lock", "suffix"), [(VerdictStore.locked, "0"), (VerdictStore.settling, "1")])
def test_one_process_at_a_time_judges_a_rule_and_finds_the_rule_to_blame(
    lock: Callable[[VerdictStore, str], contextlib.AbstractContextManager[None]], suffix: str, tmp_path: Path
) -> None:
    with (
        lock(VerdictStore(str(tmp_path)), BUILDS),
        open(tmp_path / "findings" / f"{BUILDS}.{suffix}") as file,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_process_that_was_killed_is_not_waited_for(tmp_path: Path) -> None:
    store = VerdictStore(str(tmp_path))
    judge = judge_of(store, {}, {BUILDS, FIRST_TASK_RULE})
    store.save(BUILDS, replace(FAILED, provisional=True))
    assert judge.judge(catalogue()[FIRST_TASK_RULE]).blocked_by == BUILDS


def test_hosts_hold_no_lock(tmp_path: Path) -> None:
    """A process that an executor leaves behind would hold it as long as it lives."""

    def body(blackboard: Blackboard) -> None:
        links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
        blackboard.write_result({"open": [os.readlink(link) for link in links if os.path.exists(link)]})

    store = VerdictStore(str(tmp_path))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with store.locked(BUILDS), store.settling(FIRST_TASK_RULE):
        ended = contain(body, limits=Limits(), scratch=str(scratch))
    assert ended.result is not None
    assert not [path for path in ended.result["open"] if BUILDS in path or FIRST_TASK_RULE in path]


def replace_duration(finding: Finding, judge: Judge, rule_id: str) -> Finding:
    known = judge.store.load(rule_id)
    assert known is not None
    return Finding(finding.verdict, failure_mode=finding.failure_mode, duration_s=known.duration_s)


def test_a_rule_not_reached_in_time_is_inconclusive(tmp_path: Path) -> None:
    store = VerdictStore(str(tmp_path))
    judge = Judge(outcomes({}, store), store, time_limit_s=240.0)
    store.add_lost_time(239.0)
    assert judge.judge(catalogue()["lifecycle.runs-a-task"]).verdict is Verdict.PASSED
    store.add_lost_time(1.0)
    finding = judge.judge(catalogue()[QUEUED_TIME])
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert finding.actual == "not run: the 240 s limit was reached (--conformance-time-limit)"


def test_the_default_time_limit_grows_with_what_a_hang_takes() -> None:
    idle, slow = (
        Calibration(fork_s=0.004 * scale, interpreter_s=0.06 * scale, jitter_s=0.0) for scale in (1, 4)
    )
    of_slow_executor = usual_time_limit_s(Budgets.of(idle, start_s=8.0, first_task_s=10.0))
    assert usual_time_limit_s(Budgets.of(slow)) == 4 * usual_time_limit_s(Budgets.of(idle))
    assert of_slow_executor > 4 * usual_time_limit_s(Budgets.of(idle))


def test_a_bug_of_the_suite_is_neither_a_pass_nor_a_failure(tmp_path: Path) -> None:
    def run(rule: Rule) -> Finding:
        raise LookupError("nothing there")

    finding = Judge(run, VerdictStore(str(tmp_path))).judge(catalogue()[QUEUED_TIME])
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert "internal error in executor-conformance (please report): LookupError" in finding.actual
