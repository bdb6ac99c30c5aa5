"""Runs one contender once, in this process, and prints its figures as JSON."""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.speed.contenders import CONTENDERS, Session, opened

_PARALLELISM = 2
_WARM_UP = 10
#: The pause between two tasks whose queued time is measured, in seconds, so the executor is not saturated.
_GAP_S = 0.004
_GAP_FOR_INTERPRETERS_S = 0.08
#: How many tasks are in flight while throughput is measured: enough that no slot waits for the host.
_WINDOW = 32
_POLL_S = 0.0002


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--heap", type=int, default=0, help="size of the heap of the host, in MB")
    parser.add_argument(
        "--tasks", type=int, default=200, help="number of tasks whose queued time is measured"
    )
    parser.add_argument("--seconds", type=float, default=1.5, help="how long throughput is measured")
    options = parser.parse_args()
    contender = next(one for one in CONTENDERS if one.name == options.name)
    heap = _ballast(options.heap)
    gap = _GAP_FOR_INTERPRETERS_S if contender.interprets else _GAP_S
    with opened(contender, _PARALLELISM) as session:
        queued = _queued_times(session, options.tasks, gap)
        rates = {
            name: _rate(session, name, options.seconds)
            for name in ("nothing", "ten_milliseconds")
            if not (contender.interprets and name != "nothing")
        }
    json.dump({"queued_s": queued, "tasks_per_s": rates, "objects": len(heap)}, sys.stdout)


def _ballast(megabytes: int) -> list[list[object]]:
    # A list with one item takes 64 bytes, plus 8 for the reference to it, and is tracked by the collector.
    return [[None] for _ in range(megabytes * (1 << 20) // 72)]


@contextmanager
def _fifo() -> Iterator[tuple[str, int]]:
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "stamps")
        os.mkfifo(path)
        descriptor = os.open(path, os.O_RDWR)
        try:
            yield path, descriptor
        finally:
            os.close(descriptor)


def _queued_times(session: Session, tasks: int, gap: float) -> list[float]:
    times = []
    with _fifo() as (path, descriptor):
        for number in range(_WARM_UP + tasks):
            until = time.monotonic() + gap
            while session.finished() < number or time.monotonic() < until:
                time.sleep(_POLL_S)
            submitted = time.monotonic_ns()
            session.submit("stamp", path)
            while not select.select([descriptor], [], [], 0.001)[0]:
                session.finished()
            times.append((int.from_bytes(os.read(descriptor, 8), "little") - submitted) / 1e9)
    return times[_WARM_UP:]


def _rate(session: Session, name: str, seconds: float) -> float:
    own = session.rate(name, seconds)
    if own is not None:
        return own
    began_with = submitted = session.finished()
    began = time.monotonic()
    while (now := time.monotonic()) < began + seconds:
        finished = session.finished()
        if submitted - finished >= _WINDOW:
            session.wait(_POLL_S)
        while submitted - finished < _WINDOW:
            session.submit(name)
            submitted += 1
    rate = (session.finished() - began_with) / (now - began)
    while session.finished() < submitted:
        time.sleep(_POLL_S)
    return rate


if __name__ == "__main__":
    main()
