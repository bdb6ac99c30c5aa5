"""Each broken executor fails the rule that it breaks, and no other rule of that chapter.

That no rule of another chapter fails either is what the kill matrix shows: it judges each of them by every rule,
which takes too long for each run of the tests.
"""

from __future__ import annotations

import pytest

from fixtures import judging, specimens


@pytest.mark.parametrize("specimen", specimens.broken(), ids=lambda specimen: specimen.name)
def test_the_broken_promise_is_named_and_no_other(specimen: specimens.Specimen) -> None:
    outcome = judging.judge(specimen, chapter=specimen.breaks.partition(".")[0])
    assert outcome.having("failed") == [specimen.breaks], outcome.story()
    assert not outcome.having("inconclusive"), outcome.story()
