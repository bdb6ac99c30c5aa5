"""How our Batch service behaves, and how badly: all of it follows from a seed."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum, auto


@dataclass(frozen=True)
class Conduct:
    """Shares are from 0 to 1."""

    seed: int = 1
    seconds: float = 30.0  # from the submission of a job to its end, give or take a half
    fail: float = 0.0  # share of jobs that fail
    throttle: float = 0.0  # share of calls answered with 429
    throttle_above: float = 0.0  # calls a second, above which all are; 0: any
    errors: float = 0.0  # share of calls answered with 500, every other of them after its work was done


def add_options(parser: argparse.ArgumentParser, conduct: Conduct) -> None:
    """An option for each field; ``conduct`` has the defaults."""
    for field in fields(Conduct):
        default = getattr(conduct, field.name)
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, type=type(default), default=default, help=f"default: {default}")


def from_options(options: argparse.Namespace) -> Conduct:
    """What was asked for."""
    return Conduct(**{field.name: getattr(options, field.name) for field in fields(Conduct)})


def as_options(conduct: Conduct) -> list[str]:
    """What another process is to be asked for."""
    return [f"--{field.name.replace('_', '-')}={getattr(conduct, field.name)}" for field in fields(Conduct)]


class Fault(Enum):
    """What becomes of a call."""

    NONE = auto()
    THROTTLED = auto()
    REFUSED = auto()  # an error, and nothing was done
    LOST = auto()  # an error, though all was done


class Faults:
    """Draws the faults, one for each call, and counts them."""

    def __init__(self, conduct: Conduct, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts = dict.fromkeys(Fault, 0)
        self._conduct = conduct
        self._clock = clock
        self._random = random.Random(conduct.seed)
        self._allowance = conduct.throttle_above  # of a bucket that holds a second's worth
        self._filled_at = clock()

    def draw(self) -> Fault:
        """The fate of the next call."""
        fault = self._fate()
        self.counts[fault] += 1
        return fault

    def _fate(self) -> Fault:
        if self._is_above_rate() or self._random.random() < self._conduct.throttle:
            return Fault.THROTTLED
        if self._random.random() < self._conduct.errors:
            return self._random.choice((Fault.REFUSED, Fault.LOST))
        return Fault.NONE

    def _is_above_rate(self) -> bool:
        rate = self._conduct.throttle_above
        if not rate:
            return False
        now = self._clock()
        self._allowance = min(rate, self._allowance + (now - self._filled_at) * rate)
        self._filled_at = now
        if self._allowance < 1:
            return True
        self._allowance -= 1
        return False
