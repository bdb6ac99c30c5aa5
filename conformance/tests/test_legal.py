"""No legal executor, however odd, fails a rule; and no rule stays undecided on one.

Each is judged where it is odd (``odd_in``); ``benchmarks/stability.py`` judges it by every rule.
"""

from __future__ import annotations

import pytest

from executor_conformance.rules import Level, find
from fixtures import judging, specimens


@pytest.mark.parametrize("specimen", specimens.legal(), ids=lambda specimen: specimen.name)
def test_what_is_right_is_not_called_wrong(specimen: specimens.Specimen) -> None:
    outcome = judging.decide(specimen, only=specimen.odd_in)
    wrong = outcome.having("failed", "inconclusive", "blocked")
    assert all(find(rule).level is Level.MAY for rule in wrong), outcome.story()
    assert outcome.having("passed"), outcome.output
