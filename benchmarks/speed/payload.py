"""What the contenders run; also as ``python -m``.  Imports next to nothing, so that it starts at once."""

import time

#: Bytes of a moment.
_STAMP = 8


def stamp(path: str) -> None:
    """Tell the moment of the first instruction."""
    now = time.monotonic_ns()
    with open(path, "wb", buffering=0) as fifo:
        fifo.write(now.to_bytes(_STAMP, "little"))


def nothing() -> None:
    """Cost nothing."""


def ten_milliseconds() -> None:
    """Compute for 10 ms of processor time, as a task does, and not sleep."""
    until = time.process_time() + 0.01
    while time.process_time() < until:
        pass


if __name__ == "__main__":
    NOW = time.monotonic_ns()
    import sys

    if len(sys.argv) > 1:
        with open(sys.argv[1], "wb", buffering=0) as fifo:
            fifo.write(NOW.to_bytes(_STAMP, "little"))
