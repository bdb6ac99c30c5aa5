"""No legal executor, however odd, fails a rule; and no rule stays undecided on one."""

from __future__ import annotations

import pytest

from fixtures import judging, specimens


@pytest.mark.parametrize("specimen", specimens.legal(), ids=lambda specimen: specimen.name)
def test_what_is_right_is_not_called_wrong(specimen: specimens.Specimen) -> None:
    outcome = judging.judge(specimen)
    assert not outcome.having("failed", "inconclusive", "blocked"), outcome.story()
    assert outcome.having("passed"), outcome.output
