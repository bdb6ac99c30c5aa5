"""Tests of runs in unusual environments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PYTEST, Command

from executor_conformance.plugin import environment
from executor_conformance.plugin.environment import Environment


def test_probes_are_compiled_where_python_cannot_write_into_their_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environment, "cache_from_source", lambda path: str(tmp_path / "missing.pyc"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    changes = Environment()
    changes.compile_probes("compiled")
    assert os.environ["PYTHONPYCACHEPREFIX"] == "compiled"
    assert "PYTHONDONTWRITEBYTECODE" not in os.environ
    changes.restore()
    assert "PYTHONPYCACHEPREFIX" not in os.environ
    assert os.environ["PYTHONDONTWRITEBYTECODE"] == "1"


def test_nothing_changes_where_the_probes_are_compiled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environment, "cache_from_source", lambda path: str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    Environment().compile_probes("compiled")
    assert os.environ["PYTHONDONTWRITEBYTECODE"] == "1"


def test_a_caller_that_ignores_sigchld(tmp_path: Path) -> None:
    run = subprocess.run(
        [PYTEST, "--executor=concurrent.futures:ThreadPoolExecutor", "-k", "lifecycle.runs-a-task"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
        check=False,
    )
    assert "1 passed" in run.stdout, run.stdout + run.stderr


def test_what_the_executor_logs_is_not_kept(judge: Command) -> None:
    (judge.folder / "logs.py").write_text("""
import logging
from fixtures.plain import LocalExecutor

class Logs(LocalExecutor):
    def _end_task(self, key, before, reason):
        logging.getLogger("mine").warning("%s: %s", key, "x" * 16_000)
        super()._end_task(key, before, reason)
""")
    judged = judge("--executor=logs:Logs", "-k", "memory.host-memory-stops-growing")
    assert judged.status == 0


def test_paths_leave_room_for_sockets(judge: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENGTH_OF_TMPDIR", str(len(str(judge.folder / "tmp"))))
    (judge.folder / "paths.py").write_text("""
import os, tempfile
from fixtures.plain import LocalExecutor

class LooksAtItsTmpdir(LocalExecutor):
    def start(self):
        added = len(tempfile.gettempdir()) - int(os.environ["LENGTH_OF_TMPDIR"])
        assert added < 20, tempfile.gettempdir()
        super().start()
""")
    judged = judge("--executor=paths:LooksAtItsTmpdir", "-k", "lifecycle or model.random-sequences-keep")
    assert judged.status == 0


def test_pytest_timeout_leaves_rules_alone(judge: Command) -> None:
    """A plugin named like pytest-timeout checks the markers of the items."""
    (judge.folder / "conftest.py").write_text("""
import pytest

def pytest_configure(config):
    config.addinivalue_line("markers", "timeout(seconds): as pytest-timeout has it")
    config.pluginmanager.register(object(), "timeout")

@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    assert items
    for item in items:
        assert item.get_closest_marker("timeout").args == (0,)
""")
    judged = judge("--executor=concurrent.futures:ThreadPoolExecutor", "-k", "lifecycle.runs-a-task")
    assert judged.status == 0
