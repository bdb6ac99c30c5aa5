"""What a spare interpreter does until it has its order: nothing, and it has imported nothing of the user's.

Run as a script, with the descriptor that the order comes from, so that all of it is ready when that comes.
"""

import marshal
import os
import runpy
import sys
from collections.abc import Callable
from typing import Any

_IN_A_FILE = -1


def _read(descriptor: int, length: int) -> bytes:
    pieces = []
    while length > 0:
        piece = os.read(descriptor, length)
        if not piece:
            os._exit(0)  # there will be no order
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)


def _order(descriptor: int) -> Any:
    length = int.from_bytes(_read(descriptor, 8), "little", signed=True)
    if length != _IN_A_FILE:
        data = _read(descriptor, length)
    else:
        import socket

        with socket.socket(fileno=os.dup(descriptor)) as host:
            file = socket.recv_fds(host, 1, 1)[1][0]
        with open(file, "rb") as large:
            data = large.read()
    os.close(descriptor)
    return marshal.loads(data)


def _task() -> tuple[Callable[..., object], list[str]]:
    sys.path.pop(0)  # where this script is
    path, module, arguments, function = _order(int(sys.argv[1]))
    if module is None:
        import pickle

        sys.argv = [""]
        sys.path[:] = path
        return pickle.loads(function), []
    sys.argv = arguments
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
