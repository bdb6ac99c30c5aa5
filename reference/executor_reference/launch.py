"""Starting tasks, and learning how they ended; and the plainest way to do it: fork the host.

A launcher is handed one task at a time and gives each a number.  How it ended is asked of the launcher, for
all its tasks at once, so that there is one thing to wait for however many tasks run.
"""

from __future__ import annotations

import abc
import os
import select
from typing import Any

from executor_reference.commands import Command
from executor_reference.endings import Note, kill_session, reap, why_it_failed
from executor_reference.task import Instruction, become_task, shed_the_host

#: The number of a task, and why it failed; ``None`` for success.
Ended = tuple[int, str | None]


def milliseconds(timeout_s: float | None) -> float | None:
    """As ``poll()`` takes it, which waits no shorter than that."""
    return None if timeout_s is None else timeout_s * 1e3


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
    def ended(self, timeout_s: float | None) -> list[Ended]:
        """The tasks that have ended since the last call.

        :param timeout_s: for so long it waits for something to happen; ``None``: as long as it takes.
        """

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

            def instruction() -> Instruction:
                shed_the_host()
                return prepared.instruction

            become_task(instruction, host, note)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:  # no descriptor left: a task that cannot be watched must not run
            kill_session(pid)
            os.waitpid(pid, 0)
            raise
        self._tasks[pidfd] = (pid, note)
        self._poll.register(pidfd, select.POLLIN)
        return pidfd

    def ended(self, timeout_s: float | None) -> list[Ended]:
        return [self._take(pidfd) for pidfd, _ in self._poll.poll(milliseconds(timeout_s))]

    def _take(self, pidfd: int) -> Ended:
        pid, note = self._tasks.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        return pidfd, why_it_failed(reap(ended), note)

    def kill(self, number: int) -> None:
        kill_session(self._tasks[number][0])
