"""Programs that broke a promise, in files: written after a run, and performed again by ``--replay``."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import pytest

from executor_conformance.harness.programs import Program
from executor_conformance.rules import Rule, UnknownRule, find
from executor_conformance.verdicts import Finding, Verdict

_VERSION = 1


@dataclass(frozen=True)
class Replay:
    """A program to perform again.

    :param rule: the id of the rule on which it was found.
    :param executor: ``module:Class`` that it was found on.
    :param options: ``--executor-option`` as they were given.
    :param program: as :class:`~executor_conformance.harness.programs.Program` has it.
    """

    path: str
    rule: str
    executor: str
    options: tuple[str, ...]
    adapter: str
    program: dict[str, Any]


def path_for(rule: Rule) -> str:
    """The file, in the folder in which pytest was started, that replays what this rule found."""
    return f"replay-{rule.id.partition('.')[2]}.json"


def is_replayable(finding: Finding) -> bool:
    """Whether it was found by a program."""
    return finding.verdict is Verdict.FAILED and "program" in finding.measurements


def write(folder: str, rule: Rule, finding: Finding, *, executor: str, options: Any, adapter: str) -> None:
    """Write down the program, with its timeline for the reader."""
    data = {
        "replay": _VERSION,
        "rule": rule.id,
        "executor": executor,
        "executor_options": list(options),
        "executor_adapter": adapter,
        "promise": finding.measurements.get("promise", ""),
        "seen": finding.seen,
        "timeline": finding.measurements.get("timeline", []),
        "program": finding.measurements["program"],
    }
    with open(os.path.join(folder, path_for(rule)), "w", encoding="utf-8", errors="backslashreplace") as file:
        json.dump(data, file, indent=2)
        file.write("\n")


def read(path: str) -> Replay:
    """Read such a file.

    :raises pytest.UsageError: it is none; the text says what is wrong with it.
    """
    option = f"--replay={path!r}"
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except (OSError, ValueError) as error:
        raise pytest.UsageError(f"{option}: {error}") from None
    if not isinstance(data, dict) or data.get("replay") != _VERSION:
        raise pytest.UsageError(f"{option}: it is no replay, as a run writes it for a rule of chapter model")
    try:
        rule = find(str(data.get("rule")))
        program = data.get("program")
        if not isinstance(program, dict):
            raise ValueError(f"program must be an object, not {program!r}")
        Program.from_dict(program)
    except (UnknownRule, ValueError) as error:
        raise pytest.UsageError(f"{option}: {error}") from None
    if rule.chapter != "model":
        raise pytest.UsageError(f"{option}: {rule.id} is not judged by programs")
    return Replay(
        path=path,
        rule=rule.id,
        executor=str(data.get("executor") or ""),
        options=tuple(map(str, data.get("executor_options") or ())),
        adapter=str(data.get("executor_adapter") or ""),
        program=program,
    )
