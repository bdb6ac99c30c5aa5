"""What the tests share: real runs of the command, in a process and a folder of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
#: The console script, which unlike ``python -m pytest`` adds nothing to ``sys.path``.
PYTEST = str(Path(sys.executable).with_name("pytest"))
#: In the environment of everything that a test starts, whatever becomes of it.
_MARK = "EXECUTOR_CONFORMANCE_TEST_RUN"
_CLEARED = (
    "PYTEST_ADDOPTS",
    "PYTEST_PLUGINS",
    "PYTEST_CURRENT_TEST",
    "PYTEST_XDIST_WORKER",
    "COVERAGE_PROCESS_START",
)


#: Tests that run the suite for long.
_LONG = (
    "test_containment.py",
    "test_command.py",
    "test_legal.py",
    "test_broken.py",
    "test_model.py",
    "test_plugin.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first for each worker, which is dealt a stretch of the list to begin with."""
    items.sort(key=lambda item: _LONG.index(item.path.name) if item.path.name in _LONG else len(_LONG))
    hands = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    items[:] = [item for first in range(hands) for item in items[first::hands]]


@dataclass
class Judged:
    """One run of the command: what it printed, how it ended, and the report if it wrote one."""

    status: int
    stdout: str
    stderr: str
    seconds: float
    report_path: Path
    report: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        text = self.report_path.read_text() if self.report_path.exists() else "{}"
        self.report = json.loads(text)

    @property
    def output(self) -> str:
        """All that was printed."""
        return self.stdout + self.stderr

    def rules(self, *verdicts: str) -> dict[str, str]:
        """Rule id -> message, of the rules with these verdicts (all rules by default)."""
        return {
            rule["id"]: rule["message"]
            for rule in self.report["rules"]
            if not verdicts or rule["verdict"] in verdicts
        }


@dataclass(frozen=True)
class Command:
    """Runs ``pytest`` in ``folder``, and knows what it started."""

    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(self, *arguments: str, folder: Path | None = None) -> subprocess.Popen[str]:
        """Start it and leave it running."""
        environment = {name: value for name, value in os.environ.items() if name not in _CLEARED}
        # its own temporary directory, so that what is left there is seen
        (self.folder / "tmp").mkdir(exist_ok=True)
        environment |= {
            _MARK: self.mark,
            "PYTHONPATH": f"{REPOSITORY / 'fixtures'}{os.pathsep}{REPOSITORY}",
            "TMPDIR": str(self.folder / "tmp"),
        }
        return subprocess.Popen(
            [PYTEST, *arguments],
            cwd=folder or self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell starts what runs in the background with Ctrl-C ignored, and that is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def __call__(self, *arguments: str, folder: Path | None = None, timeout: float = 900) -> Judged:
        """Run it to its end, with a JSON report."""
        report = self.folder / "report-of-the-test.json"
        report.unlink(missing_ok=True)
        began = time.monotonic()
        process = self.start(*arguments, f"--conformance-report={report}", folder=folder)
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        finally:
            process.kill()
            process.wait()
        judged = Judged(process.returncode, stdout, stderr, time.monotonic() - began, report)
        print(f"{judged.seconds:.1f} s, status {judged.status}, {' '.join(arguments)}\n{judged.output}")
        return judged

    def left_alive(self) -> list[str]:
        """Everything that this command started, directly or not, and that still runs."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"{process.pid} {' '.join(process.cmdline())[:100]}")
            except psutil.Error:
                pass
        return found

    def left_in_tmp(self) -> list[str]:
        """Names that it left in its directory for temporary files."""
        return sorted(os.listdir(self.folder / "tmp"))

    def kill_what_is_left(self) -> None:
        """Only in case that a test has failed."""
        for line in self.left_alive():
            try:
                os.kill(int(line.split()[0]), 9)
            except ProcessLookupError:
                pass


@pytest.fixture
def judge(pytester: pytest.Pytester) -> Iterator[Command]:
    """The command, in the folder of ``pytester``."""
    command = Command(pytester.path)
    yield command
    command.kill_what_is_left()


@pytest.fixture
def eventually() -> Callable[[Callable[[], object], float], bool]:
    """Wait for something that another process does; says whether it came true."""

    def wait(condition: Callable[[], object], seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
        return True

    return wait
