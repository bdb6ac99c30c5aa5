"""Reads JSON reports, and compares them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from executor_conformance.report.content import counts
from executor_conformance.report.json_format import schema
from executor_conformance.verdicts import Verdict

_VERSION = 1
#: Verdicts of a rule that the executor no longer satisfies, if it did before.
_LOST = (Verdict.FAILED, Verdict.BLOCKED)
_SYMBOLS = {
    Verdict.PASSED: "✓",
    Verdict.FAILED: "✗",
    Verdict.NOT_APPLICABLE: "-",
    Verdict.INCONCLUSIVE: "?",
    Verdict.BLOCKED: "b",
    Verdict.KNOWN_FAILURE: "k",
    Verdict.UNEXPECTED_PASS: "!",
}


class NotAReport(ValueError):
    """A file is not a JSON report of the suite; the text says why."""


def read(path: str) -> dict[str, Any]:
    """The data of a JSON report.

    :raises OSError: the file cannot be read.
    :raises NotAReport: it is something else, or from a later version of the suite.
    """
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except ValueError as error:
        raise NotAReport(f"{path}: not JSON: {error}") from None
    if not isinstance(data, dict) or "schema_version" not in data:
        raise NotAReport(f"{path}: not a report; --conformance-report=PATH.json writes one")
    if data["schema_version"] != _VERSION:
        raise NotAReport(
            f"{path}: schema version {data['schema_version']!r} is not supported, only {_VERSION}"
        )
    if missing := [key for key in schema()["required"] if key not in data]:
        raise NotAReport(f"{path}: not a whole report; missing: {', '.join(missing)}")
    return data


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    """Each rule whose verdict changed, in the order of the report: whether it is a regression, and a line.

    A regression is a rule that counts at the level of the newer report, passed before, and now fails, is
    blocked or did not run.  Another version of the suite may have other rules.
    """
    same_suite = old["suite"] == new["suite"]
    before = {rule["id"]: rule for rule in old["rules"]}
    for rule in new["rules"]:
        earlier = before.pop(rule["id"], None)
        was = "not run" if earlier is None else earlier["verdict"]
        if was == rule["verdict"]:
            continue
        counted = counts(rule["level"], new["level"])
        is_regression = was == Verdict.PASSED and rule["verdict"] in _LOST and counted
        line = f"{rule['id']} ({rule['level']}): {_shown(was)} -> {_shown(rule['verdict'])}"
        yield is_regression, f"{line}: {rule['message']}" if rule["message"] else line
    for rule in before.values():
        lost = rule["verdict"] == Verdict.PASSED and counts(rule["level"], new["level"])
        yield same_suite and lost, f"{rule['id']} ({rule['level']}): {_shown(rule['verdict'])} -> not run"


def matrix(reports: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The lines of a Markdown table: rules by executors."""
    names = [report["executor"]["target"].replace("|", "\\|") for report in reports]
    names = [name if names.count(name) == 1 else f"{name} #{n}" for n, name in enumerate(names, 1)]
    yield "| rule | level | " + " | ".join(f"`{name}`" for name in names) + " |"
    yield "|---|---|" + ":-:|" * len(reports)
    yield "| **verdict** | | " + " | ".join(report["verdict"] for report in reports) + " |"
    columns = [{rule["id"]: rule for rule in report["rules"]} for report in reports]
    rules = {rule_id: rule for column in columns for rule_id, rule in column.items()}
    for rule_id, rule in rules.items():
        cells = [
            _SYMBOLS[Verdict(column[rule_id]["verdict"])] if rule_id in column else "" for column in columns
        ]
        yield f"| `{rule_id}` | {rule['level']} | " + " | ".join(cells) + " |"
    yield ""
    yield "; ".join(f"{symbol} {_shown(verdict)}" for verdict, symbol in _SYMBOLS.items())


def _shown(verdict: str) -> str:
    return str(verdict).replace("_", " ")
