"""Which rules the user selected: by ``-k``, or by arguments such as ``shutdown::every-worker-exits``."""

from __future__ import annotations

import difflib
import os
import re

import pytest

from executor_conformance.rules import CHAPTERS, UnknownRule, catalogue, find

#: Between a chapter and the name of a rule, as pytest and as the reports write it.
_SEPARATOR = re.compile(r"::|\.")


def check_expression(expression: str) -> None:
    """Reject a ``-k`` that names a rule which does not exist: it would silently select too little."""
    for word in re.findall(rf"(?:{'|'.join(CHAPTERS)})\.[\w.-]+", expression):
        if not any(word in rule_id for rule_id in catalogue()):
            try:
                find(word)
            except UnknownRule as error:
                raise pytest.UsageError(f"-k {expression!r}: {error}") from None


def names_rules(arguments: list[str]) -> bool:
    """Whether an argument of pytest names rules; a file or a folder of the same name comes first."""
    return any(map(_may_name_rules, arguments))


def take_named_rules(arguments: list[str]) -> frozenset[str]:
    """Remove the arguments that name rules, and return the ids of these rules.

    :param arguments: of pytest: a chapter, ``chapter::rule`` as pytest prints it, or a rule id.
    :raises pytest.UsageError: there is no such rule; the text suggests one.
    """
    rules: set[str] = set()
    paths = []
    for argument in arguments:
        if not _may_name_rules(argument):
            paths.append(argument)
        elif argument in CHAPTERS:
            rules.update(rule.id for rule in catalogue().values() if rule.chapter.name == argument)
        elif _SEPARATOR.search(argument) is None:
            near = difflib.get_close_matches(argument, CHAPTERS, n=1)
            raise pytest.UsageError(f"there is no chapter {argument!r}; did you mean {near[0]!r}?")
        else:
            try:
                rules.add(find(_SEPARATOR.sub(".", argument, count=1)).id)
            except UnknownRule as error:
                raise pytest.UsageError(str(error)) from None
    arguments[:] = paths
    return frozenset(rules)


def _may_name_rules(argument: str) -> bool:
    path, separator, _ = argument.partition("::")
    if "/" in argument or argument.endswith(".py") or os.path.isfile(path):
        return False
    if os.path.isdir(path):
        return bool(separator) and path in CHAPTERS  # pytest takes no "::" after a folder
    chapter, dot, _ = path.partition(".")
    if dot:
        return chapter in CHAPTERS
    return bool(difflib.get_close_matches(chapter, CHAPTERS, n=1, cutoff=0.8))
