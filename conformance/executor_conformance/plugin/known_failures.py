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
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.specifiers import SpecifierSet

from executor_conformance.rules import Rule, UnknownRule, find
from executor_conformance.verdicts import Finding, Verdict

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TEXTS = ("rule", "reason", "link", "when", "versions")
_KEYS = (*_TEXTS, "expires")
_LONGEST_REASON = 200
_HEAD = re.compile(r"\s*\[\[\s*known_failure\s*\]\]")


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
    def key(self) -> tuple[str, str, str]:
        """What no two entries of a list have in common."""
        return self.rule, self.when, self.versions

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
        if failure.key in known:
            raise pytest.UsageError(f"{option}, entry {number}: {failure.rule!r} is listed twice")
        known[failure.key] = failure
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
        if "when" in entry:
            Marker(entry["when"]).evaluate()
        SpecifierSet(entry.get("versions", ""))
    except (UnknownRule, ValueError) as error:  # packaging has several kinds of ValueError
        raise pytest.UsageError(f"{where}: {' '.join(str(error).split())}") from None
    return KnownFailure(**entry)


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
        if finding is None:
            continue
        if entry.versions and distribution is None:
            lines.append(
                f"UNUSED known failure: {entry.rule}: the executor has no distribution, and so no version"
            )
        elif entry.fits(distribution):
            if entry.has_expired:
                lines.append(f"EXPIRED known failure: {entry.rule}: expired on {entry.expires} ({entry})")
            elif finding.verdict is Verdict.NOT_APPLICABLE:
                lines.append(f"UNNEEDED known failure: {entry.rule}: not applicable: {finding.actual}")
    return lines


def update(path: str, findings: Iterable[tuple[Rule, Finding]], known: Mapping[str, KnownFailure]) -> str:
    """Add what failed to the list, and remove what passed; everything else stays as it is, comments too.

    :param known: rule id -> the entry that applied to the run.
    :returns: what was done.
    """
    entries = read(path) if os.path.exists(path) else ()
    blocks = _blocks(path)
    removed, added = [], []
    for rule, finding in findings:
        if finding.verdict is Verdict.UNEXPECTED_PASS:
            removed.append(1 + entries.index(known[rule.id]))
        elif finding.verdict is Verdict.FAILED and KnownFailure(rule.id, "").key not in {
            e.key for e in entries
        }:
            reason = finding.actual[:_LONGEST_REASON] or "no reason is known"
            added.append(f"\n[[known_failure]]\nrule = {_quoted(rule.id)}\nreason = {_quoted(reason)}\n")
    kept = [block for index, block in enumerate(blocks) if index not in removed]
    text = "".join([*kept, *added]).lstrip("\n")
    tomllib.loads(text)
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(f"{path}.new", path)
    return f"{path}: {_entries(len(added))} added, {_entries(len(removed))} removed"


def check_updatable(path: str) -> None:
    """Check that a list can be updated, before anything is run.

    :raises pytest.UsageError: it cannot be written, or its entries cannot be told apart.
    """
    option = f"--conformance-known-failures-update: {path!r}"
    if os.path.exists(path) and len(_blocks(path)) != len(read(path)) + 1:
        raise pytest.UsageError(f"{option} cannot be updated; write each entry as a [[known_failure]] table")
    if not os.access(os.path.dirname(os.path.abspath(path)), os.W_OK):
        raise pytest.UsageError(f"{option} is not writable")


def _blocks(path: str) -> list[str]:
    """The text of the list in parts: what comes before the entries, and each entry with its comments."""
    if not os.path.exists(path):
        return [""]
    with open(path, encoding="utf-8") as file:
        lines = file.readlines()
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    blocks: list[list[str]] = [[]]
    for line in lines:
        if _HEAD.match(line):
            above: list[str] = []  # comments directly above an entry belong to it, but those of the file stay
            while len(blocks) > 1 and blocks[-1][-1].lstrip().startswith("#"):
                above.insert(0, blocks[-1].pop())
            blocks.append(above)
        blocks[-1].append(line)
    return ["".join(block) for block in blocks]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _entries(count: int) -> str:
    return f"{count} {'entry' if count == 1 else 'entries'}"


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
