"""How a task ended, and how one is made to end: wait statuses, notes of reasons, sessions to kill."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import mmap
import os


class Note:
    """One page of memory, shared with a task, on which it can say why it fails."""

    _LENGTH = 2

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def write(self, reason: str) -> None:
        """What does not fit is cut off."""
        text = reason.encode(errors="replace")[: mmap.PAGESIZE - self._LENGTH]
        self._page[: self._LENGTH] = len(text).to_bytes(self._LENGTH, "little")
        self._page[self._LENGTH : self._LENGTH + len(text)] = text

    def clear(self) -> None:
        """Make it as new."""
        self._page[: self._LENGTH] = bytes(self._LENGTH)

    def read(self) -> str:
        """Empty if nothing was written."""
        length = int.from_bytes(self._page[: self._LENGTH], "little")
        return self._page[self._LENGTH : self._LENGTH + length].decode(errors="ignore")


def why_it_failed(status: int, note: Note | None = None) -> str | None:
    """The reason in a wait status and in what the task itself has said; ``None`` for success."""
    if os.WIFSIGNALED(status):
        return f"killed by {_signal_name(os.WTERMSIG(status))}"
    code = os.WEXITSTATUS(status)
    if code == 0:
        return None
    return (note.read() if note else "") or f"exit status {code}"


def text_of(error: BaseException) -> str:
    """What an exception says, whatever its ``__str__`` does."""
    try:
        return str(error)
    except BaseException:
        return "its text cannot be had"


def _signal_name(number: int) -> str:
    # Not signal.Signals, which brings along enum, and with that many pages for each fork to copy.
    for name in sorted(dir(_signal)):
        if name.startswith("SIG") and "_" not in name and getattr(_signal, name) == number:
            return name
    return f"signal {number}"


def reap(ended: os.waitid_result) -> int:
    """The wait status of a task that has ended.

    One that was killed takes along what it had started; one that ended by itself may leave a daemon.

    :param ended: what ``waitid`` tells of it, with ``WNOWAIT``.
    """
    if ended.si_code != os.CLD_EXITED:  # not reaped yet, so its number is still its own
        kill_session(ended.si_pid)
    return os.waitpid(ended.si_pid, 0)[1]


def kill_session(pid: int) -> None:
    """Kill a task and its children: the task leads a process group from its first moments on."""
    for kill in (os.killpg, os.kill):  # in its very first moments it may not lead one yet
        try:
            kill(pid, _signal.SIGKILL)
        except ProcessLookupError:
            pass
