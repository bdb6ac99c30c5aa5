"""``--explain RULE`` and ``--conformance-rules``: the specification on the terminal."""

from __future__ import annotations

import textwrap

import pytest

from executor_conformance.rules import CHAPTERS, Rule, UnknownRule, catalogue, find

_WIDTH = 79


def main(config: pytest.Config) -> int:
    """Print what was asked for; the exit status."""
    if config.option.conformance_rules:
        print(listing())
        return 0
    try:
        print(explanation(find(config.option.explain)))
    except UnknownRule as error:
        raise pytest.UsageError(f"--explain: {error}") from None
    return 0


def explanation(rule: Rule) -> str:
    """Everything that is known of a rule."""
    lines = [f"{rule.id} ({rule.level})", "", *_wrapped(rule.statement), ""]
    lines += ["Why", *_wrapped(rule.why), "", "Likely causes"]
    lines += [line for cause in rule.causes for line in _wrapped(cause, "- ")]
    lines += ["", "Origin", *(line for origin in rule.origins for line in _wrapped(origin, "- "))]
    if rule.needs:
        lines += ["", "Needs", *(line for need in rule.needs for line in _wrapped(need.value, "- "))]
    if rule.after:
        lines += ["", "Builds on", *(line for before in rule.after for line in _wrapped(before, "- "))]
    return "\n".join(lines)


def listing() -> str:
    """All rules, a line each."""
    lines = []
    for chapter in CHAPTERS.values():
        lines.append(chapter.name)
        lines += [f"  {rule.level:<7} {rule.id}" for rule in catalogue().values() if rule.chapter == chapter]
    lines.append(f"{len(catalogue())} rules; --explain RULE shows one in full")
    return "\n".join(lines)


def plain(text: str) -> str:
    """Docstring text for a terminal: without markup."""
    return text.replace("``", "")


def _wrapped(text: str, bullet: str = "") -> list[str]:
    return textwrap.wrap(
        plain(text),
        _WIDTH,
        initial_indent="  " + bullet,
        subsequent_indent="  " + " " * len(bullet),
        break_on_hyphens=False,
    )
