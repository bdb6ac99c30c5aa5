"""Tests that the committed specification is up to date, complete, and has valid links."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from executor_conformance.contract import LEGAL_TRANSITIONS, STATES
from executor_conformance.plugin.explain import explanation
from executor_conformance.rules import catalogue
from executor_conformance.specification import main, specification, states

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize(
    ("document", "name", "arguments"),
    [(specification, "specification.md", ""), (states, "states.md", " states")],
    ids=["specification", "states"],
)
def test_committed_document_is_up_to_date(document: Callable[[], str], name: str, arguments: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == document(), (
        f"run: python -m executor_conformance.specification{arguments} > docs/{name}"
    )


def test_command_prints_both_documents(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert capsys.readouterr().out == specification()
    main(["states"])
    assert capsys.readouterr().out == states()


@pytest.mark.parametrize("rule", catalogue().values(), ids=lambda rule: rule.id)
def test_rule_is_in_the_specification_and_explained(rule: object) -> None:
    assert f"### `{rule.id}`\n" in specification()  # type: ignore[attr-defined]
    text = explanation(rule)  # type: ignore[arg-type]
    assert text.startswith(rule.id)  # type: ignore[attr-defined]
    for heading in ("Why", "Likely causes", "Origin"):
        assert f"\n{heading}\n" in text


def test_links_lead_to_headings() -> None:
    text = specification()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert len(anchors) == len(headings)
    targets = re.findall(r"\]\(#([^)]*)\)", text)
    assert targets
    assert set(targets) <= anchors


def test_issue_numbers_are_links() -> None:
    assert re.search(
        r"\[apache/airflow#\d+\]\(https://github\.com/apache/airflow/issues/\d+\)", specification()
    )


def test_diagram_has_exactly_the_legal_transitions() -> None:
    drawn = set(re.findall(r"^    (\S+) --> (\S+)$", states(), re.MULTILINE))
    legal = {
        (before or "[*]", after) for before, following in LEGAL_TRANSITIONS.items() for after in following
    }
    final = {(state, "[*]") for state in STATES if not LEGAL_TRANSITIONS[state]}
    assert drawn == legal | final
