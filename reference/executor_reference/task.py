"""From a forked child to a running task: the only code that runs between ``fork`` and the task.

A task gets a session of its own (so that it can be stopped with all its children), dies with the process that
forked it, has default signals, an empty standard input, and none of the executor's descriptors.  How it ended
is its exit status; why it failed is one short text.

Every page that a child writes to or a module that it imports is time before its task or between two tasks, so
this module imports little, and a process that forks many can do most of the work once (:func:`shed_the_host`,
:func:`rehearse`).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import atexit
import functools
import gc
import os
import pickle
import runpy
import signal
import sys

from executor_reference.endings import text_of
from executor_reference.linux import close_private_descriptors, die_with_parent

TYPE_CHECKING = False  # typing's own would import typing
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any, NoReturn

#: What is to be done, and with what: these words, this module and its arguments, this callable.
EXECUTE, RUN_MODULE, CALL = range(3)
Instruction = tuple[int, "Any"]

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126


def become_task(
    instruction: Callable[[], Instruction], *, parent: int, fail: Callable[[str], None]
) -> NoReturn:
    """Turn this forked child into a task; does not return.

    :param instruction: says what to run, and may wait for it; called in a session of its own.
    :param parent: pid of the process that forked this one.
    :param fail: takes the reason of a failure that is more than an exit status.
    """
    status = 1
    task = os.getpid()
    try:
        os.setsid()
        die_with_parent(parent)
        status = _carry_out(*instruction(), fail)
    except SystemExit as exit_:
        status = _status_of(exit_)
    except BaseException as error:
        sys.__excepthook__(*sys.exc_info())
        if os.getpid() == task:  # and not what the task has forked
            fail(f"{type(error).__name__}: {text_of(error)}")
    finally:
        _leave(status)


def shed_the_host(keep: Collection[int] = ()) -> None:
    """Drop what a forked child has of its host and a task must not have.

    :param keep: private descriptors that are still needed.
    """
    _reset_signals()
    _open_standard_streams()
    close_private_descriptors(keep)
    atexit._clear()  # what the host does at its exit
    gc.freeze()  # a collection would write to every page that is shared with the host


def rehearse() -> None:
    """Do what a task does before and after its own work, so that children find all of it done once.

    The first call of anything writes to memory (the dynamic linker's tables, the interpreter's caches), which
    each child would else do for itself, to a copy of the page.
    """
    what, with_ = pickle.loads(_REHEARSAL)
    _carry_out(what, with_, print)


def _carry_out(what: int, with_: Any, fail: Callable[[str], None]) -> int:
    if what == CALL:
        with_()
    elif what == RUN_MODULE:
        _run_module(*with_)
    else:
        _execute(with_, fail)
    return 0


def _execute(words: tuple[str, ...], fail: Callable[[str], None]) -> NoReturn:
    try:
        os.execvp(words[0], words)
    except OSError as error:
        fail(f"{type(error).__name__}: {error}")
        os._exit(_NOT_EXECUTABLE if isinstance(error, PermissionError) else _NOT_FOUND)


def _run_module(module: str, *arguments: str) -> None:
    """What ``python -m`` does, in this process."""
    sys.argv = [module, *arguments]
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    sys.modules.pop(module, None)  # else runpy warns that the host has imported it
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _leave(status: int) -> NoReturn:
    """End as an interpreter ends, but run none of the host's code."""
    try:
        if threading := sys.modules.get("threading"):
            threading._shutdown()
        atexit._run_exitfuncs()
        _flush()
    except BaseException:
        status = status or 1
    finally:
        os._exit(status)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


_REHEARSAL = pickle.dumps((CALL, functools.partial(_flush)))


def _status_of(exit_: SystemExit) -> int:
    """The exit status that an interpreter makes of a ``SystemExit``."""
    if exit_.code is None:
        return 0
    if isinstance(exit_.code, int):
        return exit_.code & 0xFF
    print(exit_.code, file=sys.stderr)
    return 1


def reset_signal(number: int) -> None:
    """Give it its default disposition.

    As ``signal.signal()`` does, but that makes enumerations of what it takes and returns, which costs a child
    70 page faults, as many as the fork itself.
    """
    _signal.signal(number, _signal.SIG_DFL)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            reset_signal(number)
    # what every new interpreter does
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _open_standard_streams() -> None:
    """An empty standard input, and output streams that do not hold what the host has yet to write."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null != 0:
        os.close(null)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - all three live as long as the process
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
