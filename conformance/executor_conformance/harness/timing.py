"""Verdicts on durations, with stated error rates.

Whether a share of a stream of samples is above a budget is decided sample by sample, by Wald's sequential
test: as many are taken as it needs to be sure, and a few where it is plain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class ShareAbove:
    """Whether too many of a stream of samples are above a budget.

    It errs at the stated rate where at most ``low`` of them are above, or at least ``high``; between the two
    it takes long, and may stay undecided.  As it stands it is a test of the median.

    :param budget_s: seconds.
    :param low: a share that is allowed.
    :param high: a share that is too many.
    :param error: the chance of a wrong word, either way.
    """

    budget_s: float
    low: float = 0.3
    high: float = 0.7
    error: float = 1e-4
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
    def above(self) -> int:
        """How many samples were above the budget."""
        return sum(seconds > self.budget_s for seconds in self.samples)

    @property
    def is_above(self) -> bool | None:
        """``None``: not decided yet."""
        sure = math.log((1 - self.error) / self.error)
        if self._evidence >= sure:
            return True
        return False if self._evidence <= -sure else None


def quantile(samples: Sequence[float], share: float) -> float:
    """The sample below which this share of them is."""
    ordered = sorted(samples)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def spread(samples: Sequence[float]) -> float:
    """From the 10th to the 90th percentile."""
    return quantile(samples, 0.9) - quantile(samples, 0.1)


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
