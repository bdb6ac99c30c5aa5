"""Processes, threads, descriptors and shared memory, as /proc shows them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from executor_conformance.harness.linux import monotonic, sleep


@dataclass(frozen=True)
class Process:
    """One process at the moment it was looked at."""

    pid: int
    parent: int
    state: str
    command: str
    started: float

    @property
    def is_zombie(self) -> bool:
        return self.state == psutil.STATUS_ZOMBIE

    @property
    def is_interpreter_helper(self) -> bool:
        """The interpreter's own lasting helpers, which no executor can end: multiprocessing keeps one
        resource tracker and one fork server for as long as the host lives.  Workers of the fork server
        share its command line but are its children, so only direct children of the host are meant.
        """
        return "multiprocessing.resource_tracker" in self.command or (
            "multiprocessing.forkserver" in self.command
        )

    def __str__(self) -> str:
        state = f", {self.state}" if self.is_zombie else ""
        return f"{self.pid} (parent {self.parent}{state}): {self.command}"


def descendants(root: int) -> list[Process]:
    """All processes below ``root``, zombies included, parents before children."""
    try:
        found = psutil.Process(root).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [process for process in map(_look, found) if process is not None]


def look(pid: int) -> Process | None:
    """The process with this pid, or ``None``."""
    try:
        return _look(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return None


def _look(process: psutil.Process) -> Process | None:
    try:
        with process.oneshot():
            state = process.status()
            try:
                command = " ".join(process.cmdline())[:200]
            except (psutil.AccessDenied, psutil.ZombieProcess):
                command = ""
            command = command.replace("\n", " ") or f"[{process.name()}]"
            return Process(process.pid, process.ppid() or 0, state, command, process.create_time())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def is_alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    process = look(pid)
    return process is not None and not process.is_zombie


def kill(pid: int, signal_number: int = signal.SIGKILL) -> None:
    """Send a signal to a process that may be gone."""
    try:
        os.kill(pid, signal_number)
    except ProcessLookupError:
        pass


def reap() -> None:
    """Collect every child of this process that has ended."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def sweep(root: int, spare: Iterable[int] = (), patience_s: float = 10.0) -> list[Process]:
    """Kill everything below ``root`` except ``spare`` and reap it; returns what would not die.

    Stopped first and killed then, so that what forks while it is being killed does not win.
    """
    spared = frozenset(spare)
    until = monotonic() + patience_s
    while True:
        reap_except(spared)
        left = [process for process in descendants(root) if process.pid not in spared]
        if not left or monotonic() > until:
            return left
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in left:
                kill(process.pid, number)
        sleep(0.002)


def reap_except(spared: frozenset[int]) -> None:
    """Collect ended children, but leave the exit status of ``spared`` to whoever waits for them."""
    if not spared:
        reap()
        return
    for process in psutil.Process().children():
        if process.pid not in spared:
            try:
                os.waitpid(process.pid, os.WNOHANG)
            except ChildProcessError:
                pass


def open_descriptors(pid: int | str = "self") -> dict[int, str]:
    """Descriptor -> what it points to."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            pass  # the descriptor of the listing itself
    return found


def thread_count(pid: int | str = "self") -> int:
    """Threads of a process as the kernel counts them."""
    return len(os.listdir(f"/proc/{pid}/task"))


def shared_memory_names() -> set[str]:
    """Names in /dev/shm: POSIX semaphores and shared memory on this machine."""
    try:
        return set(os.listdir("/dev/shm"))
    except OSError:
        return set()


def mapped_shared_memory(pid: int | str = "self") -> list[str]:
    """Paths in /dev/shm that a process has mapped, also those already unlinked."""
    try:
        with open(f"/proc/{pid}/maps") as maps:
            return [line.split(None, 5)[5].strip() for line in maps if " /dev/shm/" in line]
    except OSError:
        return []
