"""Linux system calls that the standard library does not wrap.

They are called through ``_ctypes``, because ``ctypes`` imports ``threading`` and more on Python 3.14, and
each child of the zygote would copy their pages.
"""

from __future__ import annotations

import _ctypes
import _signal  # type: ignore[import-not-found]
import os
import struct
from os import getppid

TYPE_CHECKING = False  # importing it from typing would import typing
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any, NoReturn


class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "i"  # a C int


class _Function(_ctypes.CFuncPtr):
    """A function of the C library, which takes ints and bytes and returns an int."""

    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Int


class _Libc:
    _handle = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]


_libc: Any = _Libc
_prctl = _Function(("prctl", _libc))
_signalfd = _Function(("signalfd", _libc))
_sigprocmask = _Function(("sigprocmask", _libc))

_PR_SET_PDEATHSIG = 1
_SIGKILL = int(_signal.SIGKILL)
_SIG_SETMASK = int(_signal.SIG_SETMASK)
_SIGSET_BYTES = 1024 // 8
_NO_SIGNALS = bytes(_SIGSET_BYTES)


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
    # A sigset_t is an array of longs, of which SIGCHLD is in the first.
    children = struct.pack("l", 1 << (_signal.SIGCHLD - 1)).ljust(_SIGSET_BYTES, b"\0")
    descriptor: int = _signalfd(-1, children, os.O_CLOEXEC | os.O_NONBLOCK)
    if descriptor < 0:
        _raise_errno()
    return descriptor


#: An ``ioctl`` of pidfds, the bit that asks for the exit status, and the first 64 bytes of its ``struct
#: pidfd_info``: the bits, other fields, the exit status (include/uapi/linux/pidfd.h).
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 1 << 3
_PIDFD_INFO = struct.Struct("=Q52xi")
#: How long it may take from the moment when a child is no longer there to be reaped until it has been.
_REAPED_WITHIN_MS = 1000


def status_of_reaped(pidfd: int) -> int | None:
    """Return the wait status of a child that other code has reaped, or ``None`` before Linux 6.15."""
    from fcntl import ioctl
    from select import poll

    reaped = poll()
    reaped.register(pidfd, 0)  # for POLLHUP
    try:
        ioctl(pidfd, _PIDFD_GET_INFO, _PIDFD_INFO.pack(0, 0))  # fails before Linux 6.13
        reaped.poll(_REAPED_WITHIN_MS)
        info = ioctl(pidfd, _PIDFD_GET_INFO, _PIDFD_INFO.pack(_PIDFD_INFO_EXIT, 0))
    except OSError:
        return None
    mask, status = _PIDFD_INFO.unpack(info)
    return status if mask & _PIDFD_INFO_EXIT else None


def unblock_signals() -> None:
    """Unblock all signals of a single-threaded process.  Cheaper than ``signal.pthread_sigmask``."""
    if _sigprocmask(_SIG_SETMASK, _NO_SIGNALS, None) != 0:
        _raise_errno()


def _raise_errno() -> NoReturn:
    number = _ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def open_standard_descriptors() -> None:
    """Open an empty standard input, and ``/dev/null`` in place of an output that this process does not have.

    Otherwise the next file that a task opens would become its output.  As for ``exec``, a descriptor that is
    not inheritable is none.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        if number == 0 or not _is_inheritable(number):
            if number == null:
                os.set_inheritable(null, True)
            else:
                os.dup2(null, number)  # the copy is inheritable
    if null > 2:
        os.close(null)


def _is_inheritable(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False


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
