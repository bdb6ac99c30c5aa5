"""Linux system calls that the standard library does not wrap."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import ctypes
import os
from os import getppid

TYPE_CHECKING = False  # importing it from typing would import typing
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_SIGKILL = int(_signal.SIGKILL)
_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_sigset_t = ctypes.c_ulong * (1024 // 8 // ctypes.sizeof(ctypes.c_ulong))
_NO_SIGNALS = _sigset_t()
_SIG_SETMASK = int(_signal.SIG_SETMASK)
_sigprocmask = _libc.sigprocmask


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that forked it ends.  ``exec`` keeps the setting.

    :param parent: the pid of the parent, taken before the fork.  If the parent has died since then, the
        kernel would never send the signal, so this process exits at once.
    """
    if _prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0) != 0:
        _raise_errno()
    if getppid() != parent:
        os._exit(1)


def watch_children() -> int:
    """Return a signalfd that becomes readable when a child ends.  Blocks ``SIGCHLD`` in this thread.

    A signal handler would run Python code for each child, and each child would have to remove the handler.

    :raises OSError: no descriptor is left.
    """
    _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGCHLD])
    children = _sigset_t(1 << (_signal.SIGCHLD - 1))
    descriptor: int = _libc.signalfd(-1, children, os.O_CLOEXEC | os.O_NONBLOCK)
    if descriptor < 0:
        _raise_errno()
    return descriptor


def unblock_signals() -> None:
    """Unblock all signals of a single-threaded process.  Cheaper than ``signal.pthread_sigmask``."""
    if _sigprocmask(_SIG_SETMASK, _NO_SIGNALS, None) != 0:
        _raise_errno()


def _raise_errno() -> NoReturn:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def close_private_descriptors(keep: Collection[int]) -> None:
    """Close the descriptors that ``exec`` would close.

    A task that runs in the forked child then has the same descriptors as one that was executed.

    :param keep: descriptors to leave open.
    """
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor in keep:
            continue
        try:
            if not os.get_inheritable(descriptor):
                os.close(descriptor)
        except OSError:
            pass  # the descriptor that listdir() used
