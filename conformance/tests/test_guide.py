"""Tests that the code in the guide works: its adapter tests executors of an unknown family."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")

#: An executor of an unknown family: it uses threads, names as keys, and returns a list of ended tasks.
RUNNERS = """
import queue, threading

class Runner:
    def __init__(self, threads=4):
        if type(threads) is not int or not 1 <= threads <= 64:
            raise ValueError(f"threads must be from 1 to 64, got {threads!r}")
        self._size, self._threads, self._open = threads, [], False
        self._work, self._ended = queue.SimpleQueue(), queue.SimpleQueue()

    def open(self):
        if not self._threads:
            self._open = True
            for _ in range(self._size):
                thread = threading.Thread(target=self._serve, daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the system is out of threads
                    self.close()
                    raise
                self._threads.append(thread)

    def _serve(self):
        while (order := self._work.get()) is not None:
            name, function = order
            try:
                function()
            except BaseException as error:
                self._ended.put((name, error))
            else:
                self._ended.put((name, None))

    def submit(self, name, function):
        if not self._open:
            raise RuntimeError("not open")
        self._work.put((name, function))

    def poll(self):
        return [self._ended.get() for _ in range(self._ended.qsize())]

    def close(self):
        if self._open:
            self._open = False
            for _ in self._threads:
                self._work.put(None)
            for thread in self._threads:
                thread.join()
"""


def python_blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", python_blocks())
def test_python_code_of_the_guide_compiles(block: str) -> None:
    compile(block, "docs/guide.md", "exec")


def test_adapter_of_the_guide_works(tmp_path: Path) -> None:
    (adapter,) = (block for block in python_blocks() if "class RunnerAdapter" in block)
    (tmp_path / "runners_conformance.py").write_text(adapter)
    (tmp_path / "runners.py").write_text(RUNNERS)
    installed = tmp_path / "runners-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: runners\nVersion: 1.0\n")
    (entry_points,) = re.findall(r"^runners = .*$", GUIDE, re.MULTILINE)
    section = "[executor_conformance.adapters]"
    (installed / "entry_points.txt").write_text(f"{section}\n{entry_points.replace(chr(34), '')}\n")
    report = tmp_path / "report.json"
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--executor=runners:Runner", f"--conformance-report={report}"],
        cwd=tmp_path,
        env={**inherited, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    data = json.loads(report.read_text())
    assert data["executor"]["adapter"] == "runners"
    assert data["executor"]["distribution"] is None
    failed = {rule["id"]: rule["message"] for rule in data["rules"] if rule["verdict"] == "failed"}
    # A runner knows its tasks by name only, so it cannot detect a key that is in flight or has an event.
    by_key = {"states.no-concurrent-runs-of-one-key", "states.a-key-submitted-again-loses-no-unread-event"}
    assert set(failed) <= by_key, done.stdout
    assert data["summary"]["must"]["passed"] > 25


def test_guide_has_every_option_and_ini_key() -> None:
    text = subprocess.run(
        [sys.executable, "-m", "pytest", "--help"], capture_output=True, text=True, check=True
    ).stdout
    options = set(re.findall(r"^ +(--(?:executor|conformance|explain)[a-z-]*)", text, re.MULTILINE))
    ini_keys = set(re.findall(r"^ +(executor\w*|conformance_\w+)(?= \(|:)", text, re.MULTILINE))
    assert {"--executor", "--explain", "executor", "conformance_level"} <= options | ini_keys
    assert not [name for name in options | ini_keys if f"`{name}" not in GUIDE]
