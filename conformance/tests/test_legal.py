"""Tests that no rule fails, or is inconclusive, on a legal executor, however unusual.

Each runs only the rules that its unusual behavior affects (``odd_in``); ``benchmarks/stability.py`` runs all.
"""

from __future__ import annotations

import pytest

from executor_conformance.rules import Level, find
from fixtures import judging, specimens


@pytest.mark.parametrize("specimen", specimens.legal(), ids=lambda specimen: specimen.name)
def test_legal_executor_passes(specimen: specimens.Specimen) -> None:
    outcome = judging.decide(specimen, only=specimen.odd_in)
    wrong = outcome.having("failed", "inconclusive", "blocked")
    assert all(find(rule).level is Level.MAY for rule in wrong), outcome.describe()
    assert outcome.having("passed"), outcome.output
