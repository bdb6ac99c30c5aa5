"""Starting tasks, and learning how they ended; and the plainest way to do it: fork the host.

A launcher is handed one task at a time and gives each a number.  How it ended is asked of the launcher, for
all its tasks at once, so that there is one thing to wait for however many tasks run.
"""

from __future__ import annotations

import abc
import mmap
import os
import select
import signal
from typing import Any

from executor_reference.commands import Command
from executor_reference.task import become_task

#: The number of a task, and why it failed; ``None`` for success.
Ended = tuple[int, str | None]


class Launcher(abc.ABC):
    """One way to start tasks."""

    def start(self) -> None:
        """Make what is needed before the first task."""
        return

    def prepare(self, command: Command) -> Any:
        """What :meth:`launch` takes to run this command.

        :raises Exception: this way of starting cannot run it; tells why.
        """
        return command

    @abc.abstractmethod
    def launch(self, prepared: Any) -> int:
        """Start a task, which runs when this returns; its number, unique among those that run.

        :raises OSError: the machine is out of processes, memory or descriptors.
        """

    @abc.abstractmethod
    def ended(self, wait: bool) -> list[Ended]:
        """The tasks that have ended since the last call; with ``wait``, not before something has happened."""

    @abc.abstractmethod
    def kill(self, number: int) -> None:
        """Stop a task at once, with the children that it started; :meth:`ended` will tell."""

    def stop(self) -> None:
        """Hand the poison pill to whatever :meth:`start` made, and reap it; no task runs any more."""
        return


class ForkLauncher(Launcher):
    """Forks each task from the host itself, when it is due: it sees the host as it is at that moment."""

    def __init__(self) -> None:
        self._tasks: dict[int, tuple[int, Note]] = {}  # pidfd -> pid, and what the task may say
        self._poll = select.poll()

    def launch(self, prepared: Command) -> int:
        note = Note()
        host = os.getpid()
        pid = os.fork()
        if pid == 0:
            become_task(lambda: prepared, parent=host, fail=note.write)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:  # no descriptor left: a task that cannot be watched must not run
            kill_session(pid)
            os.waitpid(pid, 0)
            raise
        self._tasks[pidfd] = (pid, note)
        self._poll.register(pidfd, select.POLLIN)
        return pidfd

    def ended(self, wait: bool) -> list[Ended]:
        return [self._take(pidfd) for pidfd, _ in self._poll.poll(None if wait else 0)]

    def _take(self, pidfd: int) -> Ended:
        pid, note = self._tasks.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        return pidfd, why_it_failed(reap(pid), note)

    def kill(self, number: int) -> None:
        kill_session(self._tasks[number][0])


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

    def read(self) -> str:
        """Empty if nothing was written."""
        length = int.from_bytes(self._page[: self._LENGTH], "little")
        return self._page[self._LENGTH : self._LENGTH + length].decode(errors="ignore")


def why_it_failed(status: int, note: Note) -> str | None:
    """The reason in a wait status and in what the task itself has said; ``None`` for success."""
    if os.WIFSIGNALED(status):
        return f"killed by {_signal_name(os.WTERMSIG(status))}"
    code = os.WEXITSTATUS(status)
    if code == 0:
        return None
    return note.read() or f"exit status {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def reap(pid: int) -> int:
    """The wait status of a task that has ended.

    One that was killed takes along what it had started; one that ended by itself may leave a daemon.
    """
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    if ended.si_code != os.CLD_EXITED:  # not reaped yet, so its number is still its own
        kill_session(pid)
    return os.waitpid(pid, 0)[1]


def kill_session(pid: int) -> None:
    """Kill a task and its children: the task leads a process group from its first moments on."""
    for kill in (os.killpg, os.kill):  # in its very first moments it may not lead one yet
        try:
            kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
