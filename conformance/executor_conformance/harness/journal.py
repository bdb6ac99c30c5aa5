"""What the probes recorded: the ground truth that reported events are checked against.

The other side is :mod:`executor_conformance.probes.transport`, which writes it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

_CHUNK = 1 << 16


@dataclass
class Run:
    """One run of a probe, from its first instruction on.  Times are CLOCK_MONOTONIC nanoseconds.

    :param host_marker: pid of the host whose memory it inherited by fork; 0 in a new interpreter.
    """

    probe: str
    started_ns: int
    pid: int
    parent: int
    group: int
    session: int
    host_marker: int
    finished_ns: int | None = None
    children: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Journal:
    """Reads the journal file as it grows."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._offset = 0
        self._rest = b""
        self._runs: dict[str, Run] = {}
        self._by_probe: dict[str, list[Run]] = {}
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o666))

    @property
    def size(self) -> int:
        """How many bytes were read so far."""
        return self._offset

    def runs(self, probe: str) -> list[Run]:
        """All runs of one probe so far, in the order in which they started."""
        self.read()
        return self._by_probe.get(probe, [])

    def all_runs(self) -> list[Run]:
        """All runs of all probes so far, in the order in which they started."""
        self.read()
        return sorted(self._runs.values(), key=lambda run: run.started_ns)

    def forget(self) -> None:
        """Forget the runs so far, all of which have ended."""
        self.read()
        self._runs.clear()
        self._by_probe.clear()

    def read(self) -> None:
        """Read what was written since the last call."""
        # Every look of every wait comes here, so it takes no more than three system calls.
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            while data := os.pread(descriptor, _CHUNK, self._offset):
                self._offset += len(data)
                *lines, self._rest = (self._rest + data).split(b"\n")
                for line in lines:
                    self._take(line.decode().split("\t"))
                if len(data) < _CHUNK:
                    return
        finally:
            os.close(descriptor)

    def _take(self, fields: list[str]) -> None:
        kind, probe, run_id, at = fields[0], fields[1], f"{fields[1]} {fields[2]}", fields[3]
        if kind == "start":
            pid, parent, group, session, marker = map(int, fields[4:9])
            run = Run(probe, int(at), pid, parent, group, session, marker)
            self._runs[run_id] = run
            self._by_probe.setdefault(probe, []).append(run)
            return
        if run_id not in self._runs:
            return  # forgotten
        run = self._runs[run_id]
        if kind == "finish":
            run.finished_ns = int(at)
        elif kind == "child":
            run.children.append(int(fields[4]))
        elif kind == "note":
            run.notes.append(bytes.fromhex(fields[4]).decode("utf-8", "surrogateescape"))
