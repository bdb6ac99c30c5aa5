"""Reports: the data of the JSON report, in several formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from executor_conformance.report import html_format, json_format, markdown_format
from executor_conformance.report.content import Report, counts, order, totals

#: Suffix of the file -> what turns the data of the JSON report into its text.
WRITERS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    ".json": json_format.write,
    ".html": html_format.write,
    ".md": markdown_format.write,
}

__all__ = ["WRITERS", "Report", "counts", "order", "totals"]
