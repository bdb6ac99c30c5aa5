"""The tasks of the tests, to be run as callables or as a module:

python -m tasks NAME ARGUMENT...
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import signal
import sys
import threading
from typing import Any

#: A test sets this in the host; only a child that was forked from the host sees the change.
SET_IN_THE_HOST = False

_PR_GET_PDEATHSIG = 2


def nothing() -> None:
    """Succeed."""


def fail() -> None:
    raise RuntimeError("on purpose")


def exit_with(status: str) -> None:
    """Call ``sys.exit`` with an int or a string."""
    sys.exit(int(status) if status.lstrip("-").isdigit() else status)


def os_exit(status: str) -> None:
    os._exit(int(status))


def kill_itself(number: str) -> None:
    signal.signal(int(number), signal.SIG_DFL) if int(number) != signal.SIGKILL else None
    os.kill(os.getpid(), int(number))


def append(path: str, text: str) -> None:
    with open(path, "a") as file:
        file.write(text + "\n")


def wait_at(ready: str, gate: str) -> None:
    """Report its pid, and wait until the gate is opened."""
    _write_line(ready, str(os.getpid()))
    os.close(os.open(gate, os.O_RDONLY))


def ignore_signals_at(ready: str, gate: str) -> None:
    """Do the same in two processes, task and child, which ignore SIGTERM, SIGINT and SIGHUP."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        os.close(os.open(gate, os.O_RDONLY))
        os._exit(0)
    _write_line(ready, f"{os.getpid()} {child}")
    os.close(os.open(gate, os.O_RDONLY))


def describe(path: str) -> None:
    """Write a description of the environment of the task to a file, as JSON."""
    death_signal = ctypes.c_int()
    ctypes.CDLL(None).prctl(_PR_GET_PDEATHSIG, ctypes.byref(death_signal), 0, 0, 0)
    with open("/proc/self/status") as status:
        fields = dict(line.split(":\t", 1) for line in status.read().splitlines() if ":\t" in line)
    description = {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "session": os.getsid(0),
        "group": os.getpgrp(),
        "death_signal": death_signal.value,
        "ignored": int(fields["SigIgn"], 16),
        "blocked": int(fields["SigBlk"], 16),
        "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "input": os.read(0, 1).decode(),
        "descriptors": {
            name: os.readlink(f"/proc/self/fd/{name}")
            for name in os.listdir("/proc/self/fd")
            if _is_open(int(name))
        },
        "argv": sys.argv[1:],
        "forked": SET_IN_THE_HOST,
        "directory": os.getcwd(),
    }
    with open(path, "w") as file:
        json.dump(description, file)


def print_without_a_newline(path: str) -> None:
    """Leave text in the buffer of standard output, which only a normal exit flushes."""
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), 1)
    sys.stdout.write("buffered")


def end_in_a_thread(path: str) -> None:
    """Return while a thread still runs and an exit function is registered."""
    atexit.register(append, path, "at exit")
    gate = threading.Event()

    def work() -> None:
        gate.wait()
        append(path, "thread")

    threading.Thread(target=work).start()
    gate.set()


def measure(data: bytes, path: str) -> None:
    append(path, str(len(data)))


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _write_line(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, (text + "\n").encode())
    os.close(descriptor)


async def coroutine() -> None:
    """A command that these executors reject."""


class CallsACoroutine:
    async def __call__(self) -> None:
        """Make this object a coroutine function, too."""


def write_imported_modules(path: str, *names: str) -> None:
    """Write which of these modules are imported in this process."""
    append(path, " ".join(name for name in names if name in sys.modules))


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    task: Any = globals()[name]
    task(*arguments)
