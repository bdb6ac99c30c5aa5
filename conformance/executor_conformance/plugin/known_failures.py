"""Expected failures that a project has listed, so that its CI passes before all of them are fixed.

The list is TOML:

.. code-block:: toml

    [[known_failure]]
    rule = "shutdown.end-leaves-no-worker"
    reason = "workers of the old protocol ignore the poison pill"
    link = "https://example.org/issues/123"  # the other keys are optional
    when = "python_version < '3.12'"         # an environment marker, as in requirements
    versions = "<5.8"                        # of the executor's distribution
    expires = 2027-01-31                     # the last day on which the failure is expected
"""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from packaging.markers import InvalidMarker, Marker, UndefinedEnvironmentName
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from executor_conformance.rules import Rule, UnknownRule, find
from executor_conformance.verdicts import Finding, Verdict

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TEXTS = ("rule", "reason", "link", "when", "versions")
_KEYS = (*_TEXTS, "expires")
_LONGEST_REASON = 200


@dataclass(frozen=True)
class KnownFailure:
    """One entry: why the rule is expected to fail, where that is tracked, and when the entry applies.

    :param when: an environment marker; empty: always.
    :param versions: of the executor's distribution; empty: all.
    :param expires: the last day; ``None``: never.
    """

    rule: str
    reason: str
    link: str = ""
    when: str = ""
    versions: str = ""
    expires: datetime.date | None = None

    def __str__(self) -> str:
        return f"{self.reason} ({self.link})" if self.link else self.reason

    def fits(self, distribution: str | None) -> bool:
        """Whether the entry is for this interpreter, this platform and this version of the executor.

        :param distribution: ``"name version"`` of the executor's distribution, if it has one.
        """
        if self.when and not Marker(self.when).evaluate():
            return False
        version = (distribution or "").rpartition(" ")[2]
        return not self.versions or (bool(version) and SpecifierSet(self.versions).contains(version, True))

    @property
    def has_expired(self) -> bool:
        """Whether its last day is over."""
        return self.expires is not None and datetime.date.today() > self.expires


def read(path: str) -> tuple[KnownFailure, ...]:
    """The entries of a list.

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
    known: dict[tuple[str, str, str], KnownFailure] = {}
    for number, entry in enumerate(entries, 1):
        failure = _entry(f"{option}, entry {number}", entry)
        condition = failure.rule, failure.when, failure.versions
        if condition in known:
            raise pytest.UsageError(f"{option}, entry {number}: {failure.rule!r} is listed twice")
        known[condition] = failure
    return tuple(known.values())


def _entry(where: str, entry: Any) -> KnownFailure:
    if not isinstance(entry, dict):
        raise pytest.UsageError(f"{where}: {entry!r} is not a table")
    for key, value in entry.items():
        if key not in _KEYS:
            raise pytest.UsageError(f"{where}: {key!r} is not one of {', '.join(sorted(_KEYS))}")
        if key in _TEXTS and not isinstance(value, str):
            raise pytest.UsageError(f"{where}: {key} = {value!r} is not a string")
        if key == "expires" and type(value) is not datetime.date:
            raise pytest.UsageError(f"{where}: {key} = {value!r} is not a date, such as 2027-01-31")
    for key in ("rule", "reason"):
        if not entry.get(key, "").strip():
            raise pytest.UsageError(f"{where}: {key} is missing")
    try:
        find(entry["rule"])
        failure = KnownFailure(**entry)
        failure.fits("any 1.0")
    except (UnknownRule, InvalidMarker, UndefinedEnvironmentName, InvalidSpecifier) as error:
        raise pytest.UsageError(f"{where}: {' '.join(str(error).split())}") from None
    return failure


def in_force(entries: Iterable[KnownFailure], distribution: str | None) -> dict[str, KnownFailure]:
    """Rule id -> the entry that applies to this run."""
    return {each.rule: each for each in entries if each.fits(distribution) and not each.has_expired}


def remarks(
    entries: Iterable[KnownFailure], distribution: str | None, findings: Mapping[str, Finding]
) -> list[str]:
    """A line for each entry that has expired, or is for a rule that does not apply."""
    lines = []
    for entry in entries:
        finding = findings.get(entry.rule)
        if entry.fits(distribution) and finding is not None:
            if entry.has_expired:
                lines.append(f"EXPIRED known failure: {entry.rule}: on {entry.expires} ({entry})")
            elif finding.verdict is Verdict.NOT_APPLICABLE:
                lines.append(f"UNNEEDED known failure: {entry.rule}: not applicable: {finding.actual}")
    return lines


def missing_requirement() -> str | None:
    """What has to be installed before a list can be updated, or ``None``."""
    try:
        import tomlkit  # noqa: F401
    except ImportError:
        return "pip install 'executor-conformance[update]'"
    return None


def update(path: str, findings: Iterable[tuple[Rule, Finding]]) -> str:
    """Add what failed to the list and remove what passed; comments and other entries stay as they are.

    :returns: what was done.
    """
    import tomlkit
    import tomlkit.items

    text = ""
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            text = file.read()
    document = tomlkit.parse(text)
    entries = document.get("known_failure")
    if entries is None:
        entries = document["known_failure"] = tomlkit.aot()
    added, passed = [], set()
    for rule, finding in findings:
        if finding.verdict is Verdict.UNEXPECTED_PASS:
            passed.add(rule.id)
        elif finding.verdict is Verdict.FAILED:
            added.append(rule.id)
            entry = tomlkit.table()
            entry["rule"], entry["reason"] = rule.id, finding.actual[:_LONGEST_REASON] or "no reason is known"
            entries.append(entry)
    for index in reversed(range(len(entries))):
        if entries[index]["rule"] in passed:
            del entries[index]
    with open(path, "w", encoding="utf-8") as file:
        file.write(tomlkit.dumps(document))
    return f"{path}: {len(added)} known failures added, {len(passed)} removed"


def as_updated(findings: Iterable[tuple[Rule, Finding]]) -> tuple[tuple[Rule, Finding], ...]:
    """The findings as they are with the updated list."""
    after = {Verdict.FAILED: Verdict.KNOWN_FAILURE, Verdict.UNEXPECTED_PASS: Verdict.PASSED}
    return tuple(
        (rule, replace(finding, verdict=after.get(finding.verdict, finding.verdict)))
        for rule, finding in findings
    )


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
