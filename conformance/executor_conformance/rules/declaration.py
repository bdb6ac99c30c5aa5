"""The decorators that make a function a rule.

They mark the function for the reader and check the types of what is declared; the values are read from the
source by :mod:`executor_conformance.rules.catalogue`, so they are written out where they stand: literals,
members of :class:`Capability` and :class:`Observation`, and tuples of ids that the same module defines.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from executor_conformance.requirements import Need

if TYPE_CHECKING:
    from executor_conformance.harness.trial import Trial

RuleBody = Callable[["Trial"], None]
#: What bounds the time of a rule: the limit of a rule, or the number of random programs as well.
Budget = Literal["rule", "programs"]
#: When a rule runs.
Turn = Literal["in order", "background", "alone"]


class Level(str, enum.Enum):
    """How much a promise binds, as in RFC 2119."""

    MUST = "must"
    SHOULD = "should"
    MAY = "may"

    __str__ = str.__str__


def _declare(
    *,
    needs: tuple[Need, ...] = (),
    after: tuple[str, ...] = (),
    gateway: bool = False,
    events_only: bool = False,
    runs_tasks: bool = True,
    budget: Budget = "rule",
    turn: Turn = "in order",
) -> Callable[[RuleBody], RuleBody]:
    """Declare a rule.

    :param needs: the rule is not applicable where one of these is missing.
    :param after: ids of more basic rules; if one of them failed, this rule is blocked by it.
    :param gateway: nothing can be judged where this rule failed: every later rule comes after it.
    :param events_only: a gateway that only looks at the events of others.
    :param runs_tasks: the rule runs a task, so it comes after the gateways that are about tasks.
    :param budget: ``"programs"`` for rules that perform random programs, which can be replayed.
    :param turn: ``"background"`` for rules that take long and mostly wait, or that do not depend on timing:
        they may run while earlier rules run.  ``"alone"`` for rules whose figures include other hosts, such
        as pages counted by the processes that share them: no rule runs in the background meanwhile.
    """
    return lambda body: body


must = should = may = _declare
