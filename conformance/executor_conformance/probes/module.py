"""A module that finds out whether it is run as an interpreter runs one.

Run as ``python -m executor_conformance.probes.module PATH``, in a new interpreter or in a forked child.  For
each of :data:`OBSERVATIONS` it appends one line to the file PATH: ``name: ok`` or ``name: what went wrong``.
It appends the last ones while the process exits.
"""

import os
import sys

from executor_conformance.probes.transport import append

#: Seconds for which a thread goes on after the last statement.
_GOES_ON_S = 0.1


class Thing:
    """A class of ``__main__``."""


def child() -> None:
    """What a child process runs."""


def _is_main() -> object:
    return sys.modules["__main__"].__dict__ is globals()


def _has_its_arguments() -> object:
    return len(sys.argv) == 2


def _runs_in_main_thread() -> object:
    import threading

    return threading.current_thread() is threading.main_thread()


def _can_handle_signals() -> object:
    import signal

    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    return True


def _pickles() -> object:
    import pickle

    return type(pickle.loads(pickle.dumps(Thing()))) is Thing


def _runs_a_loop() -> object:
    import asyncio

    async def main() -> bool:
        await asyncio.sleep(0)
        return True

    return asyncio.run(main())


def _has_children() -> object:
    import multiprocessing

    process = multiprocessing.get_context("spawn").Process(target=child)
    process.start()
    process.join()
    return process.exitcode == 0


#: What is observed while the module runs.
_CHECKS = {
    "sys.modules['__main__'] is the module": _is_main,
    "sys.argv has its arguments": _has_its_arguments,
    "it runs in the main thread": _runs_in_main_thread,
    "it can handle signals": _can_handle_signals,
    "a class of __main__ can be pickled": _pickles,
    "asyncio.run() works": _runs_a_loop,
    "multiprocessing.Process works": _has_children,
}
_THREAD = "a thread that is not a daemon runs to its end"
_ATEXIT = "atexit functions run"
_OUTPUT = "buffered output is flushed"
#: In the order in which they are made.
OBSERVATIONS = (*_CHECKS, _THREAD, _ATEXIT, _OUTPUT)


def _observe(path: str) -> None:
    for name, check in _CHECKS.items():
        try:
            found = "ok" if check() else "false"
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        append(path, f"{name}: {found}\n")


def _go_on(path: str) -> None:
    import time

    time.sleep(_GOES_ON_S)
    append(path, f"{_THREAD}: ok\n")


def _observe_the_end(path: str) -> None:
    import atexit
    import threading

    atexit.register(append, path, f"{_ATEXIT}: ok\n")
    threading.Thread(target=_go_on, args=(path,), daemon=False).start()
    try:
        is_file = sys.stdout.fileno() == 1
    except (AttributeError, OSError, ValueError):
        is_file = False
    if is_file:  # an executor may redirect the output of its tasks
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), 1)
        sys.stdout.write(f"{_OUTPUT}: ok\n")
    else:
        append(path, f"{_OUTPUT}: ok\n")


if __name__ == "__main__":
    _observe(sys.argv[1])
    _observe_the_end(sys.argv[1])
