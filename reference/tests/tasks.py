"""What the tests have their executors run: as a module with a name and arguments, or as callables.

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

#: Set by a test in the host; only a forked child sees the change.
SEEN_IN_THE_HOST = False

_PR_GET_PDEATHSIG = 2


def nothing() -> None:
    """Succeed."""


def fail() -> None:
    raise RuntimeError("on purpose")


def leave(status: str) -> None:
    """``sys.exit`` with an int, or with a text."""
    sys.exit(int(status) if status.lstrip("-").isdigit() else status)


def leave_hard(status: str) -> None:
    os._exit(int(status))


def die_of(number: str) -> None:
    signal.signal(int(number), signal.SIG_DFL) if int(number) != signal.SIGKILL else None
    os.kill(os.getpid(), int(number))


def append(path: str, text: str) -> None:
    with open(path, "a") as file:
        file.write(text + "\n")


def wait_at(ready: str, gate: str) -> None:
    """Tell that it runs, by its pid, and wait until the gate is opened."""
    _tell(ready, str(os.getpid()))
    os.close(os.open(gate, os.O_RDONLY))


def wait_stubbornly(ready: str, gate: str) -> None:
    """The same with a child process, both deaf to polite signals."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        os.close(os.open(gate, os.O_RDONLY))
        os._exit(0)
    _tell(ready, f"{os.getpid()} {child}")
    os.close(os.open(gate, os.O_RDONLY))


def describe(path: str) -> None:
    """Write down what the task finds itself in."""
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
        "forked": SEEN_IN_THE_HOST,
        "directory": os.getcwd(),
    }
    with open(path, "w") as file:
        json.dump(description, file)


def print_without_a_newline(path: str) -> None:
    """Leave text in the buffer of standard output, which only an orderly end writes."""
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), 1)
    sys.stdout.write("buffered")


def end_in_a_thread(path: str) -> None:
    """Return while a thread still works and a function waits for the exit."""
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


def _tell(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, (text + "\n").encode())
    os.close(descriptor)


async def coroutine() -> None:
    """What no executor here can run."""


class CallsACoroutine:
    async def __call__(self) -> None:
        """The same as an object."""


def tell_modules(path: str, *names: str) -> None:
    """Write which of these modules were imported before this one looked."""
    append(path, " ".join(name for name in names if name in sys.modules))


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    task: Any = globals()[name]
    task(*arguments)
