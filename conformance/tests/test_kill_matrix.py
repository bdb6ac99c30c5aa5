"""Tests of the kill matrix: when a row is exact, the order of rows, the blame precision."""

from __future__ import annotations

from dataclasses import replace

from executor_conformance.rules import catalogue
from fixtures import specimens
from fixtures.kill_matrix import MATRIX, Row, blame_precision, document, read


def row(breaks: str, *failed: str, name: str = "Some", undecided: int = 0) -> Row:
    specimen = specimens.Specimen(f"fixtures.broken.chapter:{name}", "It <breaks> a|b.", breaks)
    return Row(specimen, failed, blocked=3, undecided=undecided, rules=len(catalogue()))


def test_row_is_exact_if_only_its_rule_failed() -> None:
    assert row("a.b", "a.b").is_exact
    assert not row("a.b").is_exact
    assert not row("a.b", "a.c").is_exact
    assert not row("a.b", "a.b", "a.c").is_exact
    assert not row("a.b", "a.b", undecided=1).is_exact


def test_blame_precision_counts_failures_of_the_violated_rule() -> None:
    assert blame_precision([row("a.b", "a.b"), row("a.b", "a.b", "a.c"), row("a.b", "a.d"), row("a.b")]) == (
        2,
        4,
    )


def test_rows_are_in_the_order_of_the_specification() -> None:
    first, second, *_ = catalogue()
    rows = [row(second, second), row(first, first, name="Zebra"), row(first, first, name="Ant")]
    text = document(rows)
    assert text == document(reversed(rows))
    assert text.index(":Ant`") < text.index(":Zebra`") < text.index(":Some`")
    assert r"It &lt;breaks> a\|b." in text


def test_written_matrix_can_be_read_again() -> None:
    first, second, *_ = catalogue()
    rows = [
        row(first, first, name="Exact"),
        row(first, second, first, name="Two", undecided=2),
        row(second, name="Missed"),
    ]
    text = document(rows)
    assert document(read(text)) == text
    assert "fewer than" not in text
    assert [one.failed for one in read(text)] == [(first,), (second, first), ()]


def test_a_row_tells_by_how_many_rules_it_was_judged() -> None:
    first, *_ = catalogue()
    new = row(first, first, name="New")
    old, unknown = replace(new, rules=100), replace(new, rules=0)
    assert [one.is_stale for one in (new, old, unknown)] == [False, True, True]
    text = document([new, old, unknown])
    assert f"2 of these rows may be from when there were fewer than {len(catalogue())} rules." in text
    assert sorted(one.rules for one in read(text)) == [0, 100, len(catalogue())]


def test_committed_matrix_names_every_executor_and_is_exact() -> None:
    lines = [line.split(" | ") for line in MATRIX.read_text(encoding="utf-8").splitlines() if "`" in line]
    rows = {cells[0].strip("| `"): cells for cells in lines if len(cells) == 6}
    by_rule = {cells[0].strip("| `"): cells for cells in lines if len(cells) == 3}
    pending = [
        line.split("`")[1] for line in MATRIX.read_text(encoding="utf-8").splitlines() if line[:3] == "- `"
    ]
    assert sorted([*rows, *pending]) == sorted(specimen.name for specimen in specimens.broken())
    assert list(by_rule) == list(catalogue())
    assert [name for name, cells in rows.items() if cells[3] != "that rule"] == []
    assert [rule for rule, cells in by_rule.items() if "**none**" in cells[2]] == []
