"""Tests of how a new interpreter waits for its order."""

from __future__ import annotations

import os
import socket

from executor_reference import interpreter


def test_it_exits_if_the_host_gives_up_in_the_middle_of_an_order() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        with ours:
            ours.send(interpreter.IN_A_FILE)
        pid = os.fork()
        if pid == 0:
            try:
                interpreter.receive(theirs.fileno())
            finally:
                os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
