"""The report as one HTML page, for a browser or a CI artifact; needs the extra ``html`` (Jinja2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from executor_conformance.report.content import chapters, totals
from executor_conformance.verdicts import Verdict


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

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("executor_conformance.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html").render(
        report=data,
        totals=totals(data["summary"]),
        chapters=chapters(data),
        verdicts=[verdict.value for verdict in Verdict],
    )
