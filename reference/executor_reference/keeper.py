"""The keeper: a process between the host and a task, for a host that cannot learn an exit status.

If a process ignores ``SIGCHLD``, the kernel discards the exit statuses of its children.  That setting is the
host's and stays as it is.  So the host forks a keeper, which has default signals: it forks the task, waits
for it, and writes the status to the task's note.  This costs a second fork, but only in such a host.

Other code in the host may also take a status, by waiting for any child.  Nobody can know that in advance, so
there is no keeper then.  The status is what the task itself has written to its note before its exit, or else
what the kernel still knows (``linux.status_of_reaped``).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os

from executor_reference.linux import die_with_parent

TYPE_CHECKING = False  # importing it from typing would import typing
if TYPE_CHECKING:
    from executor_reference.endings import Note


def fork_under_keeper(note: Note) -> None:
    """Fork.  Return in the child, and become the keeper in the parent.

    This process must have default signals and be a session leader: killing its session then kills both
    processes.
    """
    keeper = os.getpid()
    pid = os.fork()
    if pid == 0:
        die_with_parent(keeper)
        return
    try:
        # Only a signal that is sent to both, or to the keeper, could end the keeper before the task.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        os.closerange(0, os.sysconf("SC_OPEN_MAX"))  # the keeper must not hold the task's pipes open
        status = os.waitpid(pid, 0)[1]
        note.write_status(status)
        if os.WIFSIGNALED(status):
            os.killpg(0, _signal.SIGKILL)  # the children of a killed task; also the keeper itself
    finally:
        os._exit(0)
