"""What a spare interpreter does until it has its order: nothing, and it has imported nothing of the user's.

Run as a script, with the descriptor that the order comes from, so that all of it is ready when that comes.
It imports as little as it can: a new interpreter takes ten milliseconds, typing and pickle as much again.
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

    from executor_reference.orders import Named

#: Instead of an order: it is in a file, whose descriptor comes with the next message.
IN_A_FILE = b"\1"
LONGEST_MESSAGE = 4000


def receive(descriptor: int) -> Any:
    """The order that comes from the host."""
    message = read(descriptor, LONGEST_MESSAGE)
    if not message:
        os._exit(0)  # there will be no order
    if message == IN_A_FILE:
        import socket

        with socket.socket(fileno=os.dup(descriptor)) as host:
            file = socket.recv_fds(host, 1, 1)[1][0]
        with open(file, "rb") as large:
            message += large.read()
    close(descriptor)
    return loads(message[1:])


def find_function(how: Named | bytes) -> tuple[Callable[..., object], tuple[Any, ...]]:
    """The function that goes by these names, and its arguments; or what was pickled, without any."""
    if isinstance(how, bytes):
        from _pickle import loads as unpickle  # pickle itself imports many more

        return unpickle(how), ()
    module, names, arguments = how
    if module not in modules:
        __import__(module)
    found: Any = modules[module]
    for name in names:
        found = getattr(found, name)
    return found, arguments


def _task() -> tuple[Callable[..., object], tuple[Any, ...]]:
    sys.path.pop(0)  # where this script is
    # a module and its arguments; or where modules are, and a function
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
