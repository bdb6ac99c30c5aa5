"""Measures the speed and the memory of "executor-conformance check-history" on a million events.

python benchmarks/check_history.py [--events 1000000]
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

_IN_FLIGHT = 500


def main() -> None:
    """Print the median time of three runs, and the peak memory of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    events = parser.parse_args().events
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.writelines(_lines(events))
        file.flush()
        command = [sys.executable, "-m", "executor_conformance", "check-history", file.name]
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    median = statistics.median(seconds)
    print(done.stdout.strip())
    print(f"median {median:.2f} s of {', '.join(f'{one:.2f}' for one in seconds)}; peak {peak:.1f} MB")


def _lines(events: int) -> Iterator[str]:
    """Yield the events of overlapping tasks: submitted, started, finished and observed."""
    rng = random.Random(1)
    in_flight: list[tuple[int, int]] = []  # (task number, steps done)
    number = 0
    for _ in range(events):
        if len(in_flight) < _IN_FLIGHT:
            in_flight.append((number, 0))
            number += 1
            place = len(in_flight) - 1
        else:
            place = rng.randrange(len(in_flight))
        task, step = in_flight[place]
        key = ["dag", f"task-{task}", "run", 1, -1]
        event, state = (
            ("submitted", None),
            ("started", None),
            ("finished", "success"),
            ("observed", "success"),
        )[step]
        yield json.dumps({"event": event, "key": key} | ({"state": state} if state else {})) + "\n"
        if step == 3:
            in_flight[place] = in_flight[-1]
            in_flight.pop()
        else:
            in_flight[place] = (task, step + 1)


if __name__ == "__main__":
    main()
