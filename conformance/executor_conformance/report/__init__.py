"""Reports: one value, several formats."""

from __future__ import annotations

from collections.abc import Callable

from executor_conformance.report import html_format, json_format, markdown_format
from executor_conformance.report.content import Report, counts

#: Suffix of the file -> what writes it.
WRITERS: dict[str, Callable[[Report], str]] = {
    ".json": json_format.write,
    ".html": html_format.write,
    ".md": markdown_format.write,
}

__all__ = ["WRITERS", "Report", "counts"]
