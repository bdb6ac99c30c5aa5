"""Two Linux facilities that the standard library does not offer."""

from __future__ import annotations

import ctypes
import os
import signal

TYPE_CHECKING = False  # typing's own would import typing
if TYPE_CHECKING:
    from collections.abc import Collection

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that forked it ends; it survives ``exec``.

    :param parent: the parent's pid before the fork: had it died since, the signal would never come.
    """
    if _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if os.getppid() != parent:
        os._exit(1)


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
