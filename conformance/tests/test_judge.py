"""In which order rules are judged, and how often they are asked for."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("tries", "verdict"),
    [
        (["hung", "passed"], Verdict.PASSED),
        (["hung", "hung", "failed"], Verdict.FAILED),
        (["hung"] * 5, Verdict.FAILED),
    ],
)
def test_who_hangs_now_and_then_is_told_once(
    tries: list[str], verdict: Verdict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What a rule is about is judged all the same, and the call is made again by the others."""
    hung = Finding(Verdict.FAILED, aside=Aside.HUNG, measurements={"hung_call": "end()"})
    findings = {"hung": hung, "passed": Finding(Verdict.PASSED), "failed": Finding(Verdict.FAILED)}
    soon = catalogue()["queued_time.the-first-instruction-comes-soon"]
    nothing: Any = None
    judge = Judge(nothing, nothing, nothing, str(tmp_path), selected=frozenset({soon.id}))
    left = list(tries)

    def finding_on(_: Judge, rule: Rule) -> Finding:
        name = left.pop(0) if rule == soon else "hung" if rule.id == NOT_ALWAYS else "passed"
        if name == "hung":
            judge.store.add_hang("end()", rule.id)
        return findings[name]

    monkeypatch.setattr(Judge, "_finding_on", finding_on)
    assert judge.judge(soon).verdict is verdict
    assert not left
    told = judge.store.load(NOT_ALWAYS)
    assert told is not None
    assert told.verdict is Verdict.FAILED
    assert not judge.store.hung_calls()
