"""From a forked child to a running task: the only code that runs between ``fork`` and the task.

A task gets a session of its own (so that it can be stopped with all its children), dies with the process that
forked it, has default signals, an empty standard input, and none of the executor's descriptors.  How it ended
is its exit status; why it failed is one short text.
"""

from __future__ import annotations

import atexit
import gc
import os
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Collection
from typing import NoReturn

from executor_reference.commands import Argv, Call, Command
from executor_reference.linux import close_private_descriptors, die_with_parent

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126


def become_task(
    order: Callable[[], Command],
    *,
    parent: int,
    fail: Callable[[str], None],
    keep: Collection[int] = (),
) -> NoReturn:
    """Turn this forked child into a task; does not return.

    :param order: what to run.  Called when everything else is done, so it may wait for it.
    :param parent: pid of the process that forked this one.
    :param fail: takes the reason of a failure that is more than an exit status.
    :param keep: descriptors that ``order`` needs, and closes.
    """
    status = 1
    try:
        os.setsid()
        die_with_parent(parent)
        _reset_signals()
        open_standard_streams()
        close_private_descriptors(keep)
        status = _run(order(), fail)
    except SystemExit as exit_:
        status = _status_of(exit_)
    except BaseException as error:
        traceback.print_exc()
        fail(f"{type(error).__name__}: {_text_of(error)}")
    finally:
        _leave(status)


def _run(command: Command, fail: Callable[[str], None]) -> int:
    if isinstance(command, Argv) and command.module is None:
        _execute(command.words, fail)
    gc.freeze()  # a collection here would write to every page that is shared with the parent
    atexit._clear()  # what the host does at its exit
    if isinstance(command, Call):
        command.function()
    else:
        _run_module(command)
    return 0


def _execute(words: tuple[str, ...], fail: Callable[[str], None]) -> NoReturn:
    try:
        os.execvp(words[0], words)
    except OSError as error:
        fail(f"{type(error).__name__}: {error}")
        os._exit(_NOT_EXECUTABLE if isinstance(error, PermissionError) else _NOT_FOUND)


def _run_module(command: Argv) -> None:
    """What ``python -m`` does, in this process."""
    module = command.module
    assert module is not None
    sys.argv = list(command.words[2:])
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    sys.modules.pop(module, None)  # else runpy warns that the host has imported it
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _leave(status: int) -> NoReturn:
    """End as an interpreter ends, but run none of the host's code."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except BaseException:
        status = status or 1
    finally:
        os._exit(status)


def _status_of(exit_: SystemExit) -> int:
    """The exit status that an interpreter makes of a ``SystemExit``."""
    if exit_.code is None:
        return 0
    if isinstance(exit_.code, int):
        return exit_.code & 0xFF
    print(exit_.code, file=sys.stderr)
    return 1


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "its text cannot be had"


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
    # what every new interpreter does
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def open_standard_streams() -> None:
    """An empty standard input, and output streams that do not hold what the host has yet to write."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null != 0:
        os.close(null)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - all three live as long as the process
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
