"""Processes, threads, descriptors and shared memory, as /proc shows them."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from executor_conformance.harness.linux import monotonic, sleep


@dataclass(frozen=True)
class Process:
    """One process, as it was when it was looked up."""

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
        """Helpers that no executor can end: multiprocessing (and loky, likewise) keeps one resource tracker
        and one fork server for as long as the host lives.  Workers of the fork server have the same command
        line but are its children, so callers check for direct children of the host.
        """
        return self.is_resource_tracker or "multiprocessing.forkserver" in self.command

    @property
    def is_resource_tracker(self) -> bool:
        return "resource_tracker import main" in self.command

    def __str__(self) -> str:
        state = f", {self.state}" if self.is_zombie else ""
        command = "forked from pytest" if self.command == _own_command() else self.command
        return f"{self.pid} (parent {self.parent}{state}): {command}"


def descendants(root: int) -> list[Process]:
    """All processes below ``root``, zombies included, parents before children."""
    return [process for process in map(look, descendant_pids(root)) if process is not None]


def descendant_pids(root: int) -> list[int]:
    """The pids of all processes below ``root``, zombies included, parents before children.

    From the kernel's lists of children, which is cheap on a machine with many processes.  A list that changes
    while it is read can miss one; where that matters, read it twice or use ``waitpid``.
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


@functools.cache
def _own_command() -> str:
    """The command line of pytest, which every process has that is forked from it."""
    return _command(psutil.Process())


def _command(process: psutil.Process) -> str:
    return " ".join(" ".join(process.cmdline()).split())[:200]


def _look(process: psutil.Process) -> Process | None:
    try:
        with process.oneshot():
            state = process.status()
            try:
                command = _command(process)
            except (psutil.AccessDenied, psutil.ZombieProcess):
                command = ""
            command = command or f"[{process.name()}]"
            return Process(process.pid, process.ppid() or 0, state, command, process.create_time())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def cpu_s(pid: int) -> float:
    """User and system time of a process and of the children it has reaped, in seconds, with a resolution of
    10 ms; 0 for a process that is gone.
    """
    try:
        return float(sum(psutil.Process(pid).cpu_times()[:4]))
    except psutil.Error:
        return 0.0


def waited_for_processors_s(pid: int | str = "self") -> float:
    """How long threads of a process could have run but had no processor, so far: the sum over its threads, in
    seconds.  It is 0 where the kernel does not count.
    """
    waited = 0
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with (
                contextlib.suppress(OSError),  # it has ended
                open(f"/proc/{pid}/task/{thread}/schedstat") as file,
            ):
                waited += int(file.read().split()[1])
    return waited / 1e9


def is_alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    process = look(pid)
    return process is not None and not process.is_zombie


def kill(pid: int, signal_number: int = signal.SIGKILL) -> None:
    """Send a signal to a process that may be gone, or that belongs to another user."""
    try:
        os.kill(pid, signal_number)
    except (ProcessLookupError, PermissionError):
        pass


def reap(spare: int = 0) -> bool:
    """Reap every child of this process that has ended, except ``spare``; whether there are others left."""
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


#: After how many seconds, and how many rounds of killing, a process counts as impossible to kill: on a busy
#: machine the end of a large process, or of hundreds of them, takes long.
_PATIENCE_S, _ROUNDS = 30.0, 500


def sweep() -> list[Process]:
    """Kill and reap everything below this process, a subreaper; returns what could not be killed.

    Processes are stopped first and then killed, so that one that keeps forking cannot outrun the kill.
    """
    until = monotonic() + _PATIENCE_S
    rounds = 0
    while reap():
        left = descendant_pids(os.getpid())
        rounds += 1
        if monotonic() > until and rounds > _ROUNDS:
            return [process for process in descendants(os.getpid()) if not process.is_zombie]
        kill_all(left)
        sleep(0.002)
    return []


def let_trackers_finish(left: Iterable[Process], within_s: float) -> None:
    """Kill everything below this process but the resource trackers of multiprocessing, and wait for these.

    A tracker exits after the last process that uses it, and first removes the leaked semaphores and shared
    memory.  No other process knows all their names.

    :param left: the processes below this one.
    """
    if not any(process.is_resource_tracker for process in left):
        return
    until = monotonic() + within_s
    while True:
        below = [process for process in descendants(os.getpid()) if not process.is_zombie]
        trackers = {process.pid for process in below if process.is_resource_tracker}
        if not trackers or monotonic() > until:
            return
        kill_all(process.pid for process in below if process.pid not in trackers)
        sleep(0.002)


def kill_all(pids: Iterable[int]) -> None:
    """Stop all of them, then kill all of them."""
    pids = list(pids)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            kill(pid, number)


def open_descriptors(pid: int | str = "self") -> dict[int, str]:
    """File descriptor -> what it refers to."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            pass  # the descriptor of the listing itself
    return found


def thread_count(pid: int | str = "self") -> int:
    """Number of threads of a process, as the kernel counts them."""
    return len(os.listdir(f"/proc/{pid}/task"))


def threads_of_user(uid: int) -> int:
    """Number of threads of all processes with this real user id."""
    count = 0
    for process in psutil.process_iter(["uids", "num_threads"]):
        if process.info["uids"] is not None and process.info["uids"].real == uid:
            count += process.info["num_threads"] or 1
    return count


def shared_memory_names() -> set[str]:
    """Names in /dev/shm that belong to this user: POSIX semaphores and shared memory."""
    names, user = set(), os.geteuid()
    with contextlib.suppress(OSError), os.scandir("/dev/shm") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_uid == user:
                    names.add(entry.name)
    return names


def mapped_shared_memory(pid: int | str = "self") -> list[str]:
    """Paths in /dev/shm that a process has mapped, unlinked ones included."""
    try:
        with open(f"/proc/{pid}/maps") as maps:
            return [line.split(None, 5)[5].strip() for line in maps if " /dev/shm/" in line]
    except OSError:
        return []
