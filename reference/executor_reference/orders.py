"""An order: what a spare is to do, as it travels from the host to that spare alone.

It goes over a socket of the spare's own, in one message if it is short.  A spare reads it between the
decision to run a task and the task's first instruction, so it says what can be said without ``pickle`` in a
form that takes less: the names of a function, and arguments of the simplest types.
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
from executor_reference.interpreter import IN_A_FILE, LONGEST_MESSAGE
from executor_reference.task import CALL

TYPE_CHECKING = False  # typing's own would import typing
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

    from executor_reference.task import Instruction

    #: The module of a function, the way to it from there, and its arguments.
    Named = tuple[str, tuple[str, ...], tuple[Any, ...]]

_HERE = b"\0"
#: What marshal brings over as it is; a subclass of these it does not.
_PLAIN = frozenset((str, int, float, bool, bytes, type(None)))


def pack(instruction: Instruction, other_main: bool = False) -> bytes:
    """An order for a forked spare.

    :param other_main: its ``__main__`` is not the one of this process.
    :raises Exception: what is to be called cannot be pickled; tells why.
    """
    what, with_ = instruction
    if what == CALL:
        return marshal.dumps((what, portable(with_[0], other_main)))
    return marshal.dumps((what, tuple(map(str.__str__, with_))))  # marshal takes no subclass


def portable(function: Callable[[], object], other_main: bool = False) -> Named | bytes:
    """What another process can make this function of: its names, or else a pickle.

    :param other_main: the other's ``__main__`` is not the one of this process.
    """
    arguments: tuple[Any, ...] = ()
    plain: Any = function
    if type(function) is functools.partial and not function.keywords and not function.__dict__:
        plain, arguments = function.func, function.args
    if type(plain) is FunctionType and all(type(value) in _PLAIN for value in arguments):
        module, names = plain.__module__, tuple(plain.__qualname__.split("."))
        if not (other_main and module == main_module.NAME) and _is_found(plain, module, names):
            return module, names, arguments
    pickled = pickle.dumps(function)
    if other_main and main_module.NAME.encode() in pickled:
        return pickle.dumps(main_module.after_main(function))
    return pickled


def _is_found(function: object, module: str, names: tuple[str, ...]) -> bool:
    try:
        found: Any = modules[module]
        for name in names:
            found = getattr(found, name)
    except (AttributeError, KeyError):
        return False
    return found is function


def new_socket() -> tuple[socket.socket, socket.socket]:
    """The host's end and the spare's; writing to one whose other end is closed raises no ``SIGPIPE``."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(spare: socket.socket, order: bytes) -> None:
    """Give a spare its one order; does not wait for it, which may not have been made yet.

    :raises BrokenPipeError: the spare is gone.
    :raises ConnectionResetError: the same.
    """
    message = _HERE + order
    if len(message) <= LONGEST_MESSAGE:  # which a new socket takes without a reader
        spare.send(message)
    else:
        with file_in_memory(order) as file:
            spare.send(IN_A_FILE)
            socket.send_fds(spare, [b"!"], [file.fileno()])


def file_in_memory(data: bytes) -> BinaryIO:
    """A file that holds this, to be read from its start."""
    file = open(os.memfd_create("order"), "w+b")  # noqa: SIM115 - the caller closes it
    file.write(data)
    file.seek(0)
    return file
