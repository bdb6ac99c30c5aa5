"""Measures a process and its descendants from outside."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.remote.meters import memory, reset_peak

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Tree:
    """Of processes that all live from here on to the end of the measurement."""

    def __init__(self, root: int) -> None:
        self.pids = _descendants(root)
        for pid in self.pids:
            reset_peak(pid)
        self._memory = {pid: memory(pid, "VmRSS") for pid in self.pids}
        self._cpu = self._cpu_s()

    def cpu_s(self) -> float:
        """User and system time since then, in seconds."""
        return self._cpu_s() - self._cpu

    def growth(self) -> int:
        """From then to the peak of each, in bytes."""
        return sum(memory(pid, "VmHWM") - self._memory[pid] for pid in self.pids)

    def _cpu_s(self) -> float:
        # utime, stime, and both of children that have been waited for
        return sum(sum(map(int, _stat(pid)[11:15])) for pid in self.pids) / _TICKS_A_SECOND


def _stat(pid: int) -> list[str]:
    """What follows the name, which may have blanks in it: state, parent and so on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _descendants(root: int) -> list[int]:
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(_stat(int(folder.name))[1])
        except OSError:
            pass  # it has ended meanwhile
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found
