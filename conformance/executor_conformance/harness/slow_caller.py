"""A slow caller: whatever it wakes up is done before the caller takes its next step.

A busy machine schedules a process like that now and then; here it happens each time, so a race between an
executor and its workers shows each time.
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

#: C functions by which a thread wakes a process or another thread.
_WAKING = frozenset(
    {"kill", "put", "put_nowait", "release", "send", "sendall", "sendmsg", "send_signal", "write", "writev"}
)


class SlowCaller:
    """Inside ``with``, threads can be slowed down: this one, and those that are started from then on.

    :param rest_s: seconds of sleep after each call that may wake others.
    :param rests: how many sleeps all threads together take, each time that it is slow.
    """

    def __init__(self, rest_s: float, rests: int) -> None:
        self._rest_s = rest_s
        self._rests = rests
        self._left = 0
        self._host = os.getpid()

    def __enter__(self) -> SlowCaller:
        threading.setprofile(self._rest)
        return self

    def __exit__(self, *_: object) -> None:
        threading.setprofile(None)

    @contextlib.contextmanager
    def slow(self) -> Iterator[None]:
        """Be slow meanwhile."""
        before = sys.getprofile()
        self._left = self._rests
        sys.setprofile(self._rest)
        try:
            yield
        finally:
            sys.setprofile(before)
            self._left = 0

    def _rest(self, frame: FrameType, event: str, function: Any) -> None:
        if event != "c_return" or self._left <= 0 or function.__name__ not in _WAKING:
            return
        wakes_nothing = isinstance(getattr(function, "__self__", None), io.IOBase)  # a log, mostly
        if wakes_nothing or os.getpid() != self._host:
            return
        self._left -= 1
        sleep(self._rest_s)
