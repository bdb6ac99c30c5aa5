"""The catalogue: complete docstrings, ids that select one rule, and an order of blame without circles."""

from __future__ import annotations

import itertools
import re

import pytest

from executor_conformance.driving import Capability
from executor_conformance.rules import (
    CHAPTERS,
    GATEWAYS,
    OWNERS,
    OWNERS_OF_CALLS,
    Level,
    Rule,
    UnknownRule,
    catalogue,
    find,
    preamble,
)
from fixtures import specimens

RULES = list(catalogue().values())
EACH_RULE = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)

BROKEN = specimens.broken()


@EACH_RULE
def test_each_rule_says_all_that_there_is_to_say(rule: Rule) -> None:
    assert rule.statement.endswith((".", ":")), "the statement is a sentence"
    assert rule.why.endswith(".")
    assert len(rule.causes) >= 2, "one likely cause is a guess"
    assert all(rule.causes)
    assert rule.origins
    assert all(isinstance(need, Capability) for need in rule.needs)


@EACH_RULE
def test_each_origin_can_be_looked_up(rule: Rule) -> None:
    for origin in rule.origins:
        assert len(origin) > 8, origin
        for number in re.findall(r"#(\S*)", origin):
            assert re.match(r"\d+", number), f"{origin}: a report has a number"


@EACH_RULE
def test_each_rule_builds_on_rules_that_exist(rule: Rule) -> None:
    assert set(rule.after) <= set(catalogue()), "written as a tuple, with its comma?"
    assert rule.id not in rule.after


@EACH_RULE
def test_no_must_rule_builds_on_a_should_rule(rule: Rule) -> None:
    # A broken should rule would then hide a broken must rule, and the executor would be called conformant.
    if rule.level is Level.MUST:
        assert all(find(before).level is Level.MUST for before in rule.after)


def test_ids_are_unique_and_in_the_form_of_the_report() -> None:
    ids = [rule.id for rule in RULES]
    assert len(set(ids)) == len(ids)
    for rule in RULES:
        assert re.fullmatch(r"[a-z_]+\.[a-z0-9-]+", rule.id)
        assert rule.id.startswith(rule.chapter + ".")
    assert [rule.number for rule in RULES] == [
        f"{number}.{index}"
        for number, chapter in enumerate(CHAPTERS, 1)
        for index, _ in enumerate((rule for rule in RULES if rule.chapter == chapter), 1)
    ]


def test_an_id_given_to_k_selects_one_rule() -> None:
    for one, other in itertools.permutations((rule.id for rule in RULES), 2):
        assert one not in other


def test_blame_goes_round_in_no_circle() -> None:
    def walk(rule_id: str, path: tuple[str, ...]) -> None:
        assert rule_id not in path, " -> ".join((*path, rule_id))
        for before in catalogue()[rule_id].after:
            walk(before, (*path, rule_id))

    for rule in RULES:
        walk(rule.id, ())


def test_gateways_and_owners_of_calls_are_must_rules() -> None:
    for rule_id in (*GATEWAYS, *itertools.chain(*OWNERS_OF_CALLS.values(), *OWNERS.values())):
        assert find(rule_id).level is Level.MUST


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_each_chapter_has_a_preamble_and_rules(chapter: str) -> None:
    assert len(preamble(chapter)) > 80
    assert any(rule.chapter == chapter for rule in RULES)


def test_a_mistyped_rule_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownRule, match=r"did you mean 'lifecycle\.runs-a-task'"):
        find("lifecycle.runs-task")


@EACH_RULE
def test_each_rule_has_been_seen_to_fail(rule: Rule) -> None:
    assert rule.id in {specimen.breaks for specimen in BROKEN}, "no executor in fixtures/broken breaks it"


@pytest.mark.parametrize("specimen", BROKEN, ids=lambda specimen: specimen.name)
def test_each_broken_executor_names_a_rule_and_tells_how_it_misbehaves(specimen: specimens.Specimen) -> None:
    find(specimen.breaks)
    assert len(specimen.description) > 10
