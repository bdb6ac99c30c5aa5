"""Failing random programs in files: written after a run, and performed again by ``--replay``."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import pytest

from executor_conformance.programs.program import Program
from executor_conformance.rules import Rule, UnknownRule, find
from executor_conformance.verdicts import Finding, ProgramTrace, Verdict

_VERSION = 1


@dataclass(frozen=True)
class Replay:
    """A program to perform again.

    :param rule: the id of the rule on which it was found.
    :param executor: ``module:Class`` that it was found on.
    :param options: ``--executor-option`` as they were given.
    :param program: as serialized by :class:`~executor_conformance.programs.program.Program`.
    """

    path: str
    rule: str
    executor: str
    options: tuple[str, ...]
    adapter: str
    program: dict[str, Any]


def path_for(rule: Rule) -> str:
    """The file, in the folder in which pytest was started, that replays what this rule found."""
    return f"replay-{rule.name}.json"


def trace_of(finding: Finding) -> ProgramTrace | None:
    """The random program that made the rule fail, if one did."""
    return finding.trace if finding.verdict is Verdict.FAILED else None


def write(
    folder: str,
    rule: Rule,
    trace: ProgramTrace,
    actual: str,
    *,
    executor: str,
    options: Any,
    adapter: str,
) -> None:
    """Write the program to its file, with its timeline for the reader."""
    data = {
        "replay": _VERSION,
        "rule": rule.id,
        "executor": executor,
        "executor_options": list(options),
        "executor_adapter": adapter,
        "violates": trace.rule,
        "actual": actual,
        "timeline": list(trace.timeline),
        "program": dict(trace.program),
    }
    with open(os.path.join(folder, path_for(rule)), "w", encoding="utf-8", errors="backslashreplace") as file:
        json.dump(data, file, indent=2)
        file.write("\n")


def read(path: str) -> Replay:
    """Read such a file.

    :raises pytest.UsageError: it is not a replay file; the text says what is wrong.
    """
    option = f"--replay={path!r}"
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except (OSError, ValueError) as error:
        raise pytest.UsageError(f"{option}: {error}") from None
    if not isinstance(data, dict) or data.get("replay") != _VERSION:
        raise pytest.UsageError(f"{option}: not a replay file, as a failing rule of chapter model writes one")
    try:
        rule = find(str(data.get("rule")))
        program = data.get("program")
        if not isinstance(program, dict):
            raise ValueError(f"program must be an object, not {program!r}")
        Program.from_dict(program)
    except (UnknownRule, ValueError) as error:
        raise pytest.UsageError(f"{option}: {error}") from None
    if not rule.replayable:
        raise pytest.UsageError(f"{option}: {rule.id} does not run random programs")
    return Replay(
        path=path,
        rule=rule.id,
        executor=str(data.get("executor") or ""),
        options=tuple(map(str, data.get("executor_options") or ())),
        adapter=str(data.get("executor_adapter") or ""),
        program=program,
    )
