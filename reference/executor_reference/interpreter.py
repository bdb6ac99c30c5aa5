"""What a spare interpreter does until it has its order: nothing, and it has imported nothing of the user's.

Run as a script, with the descriptor that the order comes from and the length of the longest one, so that all
of it is ready when that comes.  It imports as little as it can: a new interpreter takes ten milliseconds,
typing and pickle as much again.
"""

from __future__ import annotations

import marshal
import os
import runpy
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_IN_A_FILE = b"\1"


def _order(descriptor: int, longest: int) -> Any:
    """What the host has marshalled.

    A module, its arguments and ``None``; or ``None``, where modules are, and a function: its module and its
    name, or else pickled.
    """
    message = os.read(descriptor, longest)
    if not message:
        os._exit(0)  # there will be no order
    if message == _IN_A_FILE:
        import socket

        with socket.socket(fileno=os.dup(descriptor)) as host:
            file = socket.recv_fds(host, 1, 1)[1][0]
        with open(file, "rb") as large:
            message += large.read()
    os.close(descriptor)
    return marshal.loads(message[1:])


def _function(how: tuple[str, str] | bytes) -> Any:
    if isinstance(how, bytes):
        import pickle

        return pickle.loads(how)
    module, name = how
    __import__(module)
    found = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _task() -> tuple[Callable[..., object], list[str]]:
    sys.path.pop(0)  # where this script is
    module, words, function = _order(int(sys.argv[1]), int(sys.argv[2]))
    if function is not None:
        sys.argv = [""]
        sys.path[:] = words
        return _function(function), []
    sys.argv = words
    if not getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, os.getcwd())
    return runpy._run_module_as_main, [module]  # type: ignore[attr-defined]


if __name__ == "__main__":
    task, arguments = _task()
    for name in [
        name for name in globals() if not name.startswith("__") and name not in ("task", "arguments")
    ]:
        del globals()[name]
    task(*arguments)
