"""The report as JSON; ``schema-v1.json`` beside this file describes it."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from executor_conformance.report.content import Report


def write(report: Report) -> str:
    """The whole report as JSON text."""
    return json.dumps(report.as_dict(), indent=2, default=str) + "\n"


def schema() -> dict[str, Any]:
    """The published JSON Schema of the report."""
    text = resources.files(__package__).joinpath("schema-v1.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded
