"""Orders: how the host tells one spare what to run.

Each spare has its own socket, and a short order is a single message on it.  The spare reads the order between
the decision to run a task and the task's first instruction, so the format has to be fast to read.  Where
possible it avoids ``pickle``: it carries the name of a function and arguments of plain types.
"""

from __future__ import annotations

import functools
import marshal
import os
import pickle
import socket
from sys import modules
from types import FunctionType

from executor_reference import main_module
from executor_reference.interpreter import IN_A_FILE, MAX_MESSAGE
from executor_reference.task import CALL

TYPE_CHECKING = False  # importing it from typing would import typing
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

    from executor_reference.interpreter import Named
    from executor_reference.task import Instruction

_INLINE = b"\0"
#: The types whose values marshal transfers unchanged.  It rejects subclasses of them.
_MARSHALLED = frozenset((str, int, float, bool, bytes, type(None)))


def pack(instruction: Instruction, other_main: bool = False) -> bytes:
    """Return the order for a forked spare.

    :param other_main: whether the spare has another ``__main__`` module than this process.
    :raises Exception: the callable cannot be pickled; the message says why.
    """
    what, with_ = instruction
    if what == CALL:
        return marshal.dumps((what, portable(with_[0], other_main)))
    return marshal.dumps((what, tuple(map(str.__str__, with_))))  # str.__str__ turns subclasses into str


def portable(function: Callable[[], object], other_main: bool = False) -> Named | bytes:
    """Return what another process needs to find this function: its name if possible, else a pickle.

    :param other_main: whether the other process has another ``__main__`` module than this one.
    """
    arguments: tuple[Any, ...] = ()
    plain: Any = function
    if type(function) is functools.partial and not function.keywords and not function.__dict__:
        plain, arguments = function.func, function.args
    if type(plain) is FunctionType and all(type(value) in _MARSHALLED for value in arguments):
        module, names = plain.__module__, tuple(plain.__qualname__.split("."))
        if not (other_main and module == main_module.NAME) and _can_be_found(plain, module, names):
            return module, names, arguments
    pickled = pickle.dumps(function)
    if other_main and main_module.NAME.encode() in pickled:
        return pickle.dumps(main_module.after_main(function))
    return pickled


def _can_be_found(function: object, module: str, names: tuple[str, ...]) -> bool:
    try:
        found: Any = modules[module]
        for name in names:
            found = getattr(found, name)
    except (AttributeError, KeyError):
        return False
    return found is function


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Return the host's end and the spare's end of a new socket.

    Writing to a socket whose other end is closed raises an exception, but no ``SIGPIPE``.
    """
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(spare: socket.socket, order: bytes) -> None:
    """Send a spare its only order.  Does not block, even if the spare has not been forked yet.

    :raises BrokenPipeError: the spare has died.
    :raises ConnectionResetError: the spare has died.
    """
    message = _INLINE + order
    if len(message) <= MAX_MESSAGE:  # the buffer of a new socket holds this much without a reader
        spare.send(message)
    else:
        with memory_file(order) as file:
            spare.send(IN_A_FILE)
            socket.send_fds(spare, [IN_A_FILE], [file.fileno()])


def memory_file(data: bytes) -> BinaryIO:
    """Return an anonymous file in memory that contains the data, positioned at its start."""
    file = open(os.memfd_create("order"), "w+b")  # noqa: SIM115 - the caller closes it
    file.write(data)
    file.seek(0)
    return file
