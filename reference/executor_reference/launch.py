"""The interface for starting tasks and learning how they ended, and its simplest form: fork the host.

One call collects the ends of all tasks of a launcher, so there is a single thing to wait for, however many
tasks run.

Any call may be interrupted: a signal handler of the host can raise between two of its lines.  What a call
does is therefore recorded in the job, in steps that a second call can repeat or skip.
"""

from __future__ import annotations

import abc
import os
import select
from io import FileIO
from typing import Any

from executor_reference import atomic
from executor_reference.commands import Command
from executor_reference.endings import (
    Note,
    failure_reason,
    kill_session,
    reap,
    reap_if_ours,
    statuses_are_discarded,
    wait_status,
)
from executor_reference.keeper import fork_under_keeper
from executor_reference.linux import status_of_reaped
from executor_reference.task import Instruction, become_task, drop_host_state


def milliseconds(timeout_s: float | None) -> float | None:
    """Convert a timeout from seconds to the milliseconds that ``poll()`` takes."""
    return None if timeout_s is None else timeout_s * 1e3


def is_of_the_system(error: OSError) -> bool:
    """Return whether a system call has failed.

    A signal handler of the host may raise ``TimeoutError`` and the like, which have no error number.
    """
    return error.errno is not None


class Job:
    """One task, as its launcher sees it.

    :param prepared: what :meth:`Launcher.prepare` has returned.
    """

    __slots__ = ("end", "prepared", "process")

    def __init__(self, prepared: Any) -> None:
        self.prepared = prepared
        #: Belongs to the launcher.
        self.process: Any = None
        #: Once the task has ended, a tuple with why it failed, or with ``None`` for success.
        self.end: tuple[str | None] | None = None


class Launcher(abc.ABC):
    """One way to start tasks."""

    def __init__(self) -> None:
        #: The jobs that have ended, in this order.  The owner deletes each one that it has reported.
        self.ended: dict[Job, None] = {}

    def start(self) -> None:
        """Create what is needed before the first task."""
        return

    def prepare(self, command: Command) -> Any:
        """Return what :class:`Job` needs to run this command.

        :raises Exception: this launcher cannot run the command; the message says why.
        """
        return command

    @abc.abstractmethod
    def launch(self, job: Job) -> None:
        """Start a task.  After an exception that is no ``OSError``, call it again to complete the start.

        :raises OSError: the system is out of processes, memory or descriptors; the task was not started.
        """

    @abc.abstractmethod
    def collect(self, timeout_s: float | None) -> None:
        """Add the jobs that have ended since the last call to ``ended``.

        :param timeout_s: how long to wait for something to happen, in seconds; ``None``: no limit.
        """

    @abc.abstractmethod
    def kill(self, job: Job) -> None:
        """Kill a task with the children that it started.  It ends up in ``ended`` like any other."""

    def stop(self) -> None:
        """Stop and reap whatever :meth:`start` created.  No task may be running."""
        return


class _Forked:
    """The process of a job."""

    def __init__(self) -> None:
        self.note = Note()
        self.pids: list[int] = []  # one, as soon as it has been forked
        self.pidfd: FileIO | None = None  # FileIO: closing it twice does no harm

    @property
    def pid(self) -> int:
        return self.pids[0]


class ForkLauncher(Launcher):
    """Forks each task from the host at its start, so the task sees the host's state at that moment."""

    def __init__(self) -> None:
        super().__init__()
        self._watched: dict[int, Job] = {}  # pidfd -> job
        self._gone: dict[Job, None] = {}  # ended and were reaped by others before they had a pidfd
        self._poll = select.poll()

    def launch(self, job: Job) -> None:
        if job.process is None:
            job.process = _Forked()
        process: _Forked = job.process
        if not process.pids:
            _fork(process, job.prepared)
        if process.pidfd is None:
            try:
                process.pidfd = atomic.open_pidfd(process.pid)
            except ProcessLookupError:
                self._gone[job] = None
                return
            except OSError as error:  # no descriptor is left, so the end of the task could not be noticed
                if is_of_the_system(error):
                    kill_session(process.pid)
                    reap_if_ours(process.pid)
                raise
        self._watched[process.pidfd.fileno()] = job
        self._poll.register(process.pidfd, select.POLLIN)

    def collect(self, timeout_s: float | None) -> None:
        if self._gone or self.ended:  # something has happened already
            timeout_s = 0
        for pidfd, _ in self._poll.poll(milliseconds(timeout_s)):
            self._collect(pidfd)
        for job in list(self._gone):
            job.end = job.end or (failure_reason(job.process.note.read_status(), job.process.note),)
            self.ended[job] = None
            del self._gone[job]

    def _collect(self, pidfd: int) -> None:
        job = self._watched[pidfd]
        job.end = job.end or (failure_reason(_status(job.process), job.process.note),)
        self.ended[job] = None
        if not job.process.pidfd.closed:
            _reap(job.process.pidfd)
            job.process.pidfd.close()
        self._poll.unregister(pidfd)
        del self._watched[pidfd]

    def kill(self, job: Job) -> None:
        if job.process.pidfd is None:
            return
        try:
            os.waitid(os.P_PIDFD, job.process.pidfd.fileno(), os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return  # other code has reaped it, so another process may have its pid by now
        kill_session(job.process.pid)


def _fork(process: _Forked, command: Command) -> None:
    host = os.getpid()
    needs_keeper = statuses_are_discarded()

    def instruction() -> Instruction:
        drop_host_state()
        if needs_keeper:
            fork_under_keeper(process.note)
        return command.instruction

    atomic.fork(process.pids, lambda: become_task(instruction, host, process.note))


def _status(process: _Forked) -> int | None:
    """Return the wait status of a process that has ended, or ``None`` if it was lost."""
    assert process.pidfd is not None
    noted = process.note.read_status()
    if noted is not None:
        return noted
    try:
        # Only look: if an exception interrupts this call, the next one has to find it again.
        ended = os.waitid(os.P_PIDFD, process.pidfd.fileno(), os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        return status_of_reaped(process.pidfd.fileno())
    assert ended is not None
    return wait_status(ended)


def _reap(pidfd: FileIO) -> None:
    try:
        ended = os.waitid(os.P_PIDFD, pidfd.fileno(), os.WEXITED | os.WNOWAIT)
        if ended is not None:
            reap(ended)
    except ChildProcessError:
        pass  # the kernel, other code, or an interrupted call has reaped it
