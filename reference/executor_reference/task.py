"""From a forked child to a running task: the only code that runs between ``fork`` and the task.

A task gets a session of its own (so that it can be stopped with all its children), dies with the process that
forked it, has default signals, an empty standard input, and none of the executor's descriptors.  How it ended
is its exit status; why it failed is one short message on a pipe.
"""

from __future__ import annotations

import atexit
import gc
import os
import pickle
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NoReturn

from executor_reference.commands import Argv, Call, Command
from executor_reference.linux import close_private_descriptors, die_with_parent

#: A message this short goes through a pipe in one piece and never blocks: the pipe holds at least 64 KiB.
_LONGEST_REASON = 2000
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126


def become_task(command: Command, *, fresh: bool, reasons: Connection, parent: int) -> NoReturn:
    """Turn this forked child into the task; does not return.

    :param fresh: run Python code in a new interpreter instead of in this process.
    :param reasons: takes the reason of a failure that is more than an exit status.
    :param parent: pid of the process that forked this one.
    """
    status = 1
    try:
        os.setsid()
        die_with_parent(parent)
        _reset_signals()
        _renew_standard_streams()
        close_private_descriptors(keep={reasons.fileno()})
        status = _run(command, fresh, reasons)
    except SystemExit as exit_:
        status = _status_of(exit_)
    except BaseException as error:
        traceback.print_exc()
        _send_reason(reasons, error)
    finally:
        _leave(status)


def _run(command: Command, fresh: bool, reasons: Connection) -> int:
    if isinstance(command, Call):
        if fresh:
            _execute_call(command.function)
        _forget_the_host()
        command.function()
        return 0
    if fresh or command.module is None:
        _execute(command.words, reasons)
    _forget_the_host()
    _run_module(command)
    return 0


def _execute(words: tuple[str, ...], reasons: Connection) -> NoReturn:
    try:
        os.execvp(words[0], words)
    except OSError as error:
        _send_reason(reasons, error)
        os._exit(_NOT_EXECUTABLE if isinstance(error, PermissionError) else _NOT_FOUND)


def _execute_call(function: Callable[[], object]) -> NoReturn:
    """Run a callable in a new interpreter; it travels in a file in memory, so that its size cannot block."""
    parcel = os.memfd_create("call", 0)
    data = memoryview(pickle.dumps((sys.path, pickle.dumps(function))))
    while data:
        data = data[os.write(parcel, data) :]
    os.lseek(parcel, 0, os.SEEK_SET)
    os.execv(sys.executable, [sys.executable, "-c", _UNPACK, str(parcel)])


_UNPACK = """\
import os, pickle, sys
with open(int(sys.argv.pop()), "rb") as parcel:
    sys.path[:], function = pickle.load(parcel)
pickle.loads(function)()
"""


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


def _forget_the_host() -> None:
    """Drop what belongs to the host's life, not to the task's."""
    gc.freeze()  # a collection here would write to every page that is shared with the host
    atexit._clear()


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


def _send_reason(reasons: Connection, error: BaseException) -> None:
    try:
        reasons.send(f"{type(error).__name__}: {error}"[:_LONGEST_REASON])
    except Exception:
        pass  # the exit status says that it failed


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
    # what every new interpreter does
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _renew_standard_streams() -> None:
    """An empty standard input, and output streams that do not hold what the host has yet to write."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null != 0:
        os.close(null)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - all three live as long as the process
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
