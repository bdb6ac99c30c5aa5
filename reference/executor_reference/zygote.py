"""The small process that makes processes ahead of demand, and what it says with the host.

It is told over one channel, a socket that keeps messages apart, to raise a spare (whose end of its order
socket comes with the message) or to kill one; and tells how each that has ended, ended.  It runs no task and
no code of the user's.  An order is for a spare alone: it goes from the host to the spare directly.
"""

from __future__ import annotations

import collections
import functools
import gc
import os
import pickle
import select
import signal
import socket
import struct
import sys

from executor_reference import task
from executor_reference.endings import Note, kill_session, reap, why_it_failed
from executor_reference.linux import die_with_parent

TYPE_CHECKING = False  # typing's own would import typing
if TYPE_CHECKING:
    from typing import BinaryIO, NoReturn

#: To the zygote: a word, and the number of a spare.
MESSAGE = struct.Struct("<BQ")
RAISE, RAISE_INTERPRETER, KILL, SURROUNDINGS, PILL = range(5)
_DESCRIPTOR = struct.Struct("i")
#: From the zygote: the number of what has ended, and whether it failed; then why, as text.
_NEWS = struct.Struct("<Q?")
LONGEST_NEWS = 8192


def read_news(message: bytes) -> tuple[int, str | None]:
    """The number of what has ended, and why it failed; ``None`` for success."""
    number, failed = _NEWS.unpack_from(message)
    return number, message[_NEWS.size :].decode() if failed else None


# -- orders: from the host to a spare ------------------------------------------------------------------------

#: What an order starts with: it follows; or it is in a file, whose descriptor comes with the next message.
_HERE, _IN_A_FILE = b"\0", b"\1"
#: Sending this much over a new socket never waits for a reader.
_SHORT = 32 * 1024
LONGEST_MESSAGE = len(_HERE) + _SHORT


def new_order_socket() -> tuple[socket.socket, socket.socket]:
    """The host's end and the spare's."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send_order(spare: socket.socket, order: bytes) -> None:
    """Give a spare its one order; does not wait for it, which may not have been made yet.

    :raises BrokenPipeError: the spare is gone.
    :raises ConnectionResetError: the same.
    """
    if len(order) <= _SHORT:
        spare.send(_HERE + order, socket.MSG_NOSIGNAL)
    else:
        with file_in_memory(order) as file:
            spare.send(_IN_A_FILE, socket.MSG_NOSIGNAL)
            socket.send_fds(spare, [b"!"], [file.fileno()], socket.MSG_NOSIGNAL)


def _receive_order(descriptor: int) -> bytes:
    message = os.read(descriptor, LONGEST_MESSAGE)
    if not message:
        os._exit(0)  # there will be no order
    if message == _IN_A_FILE:
        with socket.socket(fileno=os.dup(descriptor)) as host:
            file = socket.recv_fds(host, 1, 1)[1][0]
        with open(file, "rb") as large:
            message = _HERE + large.read()
    os.close(descriptor)
    return message[len(_HERE) :]


def file_in_memory(data: bytes) -> BinaryIO:
    """A file that holds this, to be read from its start."""
    file = open(os.memfd_create("order"), "w+b")  # noqa: SIM115 - the caller closes it
    file.write(data)
    file.seek(0)
    return file


# -- the process ---------------------------------------------------------------------------------------------


def become_snapshot(channel: int, host: int) -> NoReturn:
    """Turn this child, forked from the host, into the zygote."""
    _become_zygote(channel, host)


#: Turns a new interpreter into the zygote.
STARTER = """\
import sys
sys.path[:] = {path!r}
from executor_reference.zygote import become_fresh_zygote
become_fresh_zygote({channel}, {host}, {preload!r})
"""


def become_fresh_zygote(channel: int, host: int, preload: tuple[str, ...]) -> NoReturn:
    """Turn this new interpreter into the zygote.

    :param preload: modules that tasks find imported.
    """
    os.set_inheritable(channel, False)
    for module in preload:
        try:
            __import__(module)
        except Exception:  # a task that needs it will fail of that; the others need not
            sys.__excepthook__(*sys.exc_info())
    gc.collect()  # of what the start of an interpreter leaves
    _become_zygote(channel, host)


def _become_zygote(channel: int, host: int) -> NoReturn:
    try:
        os.setsid()
        die_with_parent(host)
        task.shed_the_host(keep={channel})
        with socket.socket(fileno=channel) as connection:
            zygote = _Zygote(connection)
            for _ in range(_UNTIL_FAST):
                task.rehearse()
            gc.freeze()  # a collection in a task would write to every page that is shared with it
            zygote.serve()
    except BaseException:
        sys.__excepthook__(*sys.exc_info())
    finally:
        os._exit(0)


#: A function is called so often before the interpreter has rewritten it to its fastest form.
_UNTIL_FAST = 10
#: Each is a mapping that a fork has to copy.
_NOTES_KEPT = 16


class _Zygote:
    """Raises spares on demand and tells how each ended."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._pid = os.getpid()
        self._children: dict[int, tuple[int, Note]] = {}  # by pid
        self._pids: dict[int, int] = {}  # by number
        self._notes: list[Note] = []  # which nobody writes on any more
        self._unsent: collections.deque[bytes] = collections.deque()
        # a byte arrives here whenever a child has ended
        self._ended, wakeup = os.pipe()
        os.set_blocking(self._ended, False)
        os.set_blocking(wakeup, False)
        self._descriptors = channel.fileno(), self._ended, wakeup
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Until the pill, or until the host is gone."""
        poll = select.poll()
        poll.register(self._ended, select.POLLIN)
        while True:
            # Nothing here ever waits for the host to read: it may be waiting for its messages to be read.
            poll.register(self._channel, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            ready = dict(poll.poll())
            if self._ended in ready:
                self._bury_the_dead()
            if ready.get(self._channel.fileno(), 0) & ~select.POLLOUT and not self._take_message():
                break
            self._send_news()
        for pid in self._children:
            kill_session(pid)
        for pid in self._children:
            os.waitpid(pid, 0)

    def _take_message(self) -> bool:
        try:
            message, ancillary, _, _ = self._channel.recvmsg(
                MESSAGE.size, socket.CMSG_SPACE(_DESCRIPTOR.size), socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            return False
        if not message:
            return False
        word, number = MESSAGE.unpack(message)
        descriptors = [_DESCRIPTOR.unpack(data)[0] for _, _, data in ancillary]
        if word in (RAISE, RAISE_INTERPRETER):
            if descriptors:
                self._raise(word, number, descriptors[0])
            else:
                self._say(number, "it could not be started: there is no descriptor left for it")
        elif word == KILL and number in self._pids:
            kill_session(self._pids[number])
        elif word == SURROUNDINGS and descriptors:
            with open(descriptors[0], "rb") as file:
                _take_surroundings(*pickle.load(file))
        return bool(word != PILL)

    def _raise(self, word: int, number: int, orders: int) -> None:
        try:
            note = self._notes.pop() if self._notes else Note()
            pid = os.fork()
        except OSError as error:  # out of processes or memory; the other tasks go on
            self._say(number, f"it could not be started: {error}")
        else:
            if pid == 0:
                wait = _await_interpreter if word == RAISE_INTERPRETER else self._await_order
                task.become_task(functools.partial(wait, orders), parent=self._pid, fail=note.write)
            self._children[pid] = number, note
            self._pids[number] = pid
        os.close(orders)

    def _await_order(self, orders: int) -> task.Instruction:
        # What a child still has of this process goes.
        signal.set_wakeup_fd(-1)
        task.reset_signal(signal.SIGCHLD)
        for descriptor in self._descriptors:
            os.close(descriptor)
        task.rehearse()  # what is written to, is copied now, and not when the order has come
        instruction: task.Instruction = pickle.loads(_receive_order(orders))
        return instruction

    def _bury_the_dead(self) -> None:
        os.read(self._ended, 1 << 16)
        while self._children:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            number, note = self._children.pop(ended.si_pid)
            del self._pids[number]
            reason = why_it_failed(reap(ended), note)
            self._say(number, reason)
            if reason is not None:
                note.clear()
            if len(self._notes) < _NOTES_KEPT:
                self._notes.append(note)

    def _say(self, number: int, reason: str | None) -> None:
        self._unsent.append(_NEWS.pack(number, reason is not None) + (reason or "").encode())

    def _send_news(self) -> None:
        try:
            while self._unsent:
                self._channel.send(self._unsent[0], socket.MSG_DONTWAIT)
                self._unsent.popleft()
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()  # the host no longer cares


def _take_surroundings(environment: dict[bytes, bytes], directory: bytes | None) -> None:
    for name in os.environb.keys() - environment.keys():
        del os.environb[name]
    os.environb.update(environment)
    if directory is not None:
        os.chdir(directory)


_INTERPRETER = os.path.join(os.path.dirname(__file__), "interpreter.py")

# -- spares --------------------------------------------------------------------------------------------------


def _await_interpreter(orders: int) -> task.Instruction:
    """The order is awaited by what replaces this process."""
    os.set_inheritable(orders, True)
    return task.EXECUTE, (sys.executable, _INTERPRETER, str(orders), str(LONGEST_MESSAGE))
