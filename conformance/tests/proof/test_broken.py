"""Each broken executor fails the rule that it breaks, and is judged right by the rules around it.

One executor for each rule is judged by the whole chapter, the others by that rule alone.  That none of them
fails any other rule is what the kill matrix shows: it judges each by every rule, which takes an hour.
"""

from __future__ import annotations

import pytest

from fixtures import judging, specimens

BROKEN = specimens.broken()
#: The first of each rule.
BY_RULE = {specimen.breaks: specimen for specimen in reversed(BROKEN)}


@pytest.mark.parametrize("specimen", BROKEN, ids=lambda specimen: specimen.name)
def test_the_broken_promise_is_named_and_no_other(specimen: specimens.Specimen) -> None:
    chapter = specimen.breaks.partition(".")[0]
    whole = BY_RULE[specimen.breaks] is specimen
    outcome = judging.judge(specimen, only=f"{chapter}." if whole else specimen.breaks)
    assert outcome.having("failed") == [specimen.breaks], outcome.story()
    assert not outcome.having("inconclusive"), outcome.story()
