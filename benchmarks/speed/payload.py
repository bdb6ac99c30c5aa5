"""The tasks of the benchmark, also for ``python -m``.  It imports almost nothing, so it starts fast."""

import time

#: The size of a time stamp, in bytes.
_STAMP = 8


def stamp(path: str) -> None:
    """Write the time of the first instruction to a FIFO."""
    now = time.monotonic_ns()
    with open(path, "wb", buffering=0) as fifo:
        fifo.write(now.to_bytes(_STAMP, "little"))


def nothing() -> None:
    """Do nothing."""


def ten_milliseconds() -> None:
    """Compute for 10 ms of processor time."""
    until = time.process_time() + 0.01
    while time.process_time() < until:
        pass


if __name__ == "__main__":
    NOW = time.monotonic_ns()
    import sys

    if len(sys.argv) > 1:
        with open(sys.argv[1], "wb", buffering=0) as fifo:
            fifo.write(NOW.to_bytes(_STAMP, "little"))
