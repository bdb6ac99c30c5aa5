"""Calls whose result cannot be lost.

A signal handler runs between two bytecodes, and may raise: also after ``os.fork()`` has returned and before
its result is stored.  The caller could then not know that there is a new process.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
from io import FileIO
from itertools import starmap

TYPE_CHECKING = False  # importing it from typing would import typing
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def append_result(results: list[Any], function: Callable[..., Any], *arguments: object) -> None:
    """Call a function that is implemented in C, and append its result to a list.

    No bytecode runs between the call and the append, so no signal handler does.
    """
    results.extend(starmap(function, (arguments,)))


def fork(pids: list[int], child: Callable[[], object]) -> None:
    """Fork, append the pid of the child to a list, and run ``child``, which never returns, in the child.

    Signals wait until the fork is over.  Around a fork, Python calls the functions that were registered with
    ``os.register_at_fork``, and swallows what a signal handler raises in one of them: the interrupt would be
    lost, and the lock of :mod:`logging` would stay locked.

    :param child: it resets the signal handlers, which are the host's, and then unblocks all signals.
    """
    host = os.getpid()
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
    try:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        append_result(pids, os.fork)
        if pids[0] == 0:
            child()
    finally:
        if os.getpid() != host:
            os._exit(1)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)


def open_pidfd(pid: int) -> FileIO:
    """Return a pidfd that can be closed twice.

    :raises OSError: there is no such process, or no descriptor is left.
    """
    return next(map(FileIO, map(os.pidfd_open, (pid,))))
