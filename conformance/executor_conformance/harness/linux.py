"""The few Linux calls that the standard library does not offer, and the clock that nobody can replace."""

from __future__ import annotations

import ctypes
import os
import time

# Taken before the executor under test is imported: one that replaces ``time.monotonic`` or ``time.sleep``
# must not stop the suite's own clocks.
monotonic = time.monotonic
monotonic_ns = time.monotonic_ns
sleep = time.sleep

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def die_with_parent(signal_number: int, parent: int) -> None:
    """Have the kernel send ``signal_number`` to this process when the thread that forked it ends.

    :param parent: the pid of the parent as it was before the fork: if it is gone already, this process
        leaves at once (the signal would never come).
    """
    _prctl(_PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans(yes: bool = True) -> None:
    """Become (or stop being) the parent of descendants whose own parents die."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(yes))
