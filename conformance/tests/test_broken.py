"""Tests that each broken executor fails the rule that it violates.

The kill matrix checks that it fails no other rule.  It runs every rule on each executor, which takes an hour.
"""

from __future__ import annotations

import pytest

from fixtures import judging, specimens


@pytest.mark.parametrize("specimen", specimens.broken(), ids=lambda specimen: specimen.name)
def test_broken_executor_fails_its_rule(specimen: specimens.Specimen) -> None:
    outcome = judging.decide(specimen, only=specimen.breaks, hurried=True)
    assert outcome.having("failed") == [specimen.breaks], outcome.describe()
