"""The zygote: a small process that forks spares ahead of demand, and its protocol with the host.

Host and zygote share one channel, a socket that preserves message boundaries.  On it the host asks for spares
(and sends the spares' ends of their order sockets along) or for the kill of one spare, and the zygote reports
how each spare has ended.  The zygote runs no task and none of the user's code.  Orders do not pass through
it: the host sends each order directly to the spare.

After a fork, parent and child copy each page that either of them writes to, and both the fork and the exit
of the child take longer the more pages there are.  So spares are forked in batches, and a spare does little
until its order arrives.  This module also imports the C modules ``_socket`` and ``_signal`` in place of
``socket`` and ``signal``, which would import others: ``enum`` and ``re`` have half as many pages as all of an
interpreter.
"""

from __future__ import annotations

import _socket
import gc
import os
import select
import struct
import sys
from marshal import dumps, loads
from os import close, fork

from executor_reference import interpreter, task
from executor_reference.endings import Note, failure_reason, kill_session, reap
from executor_reference.interpreter import find_function, receive
from executor_reference.linux import (
    die_with_parent,
    open_standard_descriptors,
    unblock_signals,
    watch_children,
)
from executor_reference.task import become_task

TYPE_CHECKING = False  # importing it from typing would import typing
if TYPE_CHECKING:
    from typing import NoReturn

#: Host to zygote: an opcode, the number of the first spare, and the count of spares (numbered consecutively).
MESSAGE = struct.Struct("<BQB")
#: The opcodes.
SPAWN, SPAWN_INTERPRETER, KILL, ENVIRONMENT, PILL = range(5)
_DESCRIPTOR = struct.Struct("i")
#: The most spares that one message can ask for.
MAX_BATCH = 16
#: Zygote to host: the number of a spare that has ended and whether it failed.  The reason follows, as text.
_RESULT = struct.Struct("<Q?")
#: The largest message, in bytes, that carries a result.
MAX_RESULT = 8192


def unpack_result(message: bytes) -> tuple[int, str | None]:
    """Return the number of a spare that has ended, and why it failed or ``None`` for success."""
    number, failed = _RESULT.unpack_from(message)
    return number, message[_RESULT.size :].decode() if failed else None


# -- in the zygote process -----------------------------------------------------------------------------------


def become_snapshot(channel: int, host: int) -> NoReturn:
    """Turn this child, forked from the host, into the zygote."""
    _become_zygote(channel, host)


#: The code with which a new interpreter becomes the zygote.
STARTER = """\
import sys
sys.path[:] = {path!r}
from executor_reference.zygote import become_fresh_zygote
become_fresh_zygote({channel}, {host}, {preload!r})
"""


def become_fresh_zygote(channel: int, host: int, preload: tuple[str, ...]) -> NoReturn:
    """Turn this new interpreter into the zygote.

    :param preload: modules to import for the tasks.
    """
    os.set_inheritable(channel, False)
    open_standard_descriptors()  # before a module opens a file
    for module in preload:
        try:
            __import__(module)
        except Exception:  # only the tasks that need this module have to fail
            sys.__excepthook__(*sys.exc_info())
    gc.collect()  # the garbage of the interpreter's start
    _become_zygote(channel, host)


def _become_zygote(channel: int, host: int) -> NoReturn:
    try:
        os.setsid()
        die_with_parent(host)
        task.drop_host_state(keep={channel})
        zygote = _Zygote(_socket.socket(fileno=channel))
        for _ in range(_WARM_UP_CALLS):
            _warm_up()
        gc.freeze()  # a collection in a task would write to every page that it shares with the zygote
        zygote.serve()
    except BaseException:
        sys.__excepthook__(*sys.exc_info())
    finally:
        os._exit(0)


def _warm_up() -> None:
    """Do what a task does before and after its own work.

    The first call of a function writes to memory: to the tables of the dynamic linker and to the caches of
    the interpreter.  Calls made here, before the fork, save each child from copying those pages.
    """
    bytes(interpreter.MAX_MESSAGE)  # the buffer for an order
    what, how = loads(_WARM_UP_ORDER[1:])
    if what == task.CALL:
        function, arguments = find_function(how)
        function(*arguments)


def _warm_up_task(_: str) -> None:
    task.flush()


_WARM_UP_ORDER = b"!" + dumps((task.CALL, (__name__, (_warm_up_task.__name__,), ("an argument",))))
#: After this many calls the interpreter has specialized the bytecode of a function and writes to it no more.
_WARM_UP_CALLS = 10
#: The most free notes to keep for reuse.  Each note is a memory mapping that every fork has to copy.
_MAX_FREE_NOTES = 16


class _Zygote:
    """Forks spares on demand and reports how each has ended."""

    def __init__(self, channel: _socket.socket) -> None:
        self._channel = channel
        self._pid = os.getpid()
        self._children: dict[int, tuple[int, Note]] = {}  # pid -> (number, note)
        self._pids: dict[int, int] = {}  # number -> pid
        self._free_notes: list[Note] = []
        self._unsent: list[bytes] = []
        self._child_ended = watch_children()
        self._order_socket = -1  # of the next child

    def serve(self) -> None:
        """Serve until the poison pill arrives or the host is gone."""
        poll = select.poll()
        poll.register(self._child_ended, select.POLLIN)
        while True:
            # Sends never block: the host may be blocked on a send itself, until its messages are read.
            poll.register(self._channel, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            ready = dict(poll.poll())
            if self._child_ended in ready:
                self._reap_children()
            if ready.get(self._channel.fileno(), 0) & ~select.POLLOUT and not self._read_message():
                break
            self._send_results()
        for pid in self._children:
            kill_session(pid)
        for pid in self._children:
            os.waitpid(pid, 0)

    def _read_message(self) -> bool:
        """Handle one message; return ``False`` if it is the last one."""
        try:
            # Not socket.recv_fds(): it ignores MSG_CMSG_CLOEXEC (python/cpython#107898).
            message, ancillary, _, _ = self._channel.recvmsg(
                MESSAGE.size, _socket.CMSG_SPACE(MAX_BATCH * _DESCRIPTOR.size), _socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            return False
        if not message:
            return False
        opcode, number, count = MESSAGE.unpack(message)
        descriptors = [one for _, _, data in ancillary for (one,) in _DESCRIPTOR.iter_unpack(data)]
        if opcode in (SPAWN, SPAWN_INTERPRETER):
            self._spawn(opcode, number, descriptors)
            # The kernel drops the descriptors that exceed this process's limit.
            for missing in range(number + len(descriptors), number + count):
                self._report(missing, "could not be started: its zygote has no descriptor left")
        elif opcode == KILL and number in self._pids:
            kill_session(self._pids[number])
        elif opcode == ENVIRONMENT and descriptors:
            with open(descriptors[0], "rb") as file:
                _apply_environment(*loads(file.read()))
        return bool(opcode != PILL)

    def _spawn(self, opcode: int, number: int, order_sockets: list[int]) -> None:
        wait = self._await_interpreter if opcode == SPAWN_INTERPRETER else self._await_order
        self._to_close = [self._channel.fileno(), self._child_ended, *order_sockets]
        spawned = []
        try:
            for self._order_socket in order_sockets:
                note = self._free_notes.pop() if self._free_notes else Note()
                pid = fork()
                if pid == 0:
                    become_task(wait, self._pid, note)
                spawned.append((pid, note))
        except OSError as error:  # out of processes or memory; the other spares are not affected
            for missing in range(number + len(spawned), number + len(order_sockets)):
                self._report(missing, f"could not be started: {error}")
        for spawned_number, (pid, note) in enumerate(spawned, number):
            self._children[pid] = spawned_number, note
            self._pids[spawned_number] = pid
        for order_socket in order_sockets:
            close(order_socket)

    def _await_order(self) -> task.Instruction:
        unblock_signals()
        order_socket = self._order_socket
        for descriptor in self._to_close:
            if descriptor != order_socket:
                close(descriptor)
        _warm_up()  # copies the pages that it writes to now, and not after the order has arrived
        what, with_ = receive(order_socket)
        return what, find_function(with_) if what == task.CALL else with_

    def _await_interpreter(self) -> task.Instruction:
        """Return the instruction to execute a new interpreter, which then waits for the order."""
        unblock_signals()
        os.set_inheritable(self._order_socket, True)
        return task.EXECUTE, (sys.executable, interpreter.__file__, str(self._order_socket))

    def _reap_children(self) -> None:
        os.read(self._child_ended, 1 << 16)
        while self._children:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            number, note = self._children.pop(ended.si_pid)
            del self._pids[number]
            reason = failure_reason(reap(ended), note)
            self._report(number, reason)
            if reason is not None:
                note.clear()
            if len(self._free_notes) < _MAX_FREE_NOTES:
                self._free_notes.append(note)

    def _report(self, number: int, reason: str | None) -> None:
        self._unsent.append(_RESULT.pack(number, reason is not None) + (reason or "").encode())

    def _send_results(self) -> None:
        try:
            while self._unsent:
                self._channel.send(self._unsent[0], _socket.MSG_DONTWAIT)
                del self._unsent[0]
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()  # the host is gone or has closed the channel


def _apply_environment(environment: dict[bytes, bytes], directory: bytes | None) -> None:
    for name in os.environb.keys() - environment.keys():
        del os.environb[name]
    os.environb.update(environment)
    if directory is not None:
        os.chdir(directory)
