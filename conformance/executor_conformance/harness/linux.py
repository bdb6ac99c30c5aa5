"""Linux calls that the standard library does not offer, and clocks that the executor cannot replace."""

from __future__ import annotations

import contextlib
import ctypes
import getpass
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator

# Taken before the executor under test is imported: one that replaces ``time.monotonic`` or ``time.sleep``
# must not stop the suite's own clocks.
monotonic = time.monotonic
monotonic_ns = time.monotonic_ns
sleep = time.sleep
thread_time = time.thread_time
process_time = time.process_time


def duration_s(call: Callable[[], object]) -> float:
    """How long a call takes, in seconds."""
    began = monotonic()
    call()
    return monotonic() - began


SignalMask = set[int | signal.Signals]
#: Signals whose handlers may raise, such as those of Ctrl-C and pytest-timeout.
_MAY_RAISE = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)


@contextlib.contextmanager
def signals_blocked() -> Iterator[SignalMask]:
    """Block signals whose handlers may raise until a fork is over and its pid is known.

    Around a fork, Python calls what was passed to ``os.register_at_fork``, such as a function of ``logging``,
    and swallows what a signal handler raises in it: Ctrl-C would be lost.

    :yields: the signal mask as it was, for :func:`set_signal_mask`.  The child calls that once it has set
        its own handlers: what was sent to its process group must not raise in it before.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, _MAY_RAISE)  # a handler may raise here, too
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def set_signal_mask(mask: SignalMask) -> None:
    """Set the signal mask that :func:`signals_blocked` yielded."""
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def fork() -> int:
    """``os.fork`` without the warning of Python 3.12 about threads: under pytest-xdist there is one, and
    the child uses nothing that it could have locked.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return os.fork()


_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def die_with_parent(signal_number: int, parent: int) -> None:
    """Have the kernel send ``signal_number`` to this process when the thread that forked it ends.

    :param parent: the pid of the parent as it was before the fork: if it is gone already, this process
        exits at once, because the signal would never come.
    """
    _prctl(_PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans(yes: bool = True) -> None:
    """Become (or stop being) a subreaper: the new parent of descendants whose own parents die."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(yes))


def adopts_orphans() -> bool:
    """Whether this process is a subreaper."""
    answer = ctypes.c_int()
    _libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0)
    return bool(answer.value)


_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID = 0x20000, 0x10000000, 0x20000000
_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18


def private_disk(directory: str, size: int) -> bool:
    """Mount a file system of ``size`` bytes at ``directory``, seen by this process and its children only.

    A user other than root does so in a new user namespace, where the system allows it, with the same user and
    group ids.

    :returns: whether it could be mounted.
    """
    attempt = os.fork()  # a failure half-way must not leave this process in a namespace without a user
    if attempt == 0:
        os._exit(0 if _mount_privately(directory, size) else 1)
    return os.waitpid(attempt, 0)[1] == 0 and _mount_privately(directory, size)


def _mount_privately(directory: str, size: int) -> bool:
    return _unshare(_CLONE_NEWNS, directory) and _mount(directory, b"tmpfs", b"size=%d,mode=1777" % size)


def _unshare(what: int, directory: str) -> bool:
    """Enter new namespaces of these kinds, a mount namespace among them; whether that was possible.

    :param directory: what is mounted there from now on is seen in the new namespace only.
    """
    user, group = os.geteuid(), os.getegid()
    if _libc.unshare(what | (_CLONE_NEWUSER if user else 0)) != 0:
        return False
    if user:
        try:
            for name, text in (
                ("setgroups", "deny"),
                ("uid_map", f"{user} {user} 1"),
                ("gid_map", f"{group} {group} 1"),
            ):
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
        except OSError:
            return False
    # In a chroot, "/" need not be a mount.
    return any(
        _libc.mount(b"none", os.fsencode(mount), None, _MS_REC | _MS_PRIVATE, None) == 0
        for mount in ("/", directory)
    )


def _mount(directory: str, kind: bytes, options: bytes = b"") -> bool:
    return bool(_libc.mount(b"none", os.fsencode(directory), kind, 0, options) == 0)


def become_first_process() -> bool:
    """Go on in a child that is the first process of a new pid namespace, with its own ``/proc``.

    The parent waits for that child, and ends as it does.

    :returns: whether that was possible.  If not, do no more than report that: this may be a child, or a
        process in new namespaces.
    """
    if not _unshare(_CLONE_NEWNS | _CLONE_NEWPID, "/proc"):
        return False
    child = os.fork()
    if child:
        os._exit(1 if os.waitpid(child, 0)[1] else 0)
    return _mount("/proc", b"proc")


_CAPABILITY_VERSION_3 = 0x20080522
_CAP_SYS_ADMIN, _CAP_SYS_RESOURCE = 21, 24
#: The first of a range of unused user ids, so that no other process counts towards the limit.
_OWN_USER = 1_500_000_000


def obey_process_limits() -> bool:
    """Give up root's right to exceed ``RLIMIT_NPROC``, for this process and those that it forks.

    The kernel exempts the real user root, and any process with one of two capabilities.  Other rights of
    root, such as opening files, follow from the effective user and stay.

    :returns: whether the limit holds from now on.
    """
    if os.getuid() != 0:
        return True
    # The new user has no entry in the password database.
    with contextlib.suppress(KeyError, OSError):  # nor has the old one; OSError since Python 3.13
        os.environ.setdefault("LOGNAME", getpass.getuser())
    try:
        os.setresuid(_OWN_USER + os.getpid(), -1, -1)
    except OSError:
        return False
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # twice (effective, permitted, inheritable): the low and the high 32 bits
    if _libc.capget(header, sets) != 0:
        return False
    for place in (0, 1):
        sets[place] &= ~(1 << _CAP_SYS_ADMIN | 1 << _CAP_SYS_RESOURCE) & 0xFFFFFFFF
    return bool(_libc.capset(header, sets) == 0)
