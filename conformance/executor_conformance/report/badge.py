"""A badge for a README: as SVG, or as JSON for the endpoint badges of shields.io."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from executor_conformance.verdicts import Verdict

_LABEL = "executor conformance"
_COLORS = {True: ("#1a7f37", "brightgreen"), False: ("#b3161b", "red"), None: ("#57606a", "lightgrey")}
#: Width of a character of Verdana at 11 pixels, on average, in pixels.
_CHARACTER, _MARGIN = 6.6, 12


def message(data: Mapping[str, Any]) -> str:
    """What the badge shows: the level, the rules that passed of those that apply, and the version.

    :param data: as the JSON report has it.
    """
    if data["conformant"] is None:
        return "no verdict"
    applicable = [rule for rule in data["rules"] if rule["verdict"] != Verdict.NOT_APPLICABLE]
    passed = sum(rule["verdict"] == Verdict.PASSED for rule in applicable)
    words = data["level"] if data["conformant"] else "not conformant"
    return f"{words}, {passed} of {len(applicable)} rules, {data['suite']['version']}"


def as_endpoint(data: Mapping[str, Any]) -> str:
    """The badge as https://shields.io/badges/endpoint-badge reads it."""
    color = _COLORS[data["conformant"]][1]
    badge = {"schemaVersion": 1, "label": _LABEL, "message": message(data), "color": color}
    return json.dumps(badge, indent=2) + "\n"


def as_svg(data: Mapping[str, Any]) -> str:
    """The badge as a picture."""
    text = message(data)
    left, right = (round(len(part) * _CHARACTER + _MARGIN) for part in (_LABEL, text))
    width = left + right
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img"
 aria-label="{_LABEL}: {escape(text)}">
<title>{_LABEL}: {escape(text)}</title>
<rect width="{width}" height="20" rx="3" fill="{_COLORS[data["conformant"]][0]}"/>
<path d="M3 0H{left}V20H3A3 3 0 0 1 0 17V3A3 3 0 0 1 3 0" fill="#424a53"/>
<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
<text x="{left / 2}" y="14">{_LABEL}</text><text x="{left + right / 2}" y="14">{escape(text)}</text>
</g></svg>
"""
