"""The report as one HTML page, for a browser or a CI artifact; needs the extra ``html`` (Jinja2)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from executor_conformance.report.content import AGAINST, chapters, counts, order, totals
from executor_conformance.report.plots import plots
from executor_conformance.rules import Level
from executor_conformance.verdicts import Verdict

#: A report on GitHub, such as apache/airflow#58365.
_REPORT = re.compile(r"\b([\w.-]+/[\w.-]+)#(\d+)")


def missing_requirement() -> str | None:
    """What has to be installed before this format can be written, or ``None``."""
    try:
        import jinja2  # noqa: F401
    except ImportError:
        return "pip install 'executor-conformance[html]'"
    return None


def write(data: Mapping[str, Any]) -> str:
    """The whole report as HTML text.

    :param data: as the JSON report has it.
    """
    import jinja2
    import markupsafe

    def prose(text: str) -> markupsafe.Markup:
        """Text with Markdown's backticks, and with links to the reports that it names."""
        escaped = str(markupsafe.escape(text))
        escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
        escaped = _REPORT.sub(r'<a href="https://github.com/\1/issues/\2">\g<0></a>', escaped)
        return markupsafe.Markup(escaped)

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("executor_conformance.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["prose"] = prose
    failures = _failures(data)
    verdicts = [verdict.value for verdict in Verdict]
    return environment.get_template("report.html").render(
        report=data,
        totals=totals(data["summary"]),
        failures=failures,
        shown_above={rule["id"] for rule in failures},
        chapters=chapters(data),
        verdicts=verdicts,
        plots=[(plot, markupsafe.Markup(plot.svg)) for plot in plots(data["rules"])],
        filters={
            "verdict": verdicts,
            "level": [level.value for level in Level],
            "chapter": list(chapters(data)),
        },
    )


def _failures(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rules that a reader has to look at: those that block most others first, then by level."""
    blocked = Counter(rule["blocked_by"] for rule in data["rules"])
    failures = [
        {
            **rule,
            "blocks": blocked[rule["id"]],
            "counts": counts(rule["level"], data["level"]),
            "timeline": rule.get("timeline", []),
        }
        for rule in data["rules"]
        if rule["verdict"] in AGAINST
    ]
    return sorted(failures, key=lambda rule: order(rule["level"], rule["blocks"]))
