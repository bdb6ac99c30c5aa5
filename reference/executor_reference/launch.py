"""The interface for starting tasks and learning how they ended, and its simplest form: fork the host.

A launcher starts one task at a time and gives each a number.  One call returns the ends of all its tasks, so
there is a single thing to wait for, however many tasks run.
"""

from __future__ import annotations

import abc
import os
import select
from typing import Any

from executor_reference.commands import Command
from executor_reference.endings import Note, failure_reason, kill_session, reap
from executor_reference.task import Instruction, become_task, drop_host_state

#: The number of a task, and why it failed or ``None`` for success.
Ended = tuple[int, str | None]


def milliseconds(timeout_s: float | None) -> float | None:
    """Convert a timeout from seconds to the milliseconds that ``poll()`` takes."""
    return None if timeout_s is None else timeout_s * 1e3


class Launcher(abc.ABC):
    """One way to start tasks."""

    def start(self) -> None:
        """Create what is needed before the first task."""
        return

    def prepare(self, command: Command) -> Any:
        """Return what :meth:`launch` takes to run this command.

        :raises Exception: this launcher cannot run the command; the message says why.
        """
        return command

    @abc.abstractmethod
    def launch(self, prepared: Any) -> int:
        """Start a task.

        :returns: its number, unique among the running tasks.
        :raises OSError: the system is out of processes, memory or descriptors.
        """

    @abc.abstractmethod
    def ended(self, timeout_s: float | None) -> list[Ended]:
        """Return the tasks that have ended since the last call.

        :param timeout_s: how long to wait for something to happen, in seconds; ``None``: no limit.
        """

    @abc.abstractmethod
    def kill(self, number: int) -> None:
        """Kill a task with the children that it started.  :meth:`ended` returns it later, like any other."""

    def stop(self) -> None:
        """Stop and reap whatever :meth:`start` created.  No task may be running."""
        return


class ForkLauncher(Launcher):
    """Forks each task from the host at its start, so the task sees the host's state at that moment."""

    def __init__(self) -> None:
        self._tasks: dict[int, tuple[int, Note]] = {}  # pidfd -> (pid, the task's note)
        self._poll = select.poll()

    def launch(self, prepared: Command) -> int:
        note = Note()
        host = os.getpid()
        pid = os.fork()
        if pid == 0:

            def instruction() -> Instruction:
                drop_host_state()
                return prepared.instruction

            become_task(instruction, host, note)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:  # no descriptor is left, so the end of the task could not be noticed
            kill_session(pid)
            os.waitpid(pid, 0)
            raise
        self._tasks[pidfd] = (pid, note)
        self._poll.register(pidfd, select.POLLIN)
        return pidfd

    def ended(self, timeout_s: float | None) -> list[Ended]:
        return [self._collect(pidfd) for pidfd, _ in self._poll.poll(milliseconds(timeout_s))]

    def _collect(self, pidfd: int) -> Ended:
        pid, note = self._tasks.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        return pidfd, failure_reason(reap(ended), note)

    def kill(self, number: int) -> None:
        kill_session(self._tasks[number][0])
