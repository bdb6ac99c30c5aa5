"""Verdicts on durations, with stated error rates.

Whether a share of a stream of samples is above a budget is decided sample by sample, by Wald's sequential
test: as many are taken as it needs to be sure, and a few where it is plain.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

#: A polling interval is seen when it is at least twice as long.
_SPREAD_S = 0.01
#: A correlation of 21 moments with what was waited then; by chance it is below that once in 10,000 times.
_FOLLOWS = -0.7
#: Intervals of 25 ms to 1 s, in Hz; and how finely they are looked through.
_SELDOM, _OFTEN, _FINENESS = 1.0, 40.0, 3
#: The chance that one is found where there is none; and from how many samples.
_FOUND_BY_CHANCE, _FEWEST = 1e-5, 4
#: Half of what a machine scatters where it is calm, and where nothing would show.
_CALM_S, _WILD_S = 0.0025, 0.005


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


def recurring_interval_s(looks: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float | None:
    """The interval, of 25 ms to 1 s, at whose ends things begin that were asked for at some moments.

    Who waits for the next look waits until a multiple of the interval.  On the circle of that interval the
    moment and the end of the wait make up for each other, so the two are correlated, however late a busy
    machine is with each; no such correlation comes of a machine that delays whatever comes at any moment.
    The most correlated interval is named where chance would correlate none so much but once in 100,000 times.

    :param looks: for each of some executors, when things were asked for, in seconds of one clock, and the
        seconds until each began; the intervals of two executors need not begin together.
    :returns: seconds, or a part of the interval, which fits as well; ``None`` where none is found.
    """
    if not looks or any(len(moments) < _FEWEST for moments, _ in looks):
        return None
    longest = max(max(moments) - min(moments) for moments, _ in looks)
    if not longest:
        return None
    step = 1 / (_FINENESS * longest)
    rates = [_SELDOM + number * step for number in range(int((_OFTEN - _SELDOM) / step) + 1)]
    evidence, rate = max((sum(_on_the_circle(rate, *look) for look in looks), rate) for rate in rates)
    by_chance = len(rates) * _sum_exceeds(evidence, len(looks))
    return 1 / rate if by_chance <= _FOUND_BY_CHANCE else None


def _on_the_circle(rate: float, moments: Sequence[float], waited: Sequence[float]) -> float:
    """How much the moment and the wait, as angles of so many turns a second, are correlated.

    :returns: minus the logarithm of the chance that they are so by chance.
    """
    ones, others = (
        _about_mean([cmath.rect(1.0, math.tau * rate * second) for second in seconds])
        for seconds in (moments, waited)
    )
    scatter = sum(abs(one) ** 2 for one in ones) * sum(abs(other) ** 2 for other in others)
    both = abs(sum(one * other for one, other in zip(ones, others, strict=True))) ** 2
    squared = both / scatter if scatter > 1e-9 else 0.0
    return -(len(moments) - 2) * math.log(max(1 - squared, 1e-12))


def _about_mean(angles: Sequence[complex]) -> list[complex]:
    mean = sum(angles) / len(angles)
    return [angle - mean for angle in angles]


def _sum_exceeds(total: float, count: int) -> float:
    """The chance that ``count`` such logarithms of chances add up to more than this (Fisher's method)."""
    return math.exp(-total) * sum(total**k / math.factorial(k) for k in range(count))


@dataclass(frozen=True)
class AtAnyMoment:
    """What tasks waited that were submitted at random moments, and what the machine scatters at such moments.

    An interval between two looks at new tasks scatters all of them, as much below the median as above it; a
    busy machine delays a few far more than the rest.  So the half below the median tells the one from the
    other, and the whole an interval that comes after some rests only.  An interval that recurs is told by the
    moments themselves, on a machine that scatters as much.

    :param waited: seconds.
    :param controls: seconds that such a process took at these moments without any executor.
    :param follows: the correlation of what was waited with the moment: who comes later finds the next look
        nearer, however much a busy machine scatters.
    :param recurs_s: what :func:`recurring_interval_s` found, in these and others of the same kind.
    """

    waited: Sequence[float]
    controls: Sequence[float]
    follows: float = 0.0
    recurs_s: float | None = None

    @property
    def spread_s(self) -> float:
        return spread(self.waited)

    @property
    def allowed_s(self) -> float:
        return _SPREAD_S + 2 * quantile(self.controls, 0.5) + 3 * spread(self.controls)

    @property
    def to_median_s(self) -> float:
        return _to_median(self.waited)

    @property
    def allowed_to_median_s(self) -> float:
        return _SPREAD_S + quantile(self.controls, 0.5) / 2 + 3 * _to_median(self.controls)

    @property
    def shows(self) -> bool:
        """Whether an interval shows; now and then by chance."""
        if self.recurs:
            return True
        if self.spread_s > self.allowed_s or self.to_median_s > self.allowed_to_median_s:
            return True
        return self.follows <= _FOLLOWS and self.spread_s > 2 * _SPREAD_S

    @property
    def recurs(self) -> bool:
        """Whether what recurs costs more than the machine scatters."""
        return self.recurs_s is not None and self.spread_s > 2 * _SPREAD_S + spread(self.controls)

    @property
    def says(self) -> float:
        """How much it says whether an interval shows, from 0 (the machine would hide one) to 1."""
        if self.recurs:
            return 1.0
        scattered = _to_median(self.controls)
        if scattered <= _CALM_S or self.to_median_s <= 2 * _SPREAD_S:
            return 1.0
        return 0.5 if scattered <= _WILD_S else 0.0

    def measurements(self) -> dict[str, object]:
        """For the report."""
        return {
            "queued_time": distribution(self.waited),
            "spread_s": round(self.spread_s, 6),
            "allowed_s": round(self.allowed_s, 6),
            "to_median_s": round(self.to_median_s, 6),
            "allowed_to_median_s": round(self.allowed_to_median_s, 6),
            "follows_the_moment": round(self.follows, 3),
            "recurs_s": None if self.recurs_s is None else round(self.recurs_s, 6),
        }


def _to_median(samples: Sequence[float]) -> float:
    """From the 10th percentile to the median."""
    return quantile(samples, 0.5) - quantile(samples, 0.1)


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
