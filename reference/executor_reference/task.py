"""From a forked child to a running task: the only code that runs between ``fork`` and the task.

A task gets a session of its own (so that it can be stopped with all its children), dies with the process that
forked it, has default signals, an empty standard input, and none of the executor's descriptors.  How it ended
is its exit status; why it failed is one short text.

Every module that a child imports and every page that it is the first to write to is time before its task, or
between two tasks; and to use an object is to write to it, since its references are counted.  So this module
imports little; what a child calls has a name here, because a look-up in a module would be one page more; and
a process that forks many does most of the work once (:func:`shed_the_host`).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import atexit
import gc
import os
import runpy
import sys
from _signal import SIG_DFL, SIG_IGN
from atexit import _run_exitfuncs as run_exit_functions
from os import _exit, getpid, setsid
from sys import modules

from executor_reference.endings import text_of
from executor_reference.linux import close_private_descriptors, die_with_parent

TYPE_CHECKING = False  # typing's own would import typing
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any, NoReturn

    from executor_reference.endings import Note

#: What is to be done, and with what: these words; this module and its arguments; this callable and its own.
EXECUTE, RUN_MODULE, CALL = range(3)
Instruction = tuple[int, "Any"]

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_IGNORED_BY_PYTHON = _signal.SIGPIPE, _signal.SIGXFSZ


def become_task(instruction: Callable[[], Instruction], parent: int, note: Note) -> NoReturn:
    """Turn this forked child into a task; does not return.

    :param instruction: says what to run, and may wait for it; called in a session of its own.
    :param parent: pid of the process that forked this one.
    :param note: takes the reason of a failure that is more than an exit status.
    """
    status = 1
    task = getpid()
    try:
        setsid()
        die_with_parent(parent)
        what, with_ = instruction()
        if what == CALL:
            function, arguments = with_
            function(*arguments)
        elif what == RUN_MODULE:
            _run_module(*with_)
        else:
            _execute(with_, note)
        status = 0
    except SystemExit as exit_:
        status = _status_of(exit_)
    except BaseException as error:
        sys.__excepthook__(*sys.exc_info())
        if getpid() == task:  # and not what the task has forked
            note.write(f"{type(error).__name__}: {text_of(error)}")
    finally:
        _leave(status)


def shed_the_host(keep: Collection[int] = ()) -> None:
    """Drop what a forked child has of its host and a task must not have.

    :param keep: private descriptors that are still needed.
    """
    reset_signals()
    # what every new interpreter does
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    for number in _IGNORED_BY_PYTHON:
        _signal.signal(number, SIG_IGN)
    _open_standard_streams()
    close_private_descriptors(keep)
    atexit._clear()  # what the host does at its exit
    gc.freeze()  # a collection would write to every page that is shared with the host


def _execute(words: tuple[str, ...], note: Note) -> NoReturn:
    for number in _IGNORED_BY_PYTHON:  # and by what it executes, if nobody sees to it
        _signal.signal(number, SIG_DFL)
    try:
        os.execvp(words[0], words)
    except OSError as error:
        note.write(f"{type(error).__name__}: {error}")
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
        if "threading" in modules:
            modules["threading"]._shutdown()
        run_exit_functions()
        flush()
    except BaseException:
        status = status or 1
    finally:
        _exit(status)


def flush() -> None:
    """Write what the output streams still hold."""
    if sys.stdout is not None:
        sys.stdout.flush()
    if sys.stderr is not None:
        sys.stderr.flush()


def _status_of(exit_: SystemExit) -> int:
    """The exit status that an interpreter makes of a ``SystemExit``."""
    if exit_.code is None:
        return 0
    if isinstance(exit_.code, int):
        return exit_.code & 0xFF
    print(exit_.code, file=sys.stderr)
    return 1


def reset_signals() -> None:
    """Have every signal do what it does by default, and none blocked."""
    # The functions of signal itself make enumerations of what they take and return: 70 pages in each child.
    _signal.set_wakeup_fd(-1)
    for number in _signal.valid_signals():
        if number not in (_signal.SIGKILL, _signal.SIGSTOP):
            _signal.signal(number, SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _open_standard_streams() -> None:
    """An empty standard input, and output streams that do not hold what the host has yet to write."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null != 0:
        os.close(null)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - all three live as long as the process
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
