"""What processes hold in memory, and garbage-collected objects that fill a host.

Resident memory counts what is shared again and again.  Private memory counts it for nobody: a leak hides in
a process that always has a forked child.  So where several processes are looked at, each has its share of a
page (``Pss``), and all shares of a page are the page.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

MB = 1_000_000

#: A list in a list: 56 bytes, 16 for the collector, 8 for its one item, 8 for its place in the other.
_BYTES_OF_AN_OBJECT = 88
_HEADROOM = 6


@dataclass(frozen=True)
class Footprint:
    """What one process holds, in bytes, as the kernel tells it (``smaps_rollup``, Linux 5.3).

    :param private: mapped by no other process.
    :param anonymous: heap, stacks and the like, what it shares with forked relatives included.
    :param share: the same, a page that two share counting half.
    :param shared_memory: its share of what was mapped to be shared, and what files in memory hold that it
        has open.
    """

    private: int
    anonymous: int
    share: int
    shared_memory: int


_NOTHING = Footprint(0, 0, 0, 0)


def footprint(pid: int | str = "self") -> Footprint | None:
    """What a process holds; ``None`` where it is gone or may not be read."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            next(file)
            sizes = {name: 1024 * int(size.split()[0]) for name, size in (line.split(":") for line in file)}
    except (OSError, ValueError, StopIteration):  # a zombie has an empty one
        return None
    return Footprint(
        private=sizes["Private_Clean"] + sizes["Private_Dirty"],
        anonymous=sizes["Anonymous"],
        share=sizes["Pss_Anon"],
        shared_memory=sizes["Pss_Shmem"] + _in_open_files(pid),
    )


def _in_open_files(pid: int | str) -> int:
    """Bytes of files in memory (``memfd_create``, /dev/shm) that a process has open, mapped or not."""
    sizes: dict[tuple[int, int], int] = {}
    with contextlib.suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                path = f"/proc/{pid}/fd/{number}"
                if os.readlink(path).startswith(("/memfd:", "/dev/shm/")):
                    status = os.stat(path)
                    sizes[status.st_dev, status.st_ino] = 512 * status.st_blocks
    return sum(sizes.values())


def private_bytes(pid: int | str = "self") -> int | None:
    """Bytes that only this process has mapped; ``None`` where it is gone or may not be read.

    What a fork shares with its parent is not counted, in neither of them, until one has written to it.
    """
    found = footprint(pid)
    return None if found is None else found.private


def held_by_all(relatives: Iterable[int]) -> int:
    """Bytes of heap and the like that processes hold: each page counts once, however many share it.

    :param relatives: pids of all who may share a page with each other.
    """
    return sum((footprint(pid) or _NOTHING).share for pid in relatives)


def held_beside(host: int, relatives: Iterable[int]) -> int:
    """Those of them in pages that are not the host's, too.

    :param host: one of the relatives.
    """
    return held_by_all(relatives) - (footprint(host) or _NOTHING).anonymous


def ballast(size: int) -> list[list[None]]:
    """About ``size`` bytes of objects that the garbage collector looks after, and has looked at.

    Lists, because CPython's collector forgets about tuples and dicts that hold plain values only.
    """
    enabled = gc.isenabled()
    gc.disable()  # it would look at all that is there for every so many more
    try:
        objects: list[list[None]] = [[None] for _ in range(size // _BYTES_OF_AN_OBJECT)]
        gc.collect()  # as they are so many, the next full collection is a long way off
        return objects
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
