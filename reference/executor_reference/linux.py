"""Linux facilities that the standard library does not offer."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import ctypes
import os
from os import getppid

TYPE_CHECKING = False  # typing's own would import typing
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_SIGKILL = int(_signal.SIGKILL)
_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_set_of_signals = ctypes.c_ulong * (1024 // 8 // ctypes.sizeof(ctypes.c_ulong))
_NO_SIGNALS = _set_of_signals()
_SIG_SETMASK = int(_signal.SIG_SETMASK)
_sigprocmask = _libc.sigprocmask


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that forked it ends; it survives ``exec``.

    :param parent: the parent's pid before the fork: had it died since, the signal would never come.
    """
    if _prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0) != 0:
        _raise_error()
    if getppid() != parent:
        os._exit(1)


def watch_children() -> int:
    """A descriptor that becomes readable when a child ends; from now on ``SIGCHLD`` is blocked.

    A handler would run Python code for each child, and each child would have to be rid of it.

    :raises OSError: there is no descriptor left.
    """
    _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGCHLD])
    children = _set_of_signals(1 << (_signal.SIGCHLD - 1))
    descriptor: int = _libc.signalfd(-1, children, os.O_CLOEXEC | os.O_NONBLOCK)
    if descriptor < 0:
        _raise_error()
    return descriptor


def unblock_signals() -> None:
    """Have no signal blocked: for a process with one thread what ``signal.pthread_sigmask`` does, in less."""
    if _sigprocmask(_SIG_SETMASK, _NO_SIGNALS, None) != 0:
        _raise_error()


def _raise_error() -> NoReturn:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def close_private_descriptors(keep: Collection[int]) -> None:
    """Close what an ``exec`` would close: in a forked child this makes both ways of running a task alike."""
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor in keep:
            continue
        try:
            if not os.get_inheritable(descriptor):
                os.close(descriptor)
        except OSError:
            pass  # the descriptor of the listing itself
