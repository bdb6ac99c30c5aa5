"""How a task ended, and how to kill one: wait statuses, failure notes, process groups."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import mmap
import os

#: The reason of a failure if the exit status is unknown.
STATUS_LOST = (
    "its exit status was lost: this process ignores SIGCHLD, or other code in it waits for any child"
)


class Note:
    """One page of memory, shared with a task, in which the task can write how it ends and why it fails."""

    _STATUS = slice(0, 4)
    _LENGTH = slice(4, 6)
    _TEXT = 6

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def write(self, reason: str) -> None:
        """Write the reason, truncated to the page."""
        text = reason.encode(errors="replace")[: mmap.PAGESIZE - self._TEXT]
        self._page[self._LENGTH] = len(text).to_bytes(2, "little")
        self._page[self._TEXT : self._TEXT + len(text)] = text

    def write_status(self, status: int) -> None:
        """Write the wait status, for a parent that cannot wait."""
        self._page[self._STATUS] = (status + 1).to_bytes(4, "little")  # 0: nothing was written

    def clear(self) -> None:
        """Make the note empty again."""
        self._page[: self._TEXT] = bytes(self._TEXT)

    def read(self) -> str:
        """Return the reason, or an empty string if none was written."""
        length = int.from_bytes(self._page[self._LENGTH], "little")
        return self._page[self._TEXT : self._TEXT + length].decode(errors="ignore")

    def read_status(self) -> int | None:
        """Return the wait status, or ``None`` if none was written."""
        status = int.from_bytes(self._page[self._STATUS], "little") - 1
        return None if status < 0 else status


def failure_reason(status: int | None, note: Note | None = None) -> str | None:
    """Return why a task failed, or ``None`` for success.

    :param status: its wait status, as ``os.waitpid`` returns it; ``None``: it was lost.
    :param note: what the task itself wrote about its failure.
    """
    if status is None:
        return (note.read() if note else "") or STATUS_LOST
    if os.WIFSIGNALED(status):
        return f"killed by {_signal_name(os.WTERMSIG(status))}"
    code = os.WEXITSTATUS(status)
    if code == 0:
        return None
    return (note.read() if note else "") or f"exit status {code}"


def safe_str(error: BaseException) -> str:
    """Return ``str(error)``, or a placeholder if ``__str__`` itself raises."""
    try:
        return str(error)
    except BaseException:
        return "its __str__() raised an exception"


def _signal_name(number: int) -> str:
    # Not signal.Signals: it imports enum, and every page of enum would be copied by each fork.
    for name in sorted(dir(_signal)):
        if name.startswith("SIG") and "_" not in name and getattr(_signal, name) == number:
            return name
    return f"signal {number}"


def statuses_are_discarded() -> bool:
    """Return whether this process ignores ``SIGCHLD``, so the kernel discards the status of each child."""
    return bool(_signal.getsignal(_signal.SIGCHLD) == _signal.SIG_IGN)


def wait_status(ended: os.waitid_result) -> int:
    """Return the wait status of a child that ``os.waitid`` has found."""
    if ended.si_code == os.CLD_EXITED:
        return ended.si_status << 8
    return ended.si_status | (0x80 if ended.si_code == os.CLD_DUMPED else 0)


def reap(ended: os.waitid_result) -> int:
    """Reap a task that has ended and return its wait status.

    If the task was killed, the processes that it started are killed too.  If it exited by itself, they are
    left alone: a task may start a daemon.

    :param ended: the result of ``os.waitid`` with ``WNOWAIT``, so the task is not reaped yet.
    """
    if ended.si_code != os.CLD_EXITED:  # it is still a zombie, so its pid cannot have been reused
        kill_session(ended.si_pid)
    reap_if_ours(ended.si_pid)
    return wait_status(ended)


def reap_if_ours(pid: int) -> None:
    """Wait for a child and reap it, unless the kernel or other code does that."""
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass


def kill_session(pid: int) -> None:
    """Kill a task and its children.  A task calls ``setsid()`` first, so it leads their process group."""
    for kill in (os.killpg, os.kill):  # killpg fails if the task has not called setsid() yet
        try:
            kill(pid, _signal.SIGKILL)
        except ProcessLookupError:
            pass
