"""Reads the rules: from the source of the chapters, without importing them.

So the specification can be read where the harness cannot be imported, such as on another system, and reading
it costs no import of what only running it needs.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from executor_conformance.requirements import Capability, Need, Observation
from executor_conformance.rules.chapters import CHAPTERS, Chapter
from executor_conformance.rules.declaration import Budget, Level, RuleBody, Turn

_PACKAGE = "executor_conformance.rules"
_NEEDS = {"Capability": Capability, "Observation": Observation}
_LEVELS = {level.value: level for level in Level}


@dataclass(frozen=True)
class Rule:
    """One promise, and how it is judged.

    :param needs: the rule is not applicable where one of these is missing.
    :param after: ids of rules which, broken, explain a failure of this one; the gateways come first.
    :param gateway: nothing can be judged where this rule failed.
    :param events_only: it only looks at the events of others.
    :param budget: what bounds its time.
    :param turn: when it runs.
    :param module: of the function that checks it.
    :param line: of its ``def``, counted from 1.
    """

    id: str
    chapter: Chapter
    level: Level
    statement: str
    why: str
    causes: tuple[str, ...]
    origins: tuple[str, ...]
    needs: tuple[Need, ...]
    after: tuple[str, ...]
    gateway: bool
    events_only: bool
    budget: Budget
    turn: Turn
    module: str
    function: str
    line: int

    @property
    def name(self) -> str:
        """The id without its chapter."""
        return self.id.partition(".")[2]

    @property
    def replayable(self) -> bool:
        """Whether a failure can be performed again from a file (``--replay``)."""
        return self.budget == "programs"

    @property
    def body(self) -> RuleBody:
        """The function that checks it; needs the harness, and so Linux."""
        body: RuleBody = getattr(importlib.import_module(self.module), self.function)
        return body


class UnknownRule(LookupError):
    """No rule has this id; the text suggests one."""


@functools.cache
def catalogue() -> dict[str, Rule]:
    """Every rule by id, in the order of the specification."""
    declarations = [
        declaration
        for chapter in CHAPTERS.values()
        for module in chapter.modules
        for declaration in _declarations(chapter, f"{_PACKAGE}.{module}")
    ]
    gateways = [declaration.id for declaration in declarations if declaration.values.get("gateway")]
    return {declaration.id: _rule(declaration, gateways) for declaration in declarations}


@functools.cache
def gateways() -> tuple[str, ...]:
    """Rules which, broken, leave nothing to judge, in the order of the specification."""
    return tuple(rule.id for rule in catalogue().values() if rule.gateway)


def preamble(chapter: Chapter) -> str:
    """The introduction of a chapter."""
    return ast.get_docstring(_source(f"{_PACKAGE}.{chapter.name}")) or ""


def find(rule_id: str) -> Rule:
    """The rule with this id.

    :raises UnknownRule: there is none.
    """
    rules = catalogue()
    if rule_id not in rules:
        near = difflib.get_close_matches(rule_id, rules, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UnknownRule(f"there is no rule {rule_id!r}{hint} (--conformance-rules lists all rules)")
    return rules[rule_id]


# -- reading -------------------------------------------------------------------------------------------------


def _source(module: str) -> ast.Module:
    package, _, name = module.rpartition(".")
    folder = resources.files(_PACKAGE)
    for part in package.removeprefix(_PACKAGE).strip(".").split("."):
        folder = folder / part if part else folder
    file = folder / f"{name}.py"
    if not file.is_file():
        file = folder / name / "__init__.py"
    return ast.parse(file.read_text(encoding="utf-8"), f"{module}.py")


@dataclass(frozen=True)
class _Declaration:
    """A rule as it stands in the source.

    It keeps no part of the syntax tree: the trees of all chapters together take 9 MB, and each host would
    inherit the pages.

    :param values: the arguments of its decorator.
    """

    chapter: Chapter
    module: str
    function: str
    line: int
    docstring: str
    level: Level
    values: Mapping[str, Any]

    @property
    def id(self) -> str:
        return f"{self.chapter.name}.{self.function.replace('_', '-')}"


def _declarations(chapter: Chapter, module: str) -> Iterator[_Declaration]:
    source = _source(module)
    constants = {
        statement.targets[0].id: statement.value
        for statement in source.body
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    }
    for function in source.body:
        for decorator in function.decorator_list if isinstance(function, ast.FunctionDef) else ():
            called = decorator.func if isinstance(decorator, ast.Call) else None
            if isinstance(called, ast.Name) and called.id in _LEVELS:
                assert isinstance(function, ast.FunctionDef)
                assert isinstance(decorator, ast.Call)
                yield _Declaration(
                    chapter,
                    module,
                    function.name,
                    function.lineno,
                    ast.get_docstring(function) or "",
                    _LEVELS[called.id],
                    {str(one.arg): _value(one.value, constants) for one in decorator.keywords},
                )


def _value(node: ast.expr, constants: Mapping[str, ast.expr]) -> Any:
    """A declared value: a literal, a need, or a tuple of them in which constants may be unpacked."""
    if isinstance(node, ast.Tuple):
        values: list[Any] = []
        for element in node.elts:
            if isinstance(element, ast.Starred):
                values += _value(element.value, constants)
            else:
                values.append(_value(element, constants))
        return tuple(values)
    if isinstance(node, ast.Name) and node.id in constants:
        return _value(constants[node.id], constants)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in _NEEDS:
        return _NEEDS[node.value.id][node.attr]
    return ast.literal_eval(node)


_SECTION = re.compile(r"^(Why|Likely causes|Origin):[ ]*", re.MULTILINE)


def _rule(declaration: _Declaration, gateways: list[str]) -> Rule:
    values = declaration.values
    pieces = _SECTION.split(declaration.docstring)
    sections = {name: " ".join(text.split()) for name, text in zip(pieces[1::2], pieces[2::2], strict=True)}
    if declaration.id in gateways:
        before = gateways[: gateways.index(declaration.id)]
    else:
        before = gateways if values.get("runs_tasks", True) else gateways[:1]
    return Rule(
        id=declaration.id,
        chapter=declaration.chapter,
        level=declaration.level,
        statement=" ".join(pieces[0].split()),
        why=_sentence(sections.get("Why", "")),
        causes=_listed(sections.get("Likely causes", "")),
        origins=_listed(sections.get("Origin", "")),
        needs=values.get("needs", ()),
        after=tuple(dict.fromkeys((*before, *values.get("after", ())))),
        gateway=values.get("gateway", False),
        events_only=values.get("events_only", False),
        budget=values.get("budget", "rule"),
        turn=values.get("turn", "in order"),
        module=declaration.module,
        function=declaration.function,
        line=declaration.line,
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip(" .") for part in text.split(";") if part.strip())
