"""Starts tasks as children of the host: ``fork`` and ``spawn``.

A launcher starts one task at a time and hands out a :class:`RunningTask`, which can be waited for like a
file.
"""

from __future__ import annotations

import abc
import os
import pickle
import signal
from multiprocessing.connection import Connection

from executor_reference.commands import Call, Command
from executor_reference.task import become_task


class RunningTask(abc.ABC):
    """A task that has a slot."""

    @abc.abstractmethod
    def fileno(self) -> int:
        """A descriptor that becomes readable when there is something to collect."""

    @abc.abstractmethod
    def ending(self) -> Ending | None:
        """How it ended, or ``None``; never waits."""

    @abc.abstractmethod
    def kill(self) -> None:
        """Stop it at once, with the children that it started; :meth:`ending` will tell."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release the descriptors."""


class Ending:
    """How a task ended.

    :param reason: ``None`` for success, else why it failed.
    """

    def __init__(self, reason: str | None) -> None:
        self.reason = reason

    @classmethod
    def of_status(cls, status: int, reason: str | None) -> Ending:
        """From a wait status and what the task itself said."""
        if os.WIFSIGNALED(status):
            return cls(f"killed by {_signal_name(os.WTERMSIG(status))}")
        code = os.WEXITSTATUS(status)
        if code == 0:
            return cls(None)
        return cls(reason if reason else f"exit status {code}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Launcher(abc.ABC):
    """One way to start tasks."""

    def start(self) -> None:
        """Make what is needed before the first task."""
        return

    def check(self, command: Command) -> None:
        """Refuse what this way of starting cannot run.

        :raises Exception: with the reason.
        """
        return

    @abc.abstractmethod
    def launch(self, command: Command) -> RunningTask:
        """Start a task; it runs when this returns."""

    def stop(self) -> None:
        """Hand the poison pill to whatever :meth:`start` made, and reap it."""
        return


class DirectLauncher(Launcher):
    """Forks each task from the host itself.

    :param fresh: run Python code in a new interpreter (``spawn``) instead of in the forked child.
    """

    def __init__(self, fresh: bool) -> None:
        self._fresh = fresh

    def check(self, command: Command) -> None:
        if self._fresh and isinstance(command, Call):
            pickle.dumps(command.function)

    def launch(self, command: Command) -> RunningTask:
        reader, writer = message_pipe()
        host = os.getpid()
        with writer:
            try:
                pid = os.fork()
                if pid == 0:
                    become_task(command, fresh=self._fresh, reasons=writer, parent=host)
                return _Child(pid, reader)
            except BaseException:
                reader.close()
                raise


class _Child(RunningTask):
    """A task that is a child of this process."""

    def __init__(self, pid: int, reasons: Connection) -> None:
        self._pid = pid
        self._reasons = reasons
        try:
            self._descriptor = os.pidfd_open(pid)
        except OSError:  # no descriptor left: a task that cannot be watched must not run
            kill_session(pid)
            os.waitpid(pid, 0)
            raise

    def fileno(self) -> int:
        return self._descriptor

    def ending(self) -> Ending | None:
        status = reap(self._pid)
        return None if status is None else Ending.of_status(status, next_message(self._reasons))

    def kill(self) -> None:
        kill_session(self._pid)

    def close(self) -> None:
        self._reasons.close()
        os.close(self._descriptor)


def reap(pid: int) -> int | None:
    """The wait status of a task, or ``None`` while it runs.

    One that was killed takes along what it had started; one that ended by itself may leave a daemon.
    """
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is None:
        return None
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


def message_pipe() -> tuple[Connection, Connection]:
    """A pipe that carries whole messages: its reading and its writing end."""
    read, write = os.pipe()
    return Connection(read, writable=False), Connection(write, readable=False)


def next_message(pipe: Connection) -> str | None:
    """A message that is already there, or ``None``."""
    try:
        return str(pipe.recv()) if pipe.poll(0) else None
    except EOFError:
        return None
