"""A host that comes along slowly: whoever it wakes is done before it takes its next step.

A machine with more to do than processors deals the processor like that now and then; here it is so each time.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from executor_conformance.harness.linux import sleep

#: Functions of the interpreter by which a thread tells something to a process or to another thread.
_TELLS = frozenset(
    {"kill", "put", "put_nowait", "release", "send", "sendall", "sendmsg", "send_signal", "write", "writev"}
)


class SlowPace:
    """Inside ``with``, threads can be slowed down: this one, and those that are started from now on.

    :param rest_s: seconds of rest after each step by which others may be woken.
    :param rests: of all threads together, for each time that it is slow.
    """

    def __init__(self, rest_s: float, rests: int) -> None:
        self._rest_s = rest_s
        self._rests = rests
        self._left = 0
        self._host = os.getpid()

    def __enter__(self) -> SlowPace:
        threading.setprofile(self._rest)
        return self

    def __exit__(self, *_: object) -> None:
        threading.setprofile(None)

    @contextlib.contextmanager
    def slow(self) -> Iterator[None]:
        """Go slowly meanwhile."""
        before = sys.getprofile()
        self._left = self._rests
        sys.setprofile(self._rest)
        try:
            yield
        finally:
            sys.setprofile(before)
            self._left = 0

    def _rest(self, frame: FrameType, event: str, function: Any) -> None:
        if event != "c_return" or self._left <= 0 or function.__name__ not in _TELLS:
            return
        told_nobody = isinstance(getattr(function, "__self__", None), io.IOBase)  # a log, mostly
        if told_nobody or os.getpid() != self._host:
            return
        self._left -= 1
        sleep(self._rest_s)
