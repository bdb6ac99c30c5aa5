"""Tests of the calls to the system that the suite makes."""

from __future__ import annotations

import subprocess
import sys

#: A signal that comes in the middle of a fork, where Python runs functions of others.
_INTERRUPTED_FORK = """
import os, signal
from executor_conformance.harness.linux import fork

os.register_at_fork(before=lambda: os.kill(os.getpid(), signal.SIGINT))
try:
    if fork() == 0:
        os._exit(0)
except KeyboardInterrupt:
    print("interrupted")
else:
    print("the interrupt was lost")
"""


def test_ctrl_c_is_not_lost_in_a_fork() -> None:
    run = subprocess.run([sys.executable, "-c", _INTERRUPTED_FORK], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("interrupted\n", "")
