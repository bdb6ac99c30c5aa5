"""How a task ended, and how to kill one: wait statuses, failure notes, process groups."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import mmap
import os


class Note:
    """One page of memory, shared with a task, in which the task can write why it fails."""

    _LENGTH = 2

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def write(self, reason: str) -> None:
        """Write the reason, truncated to the page."""
        text = reason.encode(errors="replace")[: mmap.PAGESIZE - self._LENGTH]
        self._page[: self._LENGTH] = len(text).to_bytes(self._LENGTH, "little")
        self._page[self._LENGTH : self._LENGTH + len(text)] = text

    def clear(self) -> None:
        """Make the note empty again."""
        self._page[: self._LENGTH] = bytes(self._LENGTH)

    def read(self) -> str:
        """Return the reason, or an empty string if none was written."""
        length = int.from_bytes(self._page[: self._LENGTH], "little")
        return self._page[self._LENGTH : self._LENGTH + length].decode(errors="ignore")


def failure_reason(status: int, note: Note | None = None) -> str | None:
    """Return why a task failed, or ``None`` for success.

    :param status: its wait status, as ``os.waitpid`` returns it.
    :param note: what the task itself wrote about its failure.
    """
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


def reap(ended: os.waitid_result) -> int:
    """Reap a task that has ended and return its wait status.

    If the task was killed, the processes that it started are killed too.  If it exited by itself, they are
    left alone: a task may start a daemon.

    :param ended: the result of ``os.waitid`` with ``WNOWAIT``, so the task is not reaped yet.
    """
    if ended.si_code != os.CLD_EXITED:  # it is still a zombie, so its pid cannot have been reused
        kill_session(ended.si_pid)
    return os.waitpid(ended.si_pid, 0)[1]


def kill_session(pid: int) -> None:
    """Kill a task and its children.  A task calls ``setsid()`` first, so it leads their process group."""
    for kill in (os.killpg, os.kill):  # killpg fails if the task has not called setsid() yet
        try:
            kill(pid, _signal.SIGKILL)
        except ProcessLookupError:
            pass
