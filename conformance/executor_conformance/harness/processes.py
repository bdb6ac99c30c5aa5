"""Processes, threads, descriptors and shared memory, as /proc shows them."""

from __future__ import annotations

import contextlib
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
        """Lasting helpers, which no executor can end: multiprocessing (and loky, in the same way) keeps one
        resource tracker and one fork server for as long as the host lives.  Workers of the fork server
        share its command line but are its children, so only direct children of the host are meant.
        """
        return "resource_tracker import main" in self.command or (
            "multiprocessing.forkserver" in self.command
        )

    def __str__(self) -> str:
        state = f", {self.state}" if self.is_zombie else ""
        return f"{self.pid} (parent {self.parent}{state}): {self.command}"


def descendants(root: int) -> list[Process]:
    """All processes below ``root``, zombies included, parents before children."""
    return [process for process in map(look, descendant_pids(root)) if process is not None]


def descendant_pids(root: int) -> list[int]:
    """The pids of all processes below ``root``, zombies included, parents before children.

    From the kernel's own lists of children, which is cheap on a machine with many processes; a list that
    changes while it is read can miss one, so what must be certain is asked twice or by ``waitpid``.
    """
    found: list[int] = []
    left = [root]
    while left:
        below = children(left.pop(0))
        found += below
        left += below
    return found


def children(pid: int) -> list[int]:
    """The pids of the direct children of a process."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    except OSError:  # the process or the thread has ended, or this kernel has no such file
        try:
            return [child.pid for child in psutil.Process(pid).children()]
        except psutil.NoSuchProcess:
            return []
    return found


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
                command = " ".join(" ".join(process.cmdline()).split())[:200]
            except (psutil.AccessDenied, psutil.ZombieProcess):
                command = ""
            command = command or f"[{process.name()}]"
            return Process(process.pid, process.ppid() or 0, state, command, process.create_time())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def cpu_s(pid: int) -> float:
    """User and system time of a process and of the children that it has waited for, so far, in seconds, to a
    hundredth; 0 for one that is gone.
    """
    try:
        return float(sum(psutil.Process(pid).cpu_times()[:4]))
    except psutil.Error:
        return 0.0


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


def reap(spare: int = 0) -> bool:
    """Collect every child of this process that has ended, except ``spare``; whether there are others left."""
    if spare:
        for pid in children(os.getpid()):
            if pid != spare:
                _collect(pid)
        return True
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return True
        except ChildProcessError:
            return False


def _collect(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass


def sweep(patience_s: float = 10.0) -> list[Process]:
    """Kill everything below this process, which must adopt orphans, and reap it; returns what would not die.

    Stopped first and killed then, so that what forks while it is being killed does not win.
    """
    until = monotonic() + patience_s
    while reap():
        left = descendant_pids(os.getpid())
        if monotonic() > until:
            return descendants(os.getpid())
        kill_all(left)
        sleep(0.002)
    return []


def kill_all(pids: Iterable[int]) -> None:
    """Stop them all, then kill them all."""
    pids = list(pids)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            kill(pid, number)


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


def threads_of_user(uid: int) -> int:
    """All threads of all processes with this real user."""
    count = 0
    for process in psutil.process_iter(["uids", "num_threads"]):
        if process.info["uids"] is not None and process.info["uids"].real == uid:
            count += process.info["num_threads"] or 1
    return count


def shared_memory_names() -> set[str]:
    """Names of this user in /dev/shm: POSIX semaphores and shared memory."""
    names, user = set(), os.geteuid()
    with contextlib.suppress(OSError), os.scandir("/dev/shm") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_uid == user:
                    names.add(entry.name)
    return names


def mapped_shared_memory(pid: int | str = "self") -> list[str]:
    """Paths in /dev/shm that a process has mapped, also those already unlinked."""
    try:
        with open(f"/proc/{pid}/maps") as maps:
            return [line.split(None, 5)[5].strip() for line in maps if " /dev/shm/" in line]
    except OSError:
        return []
