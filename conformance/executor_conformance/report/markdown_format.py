"""The report as Markdown, for a pull request or a results page."""

from __future__ import annotations

import re

from executor_conformance.report.content import Report
from executor_conformance.rules import CHAPTERS
from executor_conformance.verdicts import Verdict


def write(report: Report) -> str:
    """The whole report as Markdown text."""
    machine = report.machine
    lines = [
        f"# {_escaped(report.target)}: {report.verdict}",
        "",
        f"Adapter {report.adapter}; distribution {_escaped(report.distribution or 'none')}; "
        f"level {report.level}; Python {machine['python']} on {_escaped(machine['platform'])}, "
        f"{machine['cpus']} CPUs.",
        "",
        f"{report.totals() or 'No rules ran'}.",
        "",
        *(f"- Stubbed: {_escaped(stub)}." for stub in report.stubs),
        *([""] if report.stubs else []),
        "| chapter | " + " | ".join(str(verdict).replace("_", " ") for verdict in Verdict) + " |",
        "|---|" + "---:|" * len(Verdict),
    ]
    for chapter in CHAPTERS.values():
        counts = report.count(chapter=chapter)
        if any(counts.values()):
            lines.append(
                f"| {chapter.name} | " + " | ".join(str(counts[verdict]) for verdict in Verdict) + " |"
            )
    for heading, wanted in _SECTIONS.items():
        found = [(rule, finding) for rule, finding in report.findings if finding.verdict in wanted]
        if found:
            lines += ["", f"## {heading}", ""]
        for rule, finding in found:
            lines.append(f"- **{rule.id}** ({rule.level}): {_escaped(finding.message)}")
    return "\n".join(lines) + "\n"


_SECTIONS = {
    "Failed": {Verdict.FAILED, Verdict.KNOWN_FAILURE, Verdict.UNEXPECTED_PASS},
    "Inconclusive": {Verdict.INCONCLUSIVE},
    "Blocked": {Verdict.BLOCKED},
    "Not applicable": {Verdict.NOT_APPLICABLE},
}


#: Every Markdown renderer leaves an underscore within a word as it is.
_SPECIAL = re.compile(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])")


def _escaped(text: str) -> str:
    text = " ".join(text.replace("&", "&amp;").replace("<", "&lt;").splitlines())
    return _SPECIAL.sub(r"\\\g<0>", text)
