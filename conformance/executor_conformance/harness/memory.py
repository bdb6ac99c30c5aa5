"""Private memory of processes, and garbage-collected objects that fill a host."""

from __future__ import annotations

import contextlib
import gc

import psutil

MB = 1_000_000

#: A list in a list: 56 bytes, 16 for the collector, 8 for its one item, 8 for its place in the other.
_BYTES_OF_AN_OBJECT = 88
_HEADROOM = 6


def private_bytes(pid: int | str = "self") -> int | None:
    """Bytes that only this process has mapped; ``None`` where it is gone or may not be read.

    What a fork shares with its parent is not counted, in neither of them, until one has written to it.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return 1024 * sum(int(line.split()[1]) for line in file if line.startswith("Private_"))
    except (OSError, ValueError):  # a zombie has an empty one
        return None


def ballast(size: int) -> list[list[None]]:
    """About ``size`` bytes of objects that the garbage collector looks after.

    Lists, because CPython's collector forgets about tuples and dicts that hold plain values only.
    """
    enabled = gc.isenabled()
    gc.disable()  # it would look at all that is there for every so many more
    try:
        return [[None] for _ in range(size // _BYTES_OF_AN_OBJECT)]
    finally:
        if enabled:
            gc.enable()


def has_room_for(size: int) -> bool:
    """Whether the machine has the memory for a ballast, and for some processes that each copy it.

    In a container, what its control group still allows.
    """
    room = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):  # no second version of control groups, or no limit
        room = min(room, _number_in("memory.max") - _number_in("memory.current"))
    return room > _HEADROOM * size


def _number_in(name: str) -> int:
    with open(f"/sys/fs/cgroup/{name}") as file:
        return int(file.read())
