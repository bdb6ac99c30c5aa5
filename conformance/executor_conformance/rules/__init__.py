"""The specification: one module or folder a chapter, one function a rule.

A rule is a function that takes a :class:`~executor_conformance.harness.trial.Trial` and returns if the
executor kept the promise.  Its docstring is the text of the specification: the statement, then ``Why:``,
``Likely causes:`` and ``Origin:``.  Its id is the chapter and the function's name.  Everything else that is
published about a rule (the specification, ``--explain``, the report, the kill matrix) is made from these.

Reading rules needs no harness: :func:`catalogue` reads the source of the chapters and imports none of them.
"""

from executor_conformance.rules.catalogue import Rule, UnknownRule, catalogue, find, preamble
from executor_conformance.rules.chapters import CHAPTERS, Chapter
from executor_conformance.rules.declaration import Level, may, must, should

__all__ = [
    "CHAPTERS",
    "Chapter",
    "Level",
    "Rule",
    "UnknownRule",
    "catalogue",
    "find",
    "may",
    "must",
    "preamble",
    "should",
]
