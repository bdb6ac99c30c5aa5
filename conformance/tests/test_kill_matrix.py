"""The published kill matrix has the executors and rules that there are, and every row of it is right."""

from __future__ import annotations

import pytest

from executor_conformance.rules import catalogue
from fixtures import specimens
from fixtures.kill_matrix import MATRIX, Row, blame_precision, document

REPEAT = "run: python -m fixtures.kill_matrix"


def row(breaks: str, *failed: str, name: str = "Some", undecided: int = 0) -> Row:
    specimen = specimens.Specimen(f"fixtures.broken.chapter:{name}", "It <breaks> a|b.", breaks)
    return Row(specimen, failed, blocked=3, undecided=undecided)


def test_a_row_is_exact_if_only_the_broken_rule_failed() -> None:
    assert row("a.b", "a.b").is_exact
    assert not row("a.b").is_exact
    assert not row("a.b", "a.c").is_exact
    assert not row("a.b", "a.b", "a.c").is_exact
    assert not row("a.b", "a.b", undecided=1).is_exact


def test_blame_precision_counts_failures_that_name_the_promise() -> None:
    assert blame_precision([row("a.b", "a.b"), row("a.b", "a.b", "a.c"), row("a.b", "a.d"), row("a.b")]) == (
        2,
        4,
    )


def test_the_order_is_that_of_the_specification_whatever_order_the_runs_ended_in() -> None:
    first, second, *_ = catalogue()
    rows = [row(second, second), row(first, first, name="Zebra"), row(first, first, name="Ant")]
    text = document(rows)
    assert text == document(reversed(rows))
    assert text.index(":Ant`") < text.index(":Zebra`") < text.index(":Some`")
    assert r"It &lt;breaks> a\|b." in text


@pytest.fixture(name="committed")
def read_matrix() -> str:
    assert MATRIX.exists(), REPEAT
    return MATRIX.read_text(encoding="utf-8")


def test_the_committed_matrix_knows_every_broken_executor_and_rule(committed: str) -> None:
    rows = [row for row in committed.splitlines() if row.startswith("| `") and row.count(" | ") == 4]
    shown = {(cells[0].strip("| `"), cells[2].strip("`")) for cells in (row.split(" | ") for row in rows)}
    assert shown == {(specimen.name, specimen.breaks) for specimen in specimens.broken()}, REPEAT
    for rule_id in catalogue():
        assert f"| `{rule_id}` | " in committed, REPEAT


def test_every_row_of_the_committed_matrix_is_exact(committed: str) -> None:
    rows = [
        row.split(" | ") for row in committed.splitlines() if row.startswith("| `") and row.count(" | ") == 4
    ]
    assert [cells[0] for cells in rows if cells[3] != "that rule"] == []
    assert "**none**" not in committed
