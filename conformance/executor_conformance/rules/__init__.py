"""The specification: one module a chapter, one function a rule.

A rule is a function that takes a :class:`~executor_conformance.harness.trial.Trial` and returns if the
promise was kept.  Its docstring is the specification's text: the statement, then ``Why:``, ``Likely
causes:`` and ``Origin:``.  Its id is the chapter and the function's name; everything else that is said of a
rule, the written specification, ``--explain``, the report and the kill matrix, is made from these.
"""

from __future__ import annotations

import difflib
import enum
import functools
import importlib
import inspect
import re
import types
from collections.abc import Callable
from dataclasses import dataclass

from executor_conformance.driving import Capability
from executor_conformance.harness.trial import Trial
from executor_conformance.verdicts import Aside, Finding

#: In the order in which they are read and run.
CHAPTERS = (
    "interface",
    "lifecycle",
    "states",
    "parallelism",
    "shutdown",
    "queued_time",
    "memory",
    "faults",
    "isolation",
    "asynchrony",
    "model",
)

#: Broken, these leave nothing to judge: whatever comes after them is blocked without being run.
GATEWAYS = (
    "interface.builds-with-parallelism",
    "interface.events-are-pairs-by-key",
    "interface.states-are-the-agreed-words",
    "lifecycle.runs-a-task",
)

#: These look at events only: where none comes to be looked at, another gateway has to say why.
LOOK_AT_EVENTS = frozenset(GATEWAYS[1:3])
BRINGS_EVENTS = "lifecycle.runs-a-task"

#: Broken, this makes calls hang now and then: what another rule is about can be judged all the same.
NOT_ALWAYS = "shutdown.end-is-the-same-at-any-pace"

#: A call that never returns is the fault of the rule which says that it does; the most basic one first.
OWNERS_OF_CALLS = {
    "constructor": ("interface.builds-with-parallelism",),
    "start()": (BRINGS_EVENTS,),
    "execute_async()": (BRINGS_EVENTS,),
    "get_event_buffer()": ("lifecycle.idle-pumping-is-harmless",),
    "sync()": ("lifecycle.idle-pumping-is-harmless", "states.sync-waits-for-no-task"),
    "end()": ("shutdown.every-worker-exits", NOT_ALWAYS),
    "terminate()": ("shutdown.terminate-stops-what-runs",),
}

#: What can go wrong in any rule -> the rules that are about just this, the most basic one first.
OWNERS = {
    Aside.RAISED: (
        BRINGS_EVENTS,
        "lifecycle.idle-pumping-is-harmless",
        "states.an-exception-is-a-failure",
        "lifecycle.two-executors-share-a-process",
        "faults.pumping-survives-a-death",
    ),
    Aside.DIED: (BRINGS_EVENTS, "parallelism.never-more-than-n", "shutdown.no-zombie-is-left"),
    Aside.STALLED: (
        BRINGS_EVENTS,
        "states.an-exception-is-a-failure",
        "states.exactly-one-terminal-event",
        "parallelism.n-is-reached",
        "lifecycle.two-executors-share-a-process",
        "parallelism.failed-tasks-give-their-slots-back",
        "parallelism.no-slot-stays-idle",
        "asynchrony.what-blocks-by-nature-blocks-no-loop",
    ),
    Aside.MISREPORTED: (
        "states.no-terminal-event-before-the-end",
        "states.an-exception-is-a-failure",
    ),
    Aside.MISCOUNTED: ("states.exactly-one-terminal-event",),
}

#: What an event means: chapters that go on to look at worse than a good day build on all of it.
_MEANING_OF_EVENTS = (
    "states.exactly-one-terminal-event",
    "states.no-terminal-event-before-the-end",
    "states.an-event-is-returned-once",
    "states.a-result-belongs-to-its-task",
    "states.death-by-signal-is-a-failure",
)
_BUILD_ON_EVENTS = ("faults", "isolation")

#: Broken, this explains whatever else goes wrong, but there is still something to judge.
EXCUSE_FOR_ALL = "interface.offers-every-method"


RuleBody = Callable[[Trial], None]


class Level(str, enum.Enum):
    """How much a promise binds."""

    MUST = "must"
    SHOULD = "should"
    MAY = "may"

    __str__ = str.__str__


@dataclass(frozen=True)
class Rule:
    """One numbered promise.

    :param needs: capabilities without which the rule does not apply.
    :param after: rules which, broken, explain a failure of this one.
    """

    id: str
    chapter: str
    number: str
    level: Level
    statement: str
    why: str
    causes: tuple[str, ...]
    origins: tuple[str, ...]
    needs: tuple[Capability, ...]
    after: tuple[str, ...]
    body: RuleBody


@dataclass(frozen=True)
class _Declaration:
    level: Level
    needs: tuple[Capability, ...]
    after: tuple[str, ...]


def _declare(level: Level) -> Callable[..., Callable[[RuleBody], RuleBody]]:
    def with_parameters(
        *, needs: tuple[Capability, ...] = (), after: tuple[str, ...] = ()
    ) -> Callable[[RuleBody], RuleBody]:
        def decorate(body: RuleBody) -> RuleBody:
            body.__dict__["declaration"] = _Declaration(level, needs, after)
            return body

        return decorate

    return with_parameters


must = _declare(Level.MUST)
should = _declare(Level.SHOULD)
may = _declare(Level.MAY)


class UnknownRule(LookupError):
    """No rule has this id; the text suggests one."""


@functools.cache
def catalogue() -> dict[str, Rule]:
    """Every rule by id, in the order of the specification."""
    rules: dict[str, Rule] = {}
    for chapter_number, chapter in enumerate(CHAPTERS, 1):
        module = importlib.import_module(f"{__name__}.{chapter}")
        bodies = [
            body
            for body in vars(module).values()
            if isinstance(body, types.FunctionType) and "declaration" in body.__dict__
        ]
        for number, body in enumerate(bodies, 1):
            rule = _rule(chapter, f"{chapter_number}.{number}", body)
            rules[rule.id] = rule
    return rules


def preamble(chapter: str) -> str:
    """The introduction of a chapter."""
    return inspect.getdoc(importlib.import_module(f"{__name__}.{chapter}")) or ""


def find(rule_id: str) -> Rule:
    """The rule with this id.

    :raises UnknownRule: there is none.
    """
    rules = catalogue()
    if rule_id not in rules:
        near = difflib.get_close_matches(rule_id, rules, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UnknownRule(f"there is no rule {rule_id!r}{hint} (--conformance-rules lists them all)")
    return rules[rule_id]


def _gateways_before(rule_id: str) -> tuple[str, ...]:
    if rule_id == EXCUSE_FOR_ALL:  # it looks, and runs nothing
        return GATEWAYS[:1]
    return GATEWAYS[: GATEWAYS.index(rule_id)] if rule_id in GATEWAYS else GATEWAYS


def owners_of(rule_id: str, finding: Finding) -> tuple[str, ...]:
    """The rules that are about just this way to go wrong, and more basic in that than ``rule_id``."""
    if rule_id in GATEWAYS and rule_id not in LOOK_AT_EVENTS:  # nothing is more basic
        return ()
    owners: tuple[str, ...] = ()
    if finding.aside == Aside.HUNG:
        owners = OWNERS_OF_CALLS.get(finding.measurements.get("hung_call", ""), ())
    elif finding.aside:
        owners = OWNERS[Aside(finding.aside)]
    return owners[: owners.index(rule_id)] if rule_id in owners else owners


def suspects_of(rule: Rule, finding: Finding) -> tuple[str, ...]:
    """The rules which, if they are broken, explain this failure."""
    named = finding.measurements.get("promise")  # a program found this one broken
    meaning = _MEANING_OF_EVENTS if rule.chapter in _BUILD_ON_EVENTS else ()
    suspects = dict.fromkeys(
        (*([named] if named else []), *rule.after, EXCUSE_FOR_ALL, *owners_of(rule.id, finding), *meaning)
    )
    return tuple(suspect for suspect in suspects if suspect != rule.id)


_SECTION = re.compile(r"^(Why|Likely causes|Origin):[ ]*", re.MULTILINE)


def _rule(chapter: str, number: str, body: RuleBody) -> Rule:
    declaration: _Declaration = body.__dict__["declaration"]
    pieces = _SECTION.split(inspect.getdoc(body) or "")
    sections = {name: " ".join(text.split()) for name, text in zip(pieces[1::2], pieces[2::2], strict=True)}
    rule_id = f"{chapter}.{body.__name__.replace('_', '-')}"
    return Rule(
        id=rule_id,
        chapter=chapter,
        number=number,
        level=declaration.level,
        statement=" ".join(pieces[0].split()),
        why=sections.get("Why", ""),
        causes=tuple(
            part.strip(" .") for part in sections.get("Likely causes", "").split(";") if part.strip()
        ),
        origins=tuple(part.strip(" .") for part in sections.get("Origin", "").split(";") if part.strip()),
        needs=declaration.needs,
        after=tuple(dict.fromkeys((*_gateways_before(rule_id), *declaration.after))),
        body=body,
    )
