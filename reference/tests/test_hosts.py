"""Tests of the outcomes in hosts whose signals, descriptors or children are not the usual ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hosts
from executor_reference import LocalExecutor, launch, linux
from executor_reference.endings import STATUS_LOST

_METHODS = ["fork", "snapshot", "forkserver", "spawn", "async"]
#: Only a bound for a test that hangs, in seconds.
_TIMEOUT_S = 60


def _outcomes(state: str, method: str, folder: Path, *shell: str) -> dict[str, Any]:
    """Run a host; return the event of each command."""
    script, result = Path(hosts.__file__), folder / "result"
    done = subprocess.run(
        [*shell, sys.executable, script, state, method, result],
        env={**os.environ, "PYTHONPATH": str(script.parent)},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name: tuple(event) for name, event in json.loads(result.read_text()).items()}


def _expected(method: str) -> dict[str, Any]:
    success = ("success", None)
    expected = {
        "program": success,
        "program-fails": ("failed", "exit status 3"),
        "program-dies": ("failed", "killed by SIGKILL"),
        "callable": success,
        "callable-exits": ("failed", "SystemExit: 4" if method == "async" else "exit status 4"),
        "callable-raises": ("failed", "exit status 1" if method == "spawn" else "RuntimeError: on purpose"),
        "callable-leaves": ("failed", "exit status 5"),
        "callable-dies": ("failed", "killed by SIGSEGV"),
        "module": success,
        "module-exits": ("failed", "exit status 6"),
        "uses-its-streams": success,
        "prints": success,
    }
    if method == "async":
        for name in hosts.NOT_IN_THE_HOST:
            del expected[name]
    return expected


def _assert_exact(method: str, outcomes: dict[str, Any]) -> None:
    state, reason = outcomes.pop("program-is-missing")
    assert state == "failed"
    assert "No such file or directory" in reason
    assert outcomes == _expected(method)


@pytest.mark.parametrize("method", _METHODS)
def test_outcomes_are_exact_if_the_host_ignores_sigchld(method: str, tmp_path: Path) -> None:
    _assert_exact(method, _outcomes("ignore_sigchld", method, tmp_path))


@pytest.mark.parametrize("method", _METHODS)
def test_outcomes_are_exact_if_the_host_was_started_with_sigchld_ignored(method: str, tmp_path: Path) -> None:
    shell = ["/bin/sh", "-c", "trap '' CHLD; exec \"$@\"", "sh"]
    _assert_exact(method, _outcomes("do_nothing", method, tmp_path, *shell))


@pytest.mark.parametrize("method", _METHODS)
def test_outcomes_are_exact_without_standard_descriptors(method: str, tmp_path: Path) -> None:
    _assert_exact(method, _outcomes("close_standard_descriptors", method, tmp_path))


@pytest.mark.parametrize("method", _METHODS)
def test_host_that_waits_for_any_child(method: str, tmp_path: Path) -> None:
    """Outcomes are exact, except where only the kernel knew them: then the task is failed, and says why."""
    outcomes = _outcomes("wait_for_any_child", method, tmp_path)
    missing = outcomes.pop("program-is-missing")
    expected = _expected(method)
    assert missing[0] == "failed"
    assert outcomes.keys() == expected.keys()
    lost = {name: event for name, event in outcomes.items() if event != expected[name]}
    if method in ("snapshot", "forkserver", "spawn"):
        assert lost == {}
    for name, (state, reason) in lost.items():
        assert state == "failed"
        assert "exit status was lost" in reason
        is_a_program = name.startswith(
            ("program", "uses") if method == "fork" else ("program", "uses", "module")
        )
        assert is_a_program or name in hosts.NOT_IN_THE_HOST


def test_lost_status_is_a_failure_unless_the_task_has_reported_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with other code that waits for any child, before Linux 6.15."""
    monkeypatch.setattr(launch, "statuses_are_discarded", lambda: False)
    monkeypatch.setattr(launch, "status_of_reaped", lambda pidfd: None)
    previous = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        executor = LocalExecutor(2, "fork")
        executor.start()
        for name, command in hosts.COMMANDS.items():
            executor.execute_async(name, command)
        executor.end()
    finally:
        signal.signal(signal.SIGCHLD, previous)
    events = executor.get_event_buffer()
    expected = _expected("fork")
    lost = {name for name, event in events.items() if event == ("failed", STATUS_LOST)}
    assert lost == {"program", "program-fails", "program-dies", "uses-its-streams", *hosts.NOT_IN_THE_HOST}
    assert all(events[name] == expected[name] for name in expected.keys() - lost)
    assert "No such file" in events["program-is-missing"][1]


def test_kernel_knows_how_a_reaped_child_ended() -> None:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 7"], {})
    pidfd = os.pidfd_open(pid)
    try:
        assert os.waitpid(pid, 0) == (pid, 7 << 8)
        assert linux.status_of_reaped(pidfd) in (7 << 8, None)  # None: before Linux 6.15
    finally:
        os.close(pidfd)
