"""Tests of the catalogue: complete docstrings, ids that select one rule, no cycles in ``after``."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from executor_conformance.judging.blame import OWNERS_OF_CALLS, OWNERS_OF_MODES
from executor_conformance.requirements import Capability, Observation
from executor_conformance.rules import (
    CHAPTERS,
    Chapter,
    Level,
    Rule,
    UnknownRule,
    catalogue,
    find,
    preamble,
)
from executor_conformance.rules.catalogue import gateways
from fixtures import specimens

REPOSITORY = Path(__file__).resolve().parents[2]
#: Mistyped ids in the tests of suggestions.
MISTYPED = {
    "lifecycle.runs-task",
    "lifecycle.runs-a-tsk",
    "lifecycle.runs-a-taks",
    "lifecycle.end-twce-is-harmless",
    "model.random-sequences-keep-every-invarint",
}

RULES = list(catalogue().values())
EACH_RULE = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)

BROKEN = specimens.broken()


@EACH_RULE
def test_rule_is_complete(rule: Rule) -> None:
    assert rule.statement.endswith((".", ":")), "the statement must be a sentence"
    assert rule.why.endswith(".")
    assert len(rule.causes) >= 2, "a rule needs two likely causes"
    assert all(rule.causes)
    assert rule.origins
    assert all(isinstance(need, (Capability, Observation)) for need in rule.needs)


@EACH_RULE
def test_origin_has_a_number(rule: Rule) -> None:
    for origin in rule.origins:
        assert len(origin) > 8, origin
        for number in re.findall(r"#(\S*)", origin):
            assert re.match(r"\d+", number), f"{origin}: an issue needs a number"


@EACH_RULE
def test_after_names_existing_rules(rule: Rule) -> None:
    assert set(rule.after) <= set(catalogue()), "is the tuple missing its comma?"
    assert rule.id not in rule.after


@EACH_RULE
def test_must_rule_is_not_after_a_should_rule(rule: Rule) -> None:
    # Else a failed should rule would block a must rule, and the executor would be conformant.
    if rule.level is Level.MUST:
        assert all(find(before).level is Level.MUST for before in rule.after)


def test_ids_are_unique_and_well_formed() -> None:
    ids = [rule.id for rule in RULES]
    assert len(set(ids)) == len(ids)
    for rule in RULES:
        assert re.fullmatch(r"[a-z_]+\.[a-z0-9-]+", rule.id)
        assert rule.id.startswith(rule.chapter.name + ".")


def test_id_as_k_expression_selects_one_rule() -> None:
    for one, other in itertools.permutations((rule.id for rule in RULES), 2):
        assert one not in other


def test_after_has_no_cycles() -> None:
    def walk(rule_id: str, path: tuple[str, ...]) -> None:
        assert rule_id not in path, " -> ".join((*path, rule_id))
        for before in catalogue()[rule_id].after:
            walk(before, (*path, rule_id))

    for rule in RULES:
        walk(rule.id, ())


def test_gateways_and_owners_of_calls_are_must_rules() -> None:
    for rule_id in (*gateways(), *itertools.chain(*OWNERS_OF_CALLS.values(), *OWNERS_OF_MODES.values())):
        assert find(rule_id).level is Level.MUST


@pytest.mark.parametrize("chapter", CHAPTERS.values(), ids=lambda chapter: chapter.name)
def test_chapter_has_a_preamble_and_rules(chapter: Chapter) -> None:
    assert len(preamble(chapter)) > 80
    assert any(rule.chapter == chapter for rule in RULES)


def test_mistyped_rule_suggests_the_closest_one() -> None:
    with pytest.raises(UnknownRule, match=r"did you mean 'lifecycle\.runs-a-task'"):
        find("lifecycle.runs-task")


@EACH_RULE
def test_rule_has_a_broken_executor(rule: Rule) -> None:
    assert rule.id in {specimen.breaks for specimen in BROKEN}, "no executor in fixtures/broken violates it"


@pytest.mark.parametrize("specimen", BROKEN, ids=lambda specimen: specimen.name)
def test_broken_executor_has_a_rule_and_a_description(specimen: specimens.Specimen) -> None:
    find(specimen.breaks)
    assert len(specimen.description) > 10


_ID = re.compile(rf"(?<![\w./-])(?:{'|'.join(CHAPTERS)})\.[a-z][a-z0-9]*(?:-[a-z0-9]+)+(?![\w-])")


@pytest.mark.parametrize(
    "file",
    [
        path
        for folder in ("conformance", "fixtures", "benchmarks", "docs", "reference", ".")
        for pattern in (("*.py", "*.md", "*.toml") if folder != "." else ("*.md",))
        for path in (REPOSITORY / folder).glob(pattern if folder == "." else f"**/{pattern}")
    ],
    ids=lambda path: str(path.relative_to(REPOSITORY)),
)
def test_rule_ids_in_files_exist(file: Path) -> None:
    """Check ids in strings and documents, because no import checks them."""
    unknown = set(_ID.findall(file.read_text(encoding="utf-8"))) - set(catalogue()) - MISTYPED
    if file.is_relative_to(REPOSITORY / "conformance" / "tests"):  # -k takes a part of an id
        unknown = {part for part in unknown if not any(part in rule_id for rule_id in catalogue())}
    assert not unknown, f"{file.name} names rules that do not exist"
