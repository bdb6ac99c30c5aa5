"""The behavior of the simulated Batch service, including its faults.  It is determined by a seed."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum, auto


@dataclass(frozen=True)
class Behavior:
    """The options of the simulated service.  Shares are from 0 to 1."""

    seed: int = 1
    seconds: float = 30.0  # average duration of a job; the actual one differs by up to 50 %
    fail: float = 0.0  # share of jobs that fail
    throttle: float = 0.0  # share of calls answered with 429
    throttle_above: float = 0.0  # rate, in calls per second, above which all calls are; 0: no limit
    errors: float = 0.0  # share of calls answered with 500; half of them are executed


def add_options(parser: argparse.ArgumentParser, behavior: Behavior) -> None:
    """Add an option for each field; ``behavior`` has the defaults."""
    for field in fields(Behavior):
        default = getattr(behavior, field.name)
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, type=type(default), default=default, help=f"default: {default}")


def from_options(options: argparse.Namespace) -> Behavior:
    """Return the behavior that the options describe."""
    return Behavior(**{field.name: getattr(options, field.name) for field in fields(Behavior)})


def as_options(behavior: Behavior) -> list[str]:
    """Return the options that describe the behavior, for another process."""
    return [f"--{field.name.replace('_', '-')}={getattr(behavior, field.name)}" for field in fields(Behavior)]


class Fault(Enum):
    """The fault of a call."""

    NONE = auto()
    THROTTLED = auto()
    REJECTED = auto()  # error 500, and the call was not executed
    LOST = auto()  # error 500, although the call was executed


class Faults:
    """Draws a fault for each call, and counts them."""

    def __init__(self, behavior: Behavior, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts = dict.fromkeys(Fault, 0)
        self._behavior = behavior
        self._clock = clock
        self._random = random.Random(behavior.seed)
        self._allowance = behavior.throttle_above  # of a token bucket that holds one second of calls
        self._filled_at = clock()

    def draw(self) -> Fault:
        """Draw the fault of the next call."""
        fault = self._next()
        self.counts[fault] += 1
        return fault

    def _next(self) -> Fault:
        if self._is_above_rate() or self._random.random() < self._behavior.throttle:
            return Fault.THROTTLED
        if self._random.random() < self._behavior.errors:
            return self._random.choice((Fault.REJECTED, Fault.LOST))
        return Fault.NONE

    def _is_above_rate(self) -> bool:
        rate = self._behavior.throttle_above
        if not rate:
            return False
        now = self._clock()
        self._allowance = min(rate, self._allowance + (now - self._filled_at) * rate)
        self._filled_at = now
        if self._allowance < 1:
            return True
        self._allowance -= 1
        return False
