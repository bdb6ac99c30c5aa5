"""The report as one HTML page, for a browser or a CI artifact; needs the extra ``html`` (Jinja2)."""

from __future__ import annotations

from executor_conformance.report.content import Report
from executor_conformance.rules import CHAPTERS
from executor_conformance.verdicts import Verdict


def missing_requirement() -> str | None:
    """What has to be installed before this format can be written, or ``None``."""
    try:
        import jinja2  # noqa: F401
    except ImportError:
        return "pip install 'executor-conformance[html]'"
    return None


def write(report: Report) -> str:
    """The whole report as HTML text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("executor_conformance.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    chapters = [
        (chapter.name, counts)
        for chapter in CHAPTERS.values()
        if any((counts := report.count(chapter=chapter)).values())
    ]
    return environment.get_template("report.html").render(
        report=report, chapters=chapters, verdicts=list(Verdict), machine=report.machine
    )
