"""Each broken executor fails the rule that it breaks.

That it fails no other is what the kill matrix shows: it judges each by every rule, which takes an hour.
"""

from __future__ import annotations

import pytest

from fixtures import judging, specimens


@pytest.mark.parametrize("specimen", specimens.broken(), ids=lambda specimen: specimen.name)
def test_the_broken_promise_is_named(specimen: specimens.Specimen) -> None:
    outcome = judging.decide(specimen, only=specimen.breaks)
    assert outcome.having("failed") == [specimen.breaks], outcome.story()
