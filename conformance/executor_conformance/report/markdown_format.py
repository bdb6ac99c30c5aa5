"""The report as Markdown, for a pull request or a results page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from executor_conformance.report.content import chapters, totals
from executor_conformance.verdicts import Verdict


def write(data: Mapping[str, Any]) -> str:
    """The whole report as Markdown text.

    :param data: as the JSON report has it.
    """
    executor, machine = data["executor"], data["machine"]
    lines = [
        f"# {_escaped(executor['target'])}: {data['verdict']}",
        "",
        f"Adapter {executor['adapter']}; distribution {_escaped(executor['distribution'] or 'none')}; "
        f"level {data['level']}; Python {machine['python']} on {_escaped(machine['platform'])}, "
        f"{machine['cpus']} CPUs.",
        "",
        f"{totals(data['summary']) or 'No rules ran'}.",
        "",
        *(f"- Stubbed: {_escaped(stub)}." for stub in executor.get("stubs", ())),
        *([""] if "stubs" in executor else []),
        "| chapter | " + " | ".join(verdict.value.replace("_", " ") for verdict in Verdict) + " |",
        "|---|" + "---:|" * len(Verdict),
    ]
    for chapter, counts in chapters(data).items():
        lines.append(f"| {chapter} | " + " | ".join(str(counts[verdict.value]) for verdict in Verdict) + " |")
    for heading, wanted in _SECTIONS.items():
        found = [rule for rule in data["rules"] if rule["verdict"] in wanted]
        if found:
            lines += ["", f"## {heading}", ""]
        lines += [f"- **{rule['id']}** ({rule['level']}): {_escaped(rule['message'])}" for rule in found]
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
