"""Turns a forked child into a task: the only code that runs between ``fork`` and the task itself.

A task has its own session (so it can be killed together with its children), dies with the process that forked
it, has default signals, an empty standard input, and none of the executor's descriptors.  Its exit status is
how it ended; a short text in a :class:`~executor_reference.endings.Note` is why it failed.

Time spent here delays the task, or the next task.  The child pays for each module that it imports and for
each page that it is the first to write to; merely using an object writes to its page, because that changes
its reference count.  So this module imports little, and it binds the functions that a child calls to names of
its own, because a look-up in another module would touch another page.  A process that forks many tasks does
most of the work once, with :func:`drop_host_state`.
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

from executor_reference.endings import safe_str
from executor_reference.linux import close_private_descriptors, die_with_parent, open_standard_descriptors

TYPE_CHECKING = False  # importing it from typing would import typing
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any, NoReturn

    from executor_reference.endings import Note

#: The kinds of instructions.  EXECUTE comes with an argv, RUN_MODULE with a module and its arguments, CALL
#: with a callable and its arguments.
EXECUTE, RUN_MODULE, CALL = range(3)
Instruction = tuple[int, "Any"]

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_IGNORED_BY_PYTHON = _signal.SIGPIPE, _signal.SIGXFSZ
#: On a free-threaded build ``gc.freeze()`` itself writes to every object; otherwise it moves lists.
_FREEZING_WRITES = "t" in sys.abiflags


def become_task(instruction: Callable[[], Instruction], parent: int, note: Note) -> NoReturn:
    """Turn this forked child into a task.

    :param instruction: returns what to run, and may wait for it.  Called after ``setsid()``.
    :param parent: the pid of the process that forked this one.
    :param note: receives the reason of a failure that an exit status does not express.
    """
    status = 1
    task = getpid()
    try:
        setsid()
        die_with_parent(parent)
        what, with_ = instruction()
        task = getpid()  # another one than above, if the task has a keeper
        if what == CALL:
            function, arguments = with_
            function(*arguments)
        elif what == RUN_MODULE:
            _run_module(*with_)
        else:
            _execute(with_, note)
        status = 0
    except SystemExit as exit_:
        status = _exit_status(exit_)
    except BaseException as error:
        sys.__excepthook__(*sys.exc_info())
        if getpid() == task:  # a child that the task forked also gets here
            note.write(f"{type(error).__name__}: {safe_str(error)}")
    finally:
        _exit_task(status, note if getpid() == task else None)


def drop_host_state(keep: Collection[int] = ()) -> None:
    """Reset what a forked child has inherited from the host and a task must not have.

    :param keep: private descriptors that are still needed.
    """
    reset_signals()
    # The next lines repeat what a new interpreter does at its start.
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    for number in _IGNORED_BY_PYTHON:
        _signal.signal(number, SIG_IGN)
    _open_standard_streams()
    close_private_descriptors(keep)
    _renew_multiprocessing()
    atexit._clear()  # the exit functions of the host
    if not _FREEZING_WRITES:
        gc.freeze()  # a collection would write to every page that is shared with the host


def _renew_multiprocessing() -> None:
    """Let a task use multiprocessing as in a new interpreter, if the host has used it."""
    process = modules.get("multiprocessing.process")
    if process is not None:  # the host may be a daemonic process, which may not have children
        process.current_process()._config["daemon"] = False
    tracker = modules.get("multiprocessing.resource_tracker")
    if tracker is not None:  # its descriptor has been closed
        tracker._resource_tracker._fd = tracker._resource_tracker._pid = None


def _execute(words: tuple[str, ...], note: Note) -> NoReturn:
    for number in _IGNORED_BY_PYTHON:  # the program would inherit that they are ignored
        _signal.signal(number, SIG_DFL)
    try:
        os.execvp(words[0], words)
    except OSError as error:
        note.write(f"{type(error).__name__}: {error}")
        os._exit(_NOT_EXECUTABLE if isinstance(error, PermissionError) else _NOT_FOUND)


def _run_module(module: str, *arguments: str) -> None:
    """Do what ``python -m`` does, in this process."""
    sys.argv = [module, *arguments]
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    sys.modules.pop(module, None)  # runpy warns if the host has imported the module
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _exit_task(status: int, note: Note | None) -> NoReturn:
    """Exit as an interpreter does, but without running any code of the host.

    :param note: receives the exit status.
    """
    try:
        if "threading" in modules:
            modules["threading"]._shutdown()
        run_exit_functions()
        flush()
    except BaseException:
        status = status or 1
    finally:
        if note is not None:
            note.write_status(status << 8)
        _exit(status)


def flush() -> None:
    """Flush standard output and standard error."""
    if sys.stdout is not None:
        sys.stdout.flush()
    if sys.stderr is not None:
        sys.stderr.flush()


def _exit_status(exit_: SystemExit) -> int:
    """Return the exit status of an interpreter that ends with this ``SystemExit``."""
    if exit_.code is None:
        return 0
    if isinstance(exit_.code, int):
        return exit_.code & 0xFF
    print(exit_.code, file=sys.stderr)
    return 1


def reset_signals() -> None:
    """Reset every signal to its default action, and unblock all signals."""
    # The functions of the signal module convert to and from enums, which costs each child 70 pages.
    _signal.set_wakeup_fd(-1)
    for number in _signal.valid_signals():
        if number not in (_signal.SIGKILL, _signal.SIGSTOP):
            _signal.signal(number, SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _open_standard_streams() -> None:
    """Open an empty standard input, and output streams without the host's unflushed output."""
    open_standard_descriptors()
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - all three stay open until the process ends
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
