"""In which order rules are judged, and how often they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from executor_conformance.judge import Judge, VerdictStore
from executor_conformance.rules import catalogue
from executor_conformance.verdicts import Finding, Verdict

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
