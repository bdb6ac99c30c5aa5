"""Statistical tests on durations, with stated error rates.

:class:`SequentialTest` is Wald's sequential probability ratio test.  It decides whether too many samples are
above a budget, and takes no more samples than its error rate needs: few in a clear case, many in a close one.

:func:`recurring_interval_s` finds a polling interval by circular correlation: times are mapped to angles on a
circle that has the interval as its circumference.  Fisher's method combines the p-values of several
executors.

:class:`PollingTest` decides from one series of queued times whether they show a polling interval.
"""

from __future__ import annotations

import cmath
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

#: In seconds.  A polling interval is detected if it is at least twice this long.
_SPREAD_S = 0.01
#: A polling interval shows if the queued times have at most this correlation with the time since the previous
#: task.  With 21 samples, chance produces such a correlation twice in 10,000 times.
_PHASE_CORRELATION = -0.7
#: Polling frequencies from 1 Hz to 40 Hz are tried, that is intervals from 1 s to 25 ms.
_LOWEST_HZ, _HIGHEST_HZ = 1.0, 40.0
#: The step between two frequencies is 1 / (this times the duration of the longest series).
_OVERSAMPLING = 3
#: The probability of finding a recurring interval where there is none.
_FALSE_POSITIVE_RATE = 1e-5
#: A series with fewer samples cannot show a recurring interval.
_FEWEST_SAMPLES = 4
#: If the lower spread (10th percentile to median) of the control times is at most the first value, the
#: machine is quiet.  If it is above the second value, the machine would hide a polling interval.  In seconds.
_QUIET_S, _NOISY_S = 0.0025, 0.005


@dataclass
class SequentialTest:
    """Whether too many samples are above a budget: Wald's sequential probability ratio test.

    The error rate holds where the true share of samples above the budget is at most ``low`` or at least
    ``high``.  Between the two, the test takes many samples and may stay undecided.  The default shares make
    it a test of the median.

    :param budget_s: seconds.
    :param low: a share of samples above the budget that is acceptable.
    :param high: a share of samples above the budget that is not acceptable.
    :param error: the probability of a wrong decision, in either direction.
    """

    budget_s: float
    low: float = 0.3
    high: float = 0.7
    error: float = 1e-4
    samples: list[float] = field(default_factory=list)
    _log_likelihood_ratio: float = 0.0

    def add(self, seconds: float) -> None:
        """Take one more sample into account."""
        self.samples.append(seconds)
        if seconds > self.budget_s:
            self._log_likelihood_ratio += math.log(self.high / self.low)
        else:
            self._log_likelihood_ratio += math.log((1 - self.high) / (1 - self.low))

    @property
    def above(self) -> int:
        """How many samples were above the budget."""
        return sum(seconds > self.budget_s for seconds in self.samples)

    @property
    def is_above(self) -> bool | None:
        """Whether too many samples are above the budget; ``None`` while that is undecided."""
        threshold = math.log((1 - self.error) / self.error)
        if self._log_likelihood_ratio >= threshold:
            return True
        return False if self._log_likelihood_ratio <= -threshold else None


def quantile(samples: Sequence[float], share: float) -> float:
    """The sample that has this share of the samples below it."""
    ordered = sorted(samples)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def spread(samples: Sequence[float]) -> float:
    """The distance from the 10th to the 90th percentile."""
    return quantile(samples, 0.9) - quantile(samples, 0.1)


def recurring_interval_s(series: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float | None:
    """Find a polling interval from 25 ms to 1 s by circular correlation.

    A task that waits for the next poll waits until a multiple of the interval.  If times are mapped to angles
    on a circle of that interval, the angle of the submission and the angle of the wait add up to a constant,
    so the two correlate perfectly.  Delays of a busy machine weaken this correlation and create none, because
    they hit tasks at any time.

    Many frequencies are tried.  For each, the correlation of every series is turned into a p-value, and
    Fisher's method combines the p-values.  The best frequency counts if its combined p-value, corrected for
    the number of frequencies (Bonferroni), is at most 1 in 100,000.

    :param series: for each of one or more executors, when its tasks were submitted, in seconds of one clock,
        and how many seconds each one waited.  The polls of two executors need not be in phase.
    :returns: the interval in seconds, or an integer fraction of it, which fits as well; ``None`` if none is
        found.
    """
    if not series or any(len(submitted) < _FEWEST_SAMPLES for submitted, _ in series):
        return None
    longest = max(max(submitted) - min(submitted) for submitted, _ in series)
    if not longest:
        return None
    step = 1 / (_OVERSAMPLING * longest)
    frequencies = [_LOWEST_HZ + number * step for number in range(int((_HIGHEST_HZ - _LOWEST_HZ) / step) + 1)]
    correlations = [_circular_correlations(_LOWEST_HZ, step, len(frequencies), *each) for each in series]
    evidence, frequency = max(zip(map(sum, zip(*correlations, strict=True)), frequencies, strict=True))
    p_value = len(frequencies) * _fishers_p_value(evidence, len(series))
    return 1 / frequency if p_value <= _FALSE_POSITIVE_RATE else None


def _circular_correlations(
    lowest: float, step: float, count: int, submitted: Sequence[float], waited: Sequence[float]
) -> list[float]:
    """The correlations of submission and wait, as angles at ``count`` evenly spaced frequencies.

    There are thousands of them.  So the angles are rotated from one frequency to the next, and three sums
    give the correlation.

    :returns: the negative logarithms of their p-values.
    """
    submissions, waits = (_angles(lowest, seconds) for seconds in (submitted, waited))
    submission_steps, wait_steps = (_angles(step, seconds) for seconds in (submitted, waited))
    size = len(submitted)
    evidence = []
    for _ in range(count):
        submission_sum, wait_sum = sum(submissions), sum(waits)
        products = sum(map(operator.mul, submissions, waits))
        covariance = abs(products - submission_sum * wait_sum / size) ** 2
        # All points lie on the unit circle.
        variances = (size - abs(submission_sum) ** 2 / size) * (size - abs(wait_sum) ** 2 / size)
        squared = covariance / variances if variances > 1e-9 else 0.0
        evidence.append(-(size - 2) * math.log(max(1 - squared, 1e-12)))
        submissions = list(map(operator.mul, submissions, submission_steps))
        waits = list(map(operator.mul, waits, wait_steps))
    return evidence


def _angles(frequency: float, seconds: Sequence[float]) -> list[complex]:
    """These times as points on the unit circle."""
    return [cmath.rect(1.0, math.tau * frequency * second) for second in seconds]


def _fishers_p_value(total: float, count: int) -> float:
    """Fisher's method: the p-value of ``count`` independent p-values whose negative logarithms sum to
    ``total``.
    """
    return math.exp(-total) * sum(total**k / math.factorial(k) for k in range(count))


@dataclass(frozen=True)
class PollingTest:
    """Whether the queued times of tasks submitted at random times show a polling interval.

    A polling interval spreads all queued times, as much below their median as above it.  A busy machine
    delays a few tasks by far more than the rest.  The spread below the median therefore shows an interval
    that applies to every task.  The whole spread also shows an interval that applies only after some pauses.
    An interval that recurs is detected from the submission times themselves, even on a noisy machine.

    :param waited: the queued times in seconds.
    :param controls: how long the same kind of process took at these times without an executor, in seconds.
    :param phase_correlation: the correlation of the queued time with the time since the previous task.  It is
        negative with polling, because a task submitted later finds the next poll nearer, and a busy machine
        does not change that.
    :param recurring_s: what :func:`recurring_interval_s` found in this series and in earlier ones.
    """

    waited: Sequence[float]
    controls: Sequence[float]
    phase_correlation: float = 0.0
    recurring_s: float | None = None

    @property
    def spread_s(self) -> float:
        return spread(self.waited)

    @property
    def allowed_s(self) -> float:
        return _SPREAD_S + 2 * quantile(self.controls, 0.5) + 3 * spread(self.controls)

    @property
    def lower_spread_s(self) -> float:
        return _lower_spread(self.waited)

    @property
    def allowed_lower_s(self) -> float:
        return _SPREAD_S + quantile(self.controls, 0.5) / 2 + 3 * _lower_spread(self.controls)

    @property
    def shows_polling(self) -> bool:
        """Whether a polling interval shows.  A single result may be due to chance."""
        if self.recurrence_exceeds_noise:
            return True
        if self.spread_s > self.allowed_s or self.lower_spread_s > self.allowed_lower_s:
            return True
        return self.phase_correlation <= _PHASE_CORRELATION and self.spread_s > 2 * _SPREAD_S

    @property
    def recurrence_exceeds_noise(self) -> bool:
        """Whether there is a recurring interval that delays tasks by more than the noise of the machine."""
        return self.recurring_s is not None and self.spread_s > 2 * _SPREAD_S + spread(self.controls)

    @property
    def weight(self) -> float:
        """How much this result counts, from 0 (the machine would hide an interval) to 1."""
        if self.recurrence_exceeds_noise:
            return 1.0
        noise = _lower_spread(self.controls)
        if noise <= _QUIET_S or self.lower_spread_s <= 2 * _SPREAD_S:
            return 1.0
        return 0.5 if noise <= _NOISY_S else 0.0

    def measurements(self) -> dict[str, object]:
        """For the report."""
        return {
            "queued_time": distribution(self.waited),
            "spread_s": round(self.spread_s, 6),
            "allowed_s": round(self.allowed_s, 6),
            "lower_spread_s": round(self.lower_spread_s, 6),
            "allowed_lower_s": round(self.allowed_lower_s, 6),
            "phase_correlation": round(self.phase_correlation, 3),
            "recurring_interval_s": None if self.recurring_s is None else round(self.recurring_s, 6),
        }


def _lower_spread(samples: Sequence[float]) -> float:
    """The distance from the 10th percentile to the median."""
    return quantile(samples, 0.5) - quantile(samples, 0.1)


def distribution(samples: Sequence[float]) -> dict[str, object]:
    """For the report: quantiles in seconds, and a histogram whose bins double in width from 10 microseconds
    up.
    """
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
