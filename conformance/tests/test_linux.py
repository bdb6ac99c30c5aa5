"""Tests of the calls to the system that the suite makes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_FORK = """
import os, signal
from executor_conformance.harness.linux import fork, set_signal_mask, signals_blocked

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started this in the background

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

{when}
pid = -1
try:
    with signals_blocked() as mask:
        pid = fork()
        if pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            set_signal_mask(mask)
            os._exit(7)
    print("not interrupted")
except KeyboardInterrupt:
    print("interrupted")
print("exit status of the child:", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print("masked:", signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""


@pytest.mark.parametrize(
    ("when", "first_line"),
    [
        ("os.register_at_fork(before=interrupt)", "interrupted"),
        ("os.register_at_fork(after_in_parent=interrupt)", "interrupted"),
        ("os.register_at_fork(after_in_child=interrupt)", "not interrupted"),
    ],
)
def test_ctrl_c_during_a_fork_is_for_the_parent_and_comes_afterwards(when: str, first_line: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _FORK.format(when=when)], capture_output=True, text=True, timeout=60
    )
    assert run.stdout.splitlines() == [first_line, "exit status of the child: 7", "masked: set()"]
    assert run.stderr == ""


_SHARE_A_PROCESSOR = """
import os, time
from executor_conformance.harness import processes

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
rival = os.fork()
while rival == 0:
    pass
began = time.process_time()
while time.process_time() - began < 0.3:
    pass
os.kill(rival, 9)
print(processes.waited_for_processors_s())
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="the kernel does not count this")
def test_the_wait_for_a_processor_is_counted() -> None:
    run = subprocess.run([sys.executable, "-c", _SHARE_A_PROCESSOR], capture_output=True, text=True)
    assert float(run.stdout) > 0.1, run.stderr


def test_a_process_without_the_rights_of_root_still_has_a_user_name() -> None:
    code = """
import getpass
from executor_conformance.harness.linux import obey_process_limits

name = getpass.getuser()
obey_process_limits()
assert getpass.getuser() == name
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("LOGNAME", "USER")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
