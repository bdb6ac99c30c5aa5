"""Expected failures that a project has listed, so that its CI passes before all of them are fixed.

The list is TOML:

.. code-block:: toml

    [[known_failure]]
    rule = "shutdown.end-leaves-no-worker"
    reason = "workers of the old protocol ignore the poison pill"
    link = "https://example.org/issues/123"  # optional
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from executor_conformance.rules import UnknownRule, find
from executor_conformance.verdicts import Finding, Verdict

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_KEYS = {"rule", "reason", "link"}


@dataclass(frozen=True)
class KnownFailure:
    """One entry: why the rule is expected to fail, and where that is tracked."""

    reason: str
    link: str = ""

    def __str__(self) -> str:
        return f"{self.reason} ({self.link})" if self.link else self.reason


def read(path: str) -> dict[str, KnownFailure]:
    """Rule id -> entry.

    :raises pytest.UsageError: the file cannot be read, or an entry is not valid.
    """
    option = f"--conformance-known-failures={path!r}"
    try:
        with open(path, "rb") as file:
            data = tomllib.load(file)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise pytest.UsageError(f"{option}: {error}") from None
    entries = data.pop("known_failure", [])
    if data or not isinstance(entries, list):
        found = ", ".join(map(repr, data)) or "a single [known_failure] table"
        raise pytest.UsageError(
            f"{option}: expected [[known_failure]] tables and nothing else, found {found}"
        )
    known: dict[str, KnownFailure] = {}
    for number, entry in enumerate(entries, 1):
        rule_id, failure = _entry(f"{option}, entry {number}", entry)
        if rule_id in known:
            raise pytest.UsageError(f"{option}, entry {number}: {rule_id!r} is listed twice")
        known[rule_id] = failure
    return known


def _entry(where: str, entry: Any) -> tuple[str, KnownFailure]:
    if not isinstance(entry, dict):
        raise pytest.UsageError(f"{where}: {entry!r} is not a table")
    for key, value in entry.items():
        if key not in _KEYS:
            raise pytest.UsageError(f"{where}: {key!r} is not one of {', '.join(sorted(_KEYS))}")
        if not isinstance(value, str):
            raise pytest.UsageError(f"{where}: {key} = {value!r} is not a string")
    for key in ("rule", "reason"):
        if not entry.get(key, "").strip():
            raise pytest.UsageError(f"{where}: {key} is missing")
    try:
        find(entry["rule"])
    except UnknownRule as error:
        raise pytest.UsageError(f"{where}: {error}") from None
    return entry["rule"], KnownFailure(entry["reason"], entry.get("link", ""))


def apply_known_failures(known: Mapping[str, KnownFailure], rule_id: str, finding: Finding) -> Finding:
    """The finding, with another verdict where the list expects a failure."""
    entry = known.get(rule_id)
    if entry is None:
        return finding
    if finding.verdict is Verdict.FAILED:
        return replace(finding, verdict=Verdict.KNOWN_FAILURE, known=str(entry))
    if finding.verdict is Verdict.PASSED:
        return replace(
            finding,
            verdict=Verdict.UNEXPECTED_PASS,
            expected="a failure, as listed",
            actual=f"now passes: remove it from the list of known failures (reason was: {entry})",
            known=str(entry),
        )
    return finding
