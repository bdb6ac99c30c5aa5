"""Measures another process and its descendants."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.remote.meters import memory, reset_peak

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Tree:
    """The cost of a process tree.  All its processes must live until the end of the measurement."""

    def __init__(self, root: int) -> None:
        self.pids = _descendants(root)
        for pid in self.pids:
            reset_peak(pid)
        self._memory = {pid: memory(pid, "VmRSS") for pid in self.pids}
        self._cpu = self._cpu_s()

    def cpu_s(self) -> float:
        """Return the user and system time since the construction, in seconds."""
        return self._cpu_s() - self._cpu

    def growth(self) -> int:
        """Return the growth from the construction to the peak of each process, in bytes."""
        return sum(memory(pid, "VmHWM") - self._memory[pid] for pid in self.pids)

    def _cpu_s(self) -> float:
        # utime and stime, of the process and of its reaped children
        return sum(sum(map(int, _stat(pid)[11:15])) for pid in self.pids) / _TICKS_PER_SECOND


def _stat(pid: int) -> list[str]:
    """Return the fields after the name, which may contain blanks: state, parent and so on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _descendants(root: int) -> list[int]:
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(_stat(int(folder.name))[1])
        except OSError:
            pass  # the process has just ended
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found
