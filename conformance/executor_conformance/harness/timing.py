"""Verdicts on durations, with stated error rates.

Whether a median is above a budget is decided sample by sample, by Wald's sequential test on the share of
samples that are above it: as many are taken as it needs to be sure, and a few where it is plain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

#: The chance of a wrong word, either way, where the share is at or beyond the shares below.
ERROR_RATE = 1e-4


@dataclass
class ShareAbove:
    """Whether more than half of a stream of samples is above a budget.

    It errs once in 10,000 where at most ``low`` of them are, or at least ``high``; between the two it takes
    long, and may stay undecided.

    :param budget_s: seconds.
    """

    budget_s: float
    low: float = 0.3
    high: float = 0.7
    samples: list[float] = field(default_factory=list)
    _evidence: float = 0.0

    def add(self, seconds: float) -> None:
        """One more sample."""
        self.samples.append(seconds)
        if seconds > self.budget_s:
            self._evidence += math.log(self.high / self.low)
        else:
            self._evidence += math.log((1 - self.high) / (1 - self.low))

    @property
    def is_above(self) -> bool | None:
        """``None``: not decided yet."""
        sure = math.log((1 - ERROR_RATE) / ERROR_RATE)
        if self._evidence >= sure:
            return True
        return False if self._evidence <= -sure else None


def quantile(samples: Sequence[float], share: float) -> float:
    """The sample below which this share of them is."""
    ordered = sorted(samples)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def distribution(samples: Sequence[float]) -> dict[str, object]:
    """For the report: quantiles in seconds, and a histogram whose bins double from 10 microseconds on."""
    bins: dict[str, int] = {}
    for seconds in sorted(samples):
        exponent = max(0, math.ceil(math.log2(max(seconds, 1e-9) / 1e-5)))
        name = f"{1e-5 * 2**exponent:.6g}"
        bins[name] = bins.get(name, 0) + 1
    return {
        "count": len(samples),
        "p50_s": round(quantile(samples, 0.5), 6),
        "p95_s": round(quantile(samples, 0.95), 6),
        "p99_s": round(quantile(samples, 0.99), 6),
        "max_s": round(max(samples), 6),
        "histogram_up_to_s": bins,
    }
