"""In which order rules are judged, and how often they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from executor_conformance.judge import Judge, VerdictStore
from executor_conformance.rules import NOT_ALWAYS, Rule, catalogue
from executor_conformance.verdicts import Aside, Finding, Verdict

BUILDS = "interface.builds-with-parallelism"


def test_what_is_blocked_is_looked_up_as_seldom_as_what_passes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Rules build on rules that build on rules: a walk along each way there would take ages."""
    nothing: Any = None
    judge = Judge(nothing, nothing, nothing, str(tmp_path), selected=frozenset(catalogue()))
    lookups = []
    load = VerdictStore.load

    def counted(store: VerdictStore, rule_id: str) -> Finding | None:
        lookups.append(rule_id)
        return load(store, rule_id)

    monkeypatch.setattr(VerdictStore, "load", counted)
    monkeypatch.setattr(
        Judge,
        "_finding_on",
        lambda _, rule: Finding(Verdict.FAILED if rule.id == BUILDS else Verdict.BLOCKED, blocked_by=BUILDS),
    )
    for rule in catalogue().values():
        judge.judge(rule)
    ways = sum(len(rule.after) for rule in catalogue().values())
    assert len(lookups) <= 2 * (ways + len(catalogue()))


def _as_it_goes(tries: dict[str, list[str]]) -> Callable[[Judge, Rule], Finding]:
    """What comes of each rule, one time after the other; the last of them again and again."""
    hung = Finding(Verdict.FAILED, aside=Aside.HUNG, measurements={"hung_call": "end()"})
    findings = {"hung": hung, "passed": Finding(Verdict.PASSED), "failed": Finding(Verdict.FAILED)}

    def finding_on(judge: Judge, rule: Rule) -> Finding:
        left = tries.get(rule.id, ["passed"])
        name = left.pop(0) if len(left) > 1 else left[0]
        if name == "hung":
            judge.store.add_hang("end()", rule.id)
        return findings[name]

    return finding_on


@pytest.mark.parametrize(
    ("rule_id", "tries", "verdict"),
    [
        ("queued_time.the-first-instruction-comes-soon", ["hung", "passed"], Verdict.PASSED),
        ("queued_time.the-first-instruction-comes-soon", ["hung", "hung", "failed"], Verdict.FAILED),
        ("queued_time.the-first-instruction-comes-soon", ["hung"], Verdict.BLOCKED),
        ("shutdown.end-returns-after-a-worker-died", ["hung"], Verdict.FAILED),
    ],
)
def test_who_hangs_now_and_then_is_told_once(
    rule_id: str, tries: list[str], verdict: Verdict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What a rule is about is judged all the same, and the call is made again by the others."""
    nothing: Any = None
    judge = Judge(nothing, nothing, nothing, str(tmp_path), selected=frozenset({rule_id}))
    monkeypatch.setattr(Judge, "_finding_on", _as_it_goes({rule_id: tries, NOT_ALWAYS: ["hung"]}))
    assert judge.judge(catalogue()[rule_id]).verdict is verdict
    assert judge.judge(catalogue()[NOT_ALWAYS]).verdict is Verdict.FAILED
    assert not judge.store.hung_calls()


@pytest.mark.parametrize(
    ("tries", "at_any_pace", "verdict", "of_the_pace"),
    [
        (["hung", "hung", "passed"], "hung", Verdict.PASSED, Verdict.FAILED),
        (["hung", "failed"], "hung", Verdict.FAILED, Verdict.BLOCKED),
        (["hung", "passed"], "passed", Verdict.FAILED, Verdict.PASSED),
        (["hung"], "hung", Verdict.FAILED, Verdict.BLOCKED),
    ],
)
def test_bad_luck_of_the_first_rule_blocks_nothing(
    tries: list[str],
    at_any_pace: str,
    verdict: Verdict,
    of_the_pace: Verdict,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """What hangs by chance is the failure of the rule that meets it each time, if there is one."""
    exits = catalogue()["shutdown.every-worker-exits"]
    nothing: Any = None
    judge = Judge(nothing, nothing, nothing, str(tmp_path), selected=frozenset({exits.id, NOT_ALWAYS}))
    monkeypatch.setattr(Judge, "_finding_on", _as_it_goes({exits.id: tries, NOT_ALWAYS: [at_any_pace]}))
    assert judge.judge(exits).verdict is verdict
    assert judge.judge(catalogue()[NOT_ALWAYS]).verdict is of_the_pace
