"""Tests that each broken executor fails the rule that it violates.

The kill matrix checks that it fails no other rule.  It runs every rule on each executor, which takes hours.
"""

from __future__ import annotations

from typing import Any

import pytest

from fixtures import judging, specimens

#: In a hurry, among other tests, nearly every verdict is right.  If one is not, the suite runs as it does for
#: users, and in the end without other tests that keep the processors busy.
_WAYS: tuple[dict[str, Any], ...] = ({"hurried": True}, {}, {"alone": True})


@pytest.mark.parametrize("specimen", specimens.broken(), ids=lambda specimen: specimen.name)
def test_broken_executor_fails_its_rule(specimen: specimens.Specimen) -> None:
    for way in _WAYS:
        outcome = judging.judge(specimen, only=specimen.breaks, **way)
        if outcome.having("failed") == [specimen.breaks]:
            return
        print(outcome.describe())
    pytest.fail(outcome.describe())
