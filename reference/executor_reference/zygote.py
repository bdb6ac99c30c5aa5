"""The small process that makes processes ahead of demand, and what it says with the host.

It is told over one channel, a socket that keeps messages apart, to raise spares (whose ends of their order
sockets come with the message) or to kill one; and tells how each that has ended, ended.  It runs no task and
no code of the user's.  An order is for a spare alone: it goes from the host to the spare directly.

After a fork both processes copy each page that they write to, and the fork and the child's end cost more, the
more pages there are.  So several spares are raised in one go; what a spare does until its order comes is
short; and this imports what modules are made of (``_socket``, ``_signal``) where these would bring along
others that nobody needs here: ``enum`` and ``re`` have half as many pages as all of an interpreter.
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
from executor_reference.endings import Note, kill_session, reap, why_it_failed
from executor_reference.interpreter import find_function, receive
from executor_reference.linux import die_with_parent, unblock_signals, watch_children
from executor_reference.task import become_task

TYPE_CHECKING = False  # typing's own would import typing
if TYPE_CHECKING:
    from typing import NoReturn

#: To the zygote: a word, the number of a spare, and how many there are, with numbers from that one on.
MESSAGE = struct.Struct("<BQB")
RAISE, RAISE_INTERPRETER, KILL, SURROUNDINGS, PILL = range(5)
_DESCRIPTOR = struct.Struct("i")
#: So many spares can be raised by one message.
MOST_AT_ONCE = 16
#: From the zygote: the number of what has ended, and whether it failed; then why, as text.
_NEWS = struct.Struct("<Q?")
LONGEST_NEWS = 8192


def read_news(message: bytes) -> tuple[int, str | None]:
    """The number of what has ended, and why it failed; ``None`` for success."""
    number, failed = _NEWS.unpack_from(message)
    return number, message[_NEWS.size :].decode() if failed else None


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
        zygote = _Zygote(_socket.socket(fileno=channel))
        for _ in range(_UNTIL_FAST):
            _rehearse()
        gc.freeze()  # a collection in a task would write to every page that is shared with it
        zygote.serve()
    except BaseException:
        sys.__excepthook__(*sys.exc_info())
    finally:
        os._exit(0)


def _rehearse() -> None:
    """Do what a task does before and after its own work, so that children find all of it done once.

    The first call of anything writes to memory (the dynamic linker's tables, the interpreter's caches), which
    each child would else do for itself, to a copy of the page.
    """
    bytes(interpreter.LONGEST_MESSAGE)  # where an order will be put
    what, how = loads(_REHEARSAL[1:])
    if what == task.CALL:
        function, arguments = find_function(how)
        function(*arguments)


def _as_a_task(_: str) -> None:
    task.flush()


_REHEARSAL = b"!" + dumps((task.CALL, (__name__, (_as_a_task.__name__,), ("an argument",))))
#: A function is called so often before the interpreter has rewritten it to its fastest form.
_UNTIL_FAST = 10
#: Each is a mapping that a fork has to copy.
_NOTES_KEPT = 16


class _Zygote:
    """Raises spares on demand and tells how each ended."""

    def __init__(self, channel: _socket.socket) -> None:
        self._channel = channel
        self._pid = os.getpid()
        self._children: dict[int, tuple[int, Note]] = {}  # by pid
        self._pids: dict[int, int] = {}  # by number
        self._notes: list[Note] = []  # which nobody writes on any more
        self._unsent: list[bytes] = []
        self._ended = watch_children()
        self._order_socket = -1  # of the next child

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
            # Not socket.recv_fds(), which ignores the flag (python/cpython#107898).
            message, ancillary, _, _ = self._channel.recvmsg(
                MESSAGE.size, _socket.CMSG_SPACE(MOST_AT_ONCE * _DESCRIPTOR.size), _socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            return False
        if not message:
            return False
        word, number, count = MESSAGE.unpack(message)
        descriptors = [one for _, _, data in ancillary for (one,) in _DESCRIPTOR.iter_unpack(data)]
        if word in (RAISE, RAISE_INTERPRETER):
            self._raise(word, number, descriptors)
            for missing in range(number + len(descriptors), number + count):
                self._say(missing, "it could not be started: there is no descriptor left for it")
        elif word == KILL and number in self._pids:
            kill_session(self._pids[number])
        elif word == SURROUNDINGS and descriptors:
            with open(descriptors[0], "rb") as file:
                _take_surroundings(*loads(file.read()))
        return bool(word != PILL)

    def _raise(self, word: int, number: int, order_sockets: list[int]) -> None:
        wait = self._await_interpreter if word == RAISE_INTERPRETER else self._await_order
        self._to_close = [self._channel.fileno(), self._ended, *order_sockets]
        raised = []
        try:
            for self._order_socket in order_sockets:
                note = self._notes.pop() if self._notes else Note()
                pid = fork()
                if pid == 0:
                    become_task(wait, self._pid, note)
                raised.append((pid, note))
        except OSError as error:  # out of processes or memory; the other tasks go on
            for missing in range(number + len(raised), number + len(order_sockets)):
                self._say(missing, f"it could not be started: {error}")
        for raised_number, (pid, note) in enumerate(raised, number):
            self._children[pid] = raised_number, note
            self._pids[raised_number] = pid
        for order_socket in order_sockets:
            close(order_socket)

    def _await_order(self) -> task.Instruction:
        unblock_signals()
        order_socket = self._order_socket
        for descriptor in self._to_close:
            if descriptor != order_socket:
                close(descriptor)
        _rehearse()  # what is written to, is copied now, and not when the order has come
        what, with_ = receive(order_socket)
        return what, find_function(with_) if what == task.CALL else with_

    def _await_interpreter(self) -> task.Instruction:
        """The order is awaited by what replaces this process."""
        unblock_signals()
        os.set_inheritable(self._order_socket, True)
        return task.EXECUTE, (sys.executable, interpreter.__file__, str(self._order_socket))

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
                self._channel.send(self._unsent[0], _socket.MSG_DONTWAIT)
                del self._unsent[0]
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
