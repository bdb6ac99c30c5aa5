"""The script that a spare interpreter runs: it waits for its order and then runs the task.

Its argument is the descriptor on which the order arrives.  Everything is ready before that, and nothing of
the user's has been imported.  The script imports as little as possible: a new interpreter takes 10 ms to
start, and importing typing and pickle takes another 10 ms.
"""

from __future__ import annotations

import os
import runpy
import sys
from marshal import loads
from os import close, read
from sys import modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    #: A function by name: its module, the attribute names from there, and its arguments.
    Named = tuple[str, tuple[str, ...], tuple[Any, ...]]

#: Replaces an order that is too long for a message: a file whose descriptor follows in the next message.
IN_A_FILE = b"\1"
#: The largest message, in bytes, that carries an order.
MAX_MESSAGE = 4000


def receive(descriptor: int) -> Any:
    """Wait for the order, close the descriptor and return the order.

    Exits if the host closes its end.
    """
    message = read(descriptor, MAX_MESSAGE)
    if not message:
        os._exit(0)  # there will be no order
    if message == IN_A_FILE:
        import socket

        with socket.socket(fileno=os.dup(descriptor)) as host:
            files: list[int] = []
            while not files:  # an exception may have made the host repeat the first message
                repeated, files, _, _ = socket.recv_fds(host, 1, 1)
                if not repeated:
                    os._exit(0)  # there will be no order
        with open(files[0], "rb") as large:
            message += large.read()
    close(descriptor)
    return loads(message[1:])


def find_function(how: Named | bytes) -> tuple[Callable[..., object], tuple[Any, ...]]:
    """Return the function and its arguments.

    :param how: the name of the function, or a pickle of a callable without arguments.
    """
    if isinstance(how, bytes):
        from _pickle import loads as unpickle  # pickle itself imports many more modules

        return unpickle(how), ()
    module, names, arguments = how
    if module not in modules:
        __import__(module)
    found: Any = modules[module]
    for name in names:
        found = getattr(found, name)
    return found, arguments


def _task() -> tuple[Callable[..., object], tuple[Any, ...]]:
    sys.path.pop(0)  # the directory of this script
    # The order is (module, its argv, None) or (None, sys.path, function).
    module, words, function = receive(int(sys.argv[1]))
    if function is not None:
        sys.argv = [""]
        sys.path[:] = words
        return find_function(function)
    sys.argv = words
    if not getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, os.getcwd())
    return runpy._run_module_as_main, (module,)  # type: ignore[attr-defined]


if __name__ == "__main__":
    task, arguments = _task()
    for name in [
        name for name in globals() if not name.startswith("__") and name not in ("task", "arguments")
    ]:
        del globals()[name]
    task(*arguments)
