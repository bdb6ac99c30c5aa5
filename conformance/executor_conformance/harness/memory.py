"""How much memory processes use, and objects that fill the memory of a host.

Resident memory counts a shared page once per process.  Private memory does not count a shared page at all, so
a leak goes unnoticed in a process that always has a forked child.  Where several processes are measured
together, each is therefore charged its proportional share of a page (``Pss``); the shares of a page add up to
the page.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

MB = 1_000_000
#: The size of a host that has grown, for rules that compare it with a small one.
BALLAST = 150 * MB

#: A list inside another list takes 56 bytes, 16 for the garbage collector, 8 for its one item and 8 for its
#: place in the other list.
_BYTES_PER_OBJECT = 88
#: A ballast needs this many times its size to be available, because processes may copy it.
_HEADROOM = 6


@dataclass(frozen=True)
class Footprint:
    """The memory of one process in bytes, as reported by the kernel (``smaps_rollup``, Linux 5.3).

    :param private: pages that no other process has mapped.
    :param anonymous: heap, stacks and the like, including pages that it shares with forked relatives.
    :param share: the same, but a page that two processes share counts half.
    :param shared_memory: its proportional share of shared mappings, plus the size of the in-memory files that
        it has open.
    """

    private: int
    anonymous: int
    share: int
    shared_memory: int


_NOTHING = Footprint(0, 0, 0, 0)


def footprint(pid: int | str = "self") -> Footprint | None:
    """The memory of a process; ``None`` if it is gone or must not be read."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            next(file)
            sizes = {name: 1024 * int(size.split()[0]) for name, size in (line.split(":") for line in file)}
    except (OSError, ValueError, StopIteration):  # the file of a zombie is empty
        return None
    return Footprint(
        private=sizes["Private_Clean"] + sizes["Private_Dirty"],
        anonymous=sizes["Anonymous"],
        share=sizes["Pss_Anon"],
        shared_memory=sizes["Pss_Shmem"] + _in_open_files(pid),
    )


def _in_open_files(pid: int | str) -> int:
    """Bytes of in-memory files (``memfd_create``, /dev/shm) that a process has open, mapped or not."""
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
    """Bytes that only this process has mapped; ``None`` if it is gone or must not be read.

    Pages that a forked child shares with its parent count in neither of them until one writes to them.
    """
    found = footprint(pid)
    return None if found is None else found.private


def held_by_all(relatives: Iterable[int]) -> int:
    """Bytes of heap, stacks and the like of all these processes together; a shared page counts once.

    :param relatives: pids of all processes that may share a page with each other.
    """
    return sum((footprint(pid) or _NOTHING).share for pid in relatives)


def held_outside_host(host: int, relatives: Iterable[int]) -> int:
    """Like :func:`held_by_all`, without the pages that the host has mapped.

    :param host: one of the relatives.
    """
    return held_by_all(relatives) - (footprint(host) or _NOTHING).anonymous


def ballast(size: int) -> list[list[None]]:
    """About ``size`` bytes of objects that the garbage collector tracks and has already visited.

    They are lists, because CPython's collector stops tracking tuples and dicts that hold only plain values.
    """
    enabled = gc.isenabled()
    gc.disable()  # it would visit all existing objects again and again while more are made
    try:
        objects: list[list[None]] = [[None] for _ in range(size // _BYTES_PER_OBJECT)]
        gc.collect()  # with this many objects, the next full collection is a long time away
        return objects
    finally:
        if enabled:
            gc.enable()


def has_room_for(size: int) -> bool:
    """Whether the machine has enough memory for a ballast, and for several processes that each copy it.

    In a container, the limit of its control group counts as well.
    """
    room = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):  # no cgroups v2, or no limit
        room = min(room, _number_in("memory.max") - _number_in("memory.current"))
    return room > _HEADROOM * size


def _number_in(name: str) -> int:
    with open(f"/sys/fs/cgroup/{name}") as file:
        return int(file.read())
