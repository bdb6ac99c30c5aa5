"""Tests of the smaller examples."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from executor_reference import AsyncExecutor, TaskKey

_ROOT = Path(__file__).resolve().parents[1]


def test_failed_transactions_are_rolled_back(tmp_path: Path) -> None:
    pytest.importorskip("aiosqlite")
    from examples.database import run

    counts, agree = asyncio.run(run(tmp_path / "bank.db", tasks=200, connections=3))
    assert agree
    assert set(counts) == {"success", "failed"}


def test_changed_dag_file_runs_again_and_terminate_stops_the_watch(tmp_path: Path) -> None:
    pytest.importorskip("watchfiles")
    from examples.watch_dags import WATCH, Event, watch

    file = tmp_path / "a_dag.py"
    file.write_text("pass")
    reports: list[tuple[TaskKey, Event]] = []

    def report(executor: AsyncExecutor, key: TaskKey, event: Event) -> None:
        reports.append((key, event))
        if len(reports) == 1:
            file.write_text("raise SystemExit(3)")
        elif len(reports) == 2:
            executor.terminate()

    asyncio.run(watch(tmp_path, report, poll_ms=200))
    assert reports == [
        (TaskKey("dag_files", "a_dag.py", "change", 1), ("success", None)),
        (TaskKey("dag_files", "a_dag.py", "change", 2), ("failed", "exit status 3")),
        (WATCH, ("failed", "terminated")),
    ]


def test_ctrl_c_stops_the_watch_and_its_programs(tmp_path: Path) -> None:
    pytest.importorskip("watchfiles")
    (tmp_path / "a_dag.py").write_text(
        "import os, time\nprint('pid', os.getpid(), flush=True)\ntime.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "examples.watch_dags", str(tmp_path)],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        word, number = process.stdout.readline().split()
        assert word == "pid"
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate()
    assert process.returncode == 0
    assert set(output.splitlines()) == {
        "a_dag.py, change 1: failed terminated",
        "watch, change 1: failed terminated",
    }
    with pytest.raises(ProcessLookupError):
        os.kill(int(number), 0)
