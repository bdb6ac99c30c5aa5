"""The report as JSON, described by ``schema-v1.json`` in this folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib import resources
from typing import Any


def write(data: Mapping[str, Any]) -> str:
    """The whole report as JSON text."""
    return json.dumps(_finite(data), indent=2, default=str, allow_nan=False) + "\n"


def _finite(data: Any) -> Any:
    """The same, with strings for the numbers that JSON does not have."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return str(data)
    return data


def schema() -> dict[str, Any]:
    """The published JSON Schema of the report."""
    text = resources.files(__package__).joinpath("schema-v1.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded
