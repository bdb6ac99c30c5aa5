"""Draws measurements as SVG: distributions of times with their budget, and series of counts or bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

#: Where the bins of a histogram start, in seconds; each is twice as wide as the one before.
_FIRST_BIN_S = 1e-5
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 480, 170, 64, 34
_LEAST_POINTS, _LEAST_SPREAD = 3, 0.95
_SERIES = ("bytes", "objects", "blocks")


@dataclass(frozen=True)
class Plot:
    """A picture of one measurement.

    :param rule: id of the rule that measured it.
    :param text: the numbers in words, which a screen reader reads in place of the picture.
    :param svg: the picture.
    """

    rule: str
    name: str
    text: str
    svg: str


def plots(rules: Sequence[Mapping[str, Any]]) -> Iterator[Plot]:
    """The plots of a report.

    :param rules: as the JSON report has them.
    """
    for rule in rules:
        measured = rule["measurements"]
        for name, value in measured.items():
            if isinstance(value, dict) and value.get("count", 0) >= _LEAST_POINTS:
                yield _histogram(rule["id"], name, value, measured.get("budget_s"))
            elif name in _SERIES and isinstance(value, list) and len(value) >= _LEAST_POINTS:
                yield _series(rule["id"], name, value)


def _histogram(rule: str, name: str, value: Mapping[str, Any], budget_s: float | None) -> Plot:
    text = (
        f"{value['count']} samples: median {_seconds(value['p50_s'])}, p95 {_seconds(value['p95_s'])}, "
        f"maximum {_seconds(value['max_s'])}"
    )
    if budget_s:
        text += f"; budget {_seconds(budget_s)}"
    counts = {_bin(float(up_to)): count for up_to, count in value["histogram_up_to_s"].items()}
    last = max(*counts, 1, math.ceil(_position(budget_s)) if budget_s else 0) + 1
    first = max(0, min(counts) - 1)
    step = (_WIDTH - _LEFT - 8) / (last - first)
    top, most = _HEIGHT - _BOTTOM, max(counts.values())
    parts = [_axes()]
    for each, count in counts.items():
        height = (top - 18) * count / most
        x, y = _LEFT + (each - first) * step + 1, top - height
        parts.append(
            f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{step - 2:.1f}" height="{height:.1f}"/>'
        )
    parts += [
        _label(_LEFT + (tick + 1 - first) * step, top + 16, _seconds(_FIRST_BIN_S * 2**tick), "end")
        for tick in range(first, last, max(1, math.ceil((last - first) / 6)))
    ]
    parts.append(_label(_LEFT - 6, 18, str(most), "end"))
    if budget_s:
        x = _LEFT + (_position(budget_s) + 1 - first) * step
        parts.append(f'<line class="budget" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{top}"/>')
        parts.append(_label(x - 4, 14, "budget", "end"))
    return Plot(rule, name.replace("_", " "), text, _svg(text, parts))


def _series(rule: str, name: str, values: Sequence[float]) -> Plot:
    shown = [_amount(value, name) for value in (values[0], values[-1])]
    text = f"{len(values)} samples: {shown[0]} at first, {shown[1]} at last"
    high = max(values)
    low = min(*values, _LEAST_SPREAD * high)  # else the least change would fill the picture
    spread = (high - low) or 1
    top = _HEIGHT - _BOTTOM
    points = [
        (
            _LEFT + 8 + index * (_WIDTH - _LEFT - 24) / (len(values) - 1),
            top - 8 - (top - 24) * (value - low) / spread,
        )
        for index, value in enumerate(values)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts = [
        _axes(),
        f'<polyline class="line" points="{line}"/>',
        *(f'<circle class="bar" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points),
        _label(_LEFT - 6, top - 4, _amount(low, name), "end"),
        _label(_LEFT - 6, 18, _amount(high, name), "end"),
        _label(_WIDTH - 8, top + 16, "later", "end"),
    ]
    return Plot(rule, name, text, _svg(text, parts))


def _svg(text: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(text)}">{"".join(parts)}</svg>'
    )


def _axes() -> str:
    top = _HEIGHT - _BOTTOM
    return f'<path class="axis" d="M{_LEFT} 4V{top}H{_WIDTH - 8}"/>'


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _position(seconds: float) -> float:
    """Where this is between the upper ends of the bins, which are at whole numbers."""
    return math.log2(max(seconds, _FIRST_BIN_S) / _FIRST_BIN_S)


def _bin(up_to_s: float) -> int:
    return round(_position(up_to_s))


def _seconds(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def _amount(value: float, name: str) -> str:
    return f"{value / 1e6:.1f} MB" if name == "bytes" else f"{value:,.0f}"
