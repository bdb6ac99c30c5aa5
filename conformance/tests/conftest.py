"""Fixtures that run the real command, in its own process and folder."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from fixtures.judging import turn

REPOSITORY = Path(__file__).resolve().parents[2]
#: The console script, which unlike ``python -m pytest`` adds nothing to ``sys.path``.
PYTEST = str(Path(sys.executable).with_name("pytest"))
#: An environment variable of all processes that a test starts, by which they are found afterwards.
_MARK = "EXECUTOR_CONFORMANCE_TEST_RUN"
_CLEARED = (
    "PYTEST_PLUGINS",
    "PYTEST_CURRENT_TEST",
    "PYTEST_XDIST_WORKER",
    "COVERAGE_PROCESS_START",
)
#: These plugins import Trio and Hypothesis, which takes almost as long as the rest of a short run.  The tests
#: that start ``python -m pytest`` themselves run with all installed plugins.
_WITHOUT_PLUGINS = "-p no:anyio -p no:hypothesispytest"

#: The tests that take longest, because they run the suite.
_LONG = (
    "test_containment.py",
    "test_command.py",
    "test_legal.py",
    "test_broken.py",
    "test_model.py",
    "test_plugin.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the slow tests to the workers first, those of all files mixed: each worker starts with a part of
    the list.

    Some of them keep a processor busy, and most of the others wait, so both kinds should run at any time.
    """
    count = Counter(item.path for item in items)
    seen: Counter[Path] = Counter()
    places = {}
    for item in items:
        places[item] = item.path.name not in _LONG, seen[item.path] / count[item.path]
        seen[item.path] += 1
    items.sort(key=places.__getitem__)
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    items[:] = [item for first in range(workers) for item in items[first::workers]]


@dataclass
class Judged:
    """One run of the command: its output, its exit status, and its report if it wrote one."""

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
        """Everything that the command printed."""
        return self.stdout + self.stderr

    def rules(self, *verdicts: str) -> dict[str, str]:
        """Return rule id -> message, for the rules with these verdicts (by default, for all rules)."""
        return {
            rule["id"]: rule["message"]
            for rule in self.report["rules"]
            if not verdicts or rule["verdict"] in verdicts
        }


@dataclass(frozen=True)
class Command:
    """Runs ``pytest`` in ``folder``, and finds the processes that it started."""

    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(
        self,
        *arguments: str,
        folder: Path | None = None,
        wrapper: Sequence[str] = (),
        program: str = PYTEST,
    ) -> subprocess.Popen[str]:
        """Start the command, and do not wait for it.

        :param wrapper: a program, with its arguments, that runs the command.
        :param program: what gets the arguments.
        """
        environment = {name: value for name, value in os.environ.items() if name not in _CLEARED}
        # Its own temporary directory, to find the files that it leaves there.
        (self.folder / "tmp").mkdir(exist_ok=True)
        environment |= {
            _MARK: self.mark,
            "PYTEST_ADDOPTS": _WITHOUT_PLUGINS,
            "PYTHONPATH": f"{REPOSITORY / 'fixtures'}{os.pathsep}{REPOSITORY}",
            "TMPDIR": str(self.folder / "tmp"),
        }
        return subprocess.Popen(
            [*wrapper, program, *arguments],
            cwd=folder or self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell starts background jobs with SIGINT ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def __call__(
        self,
        *arguments: str,
        folder: Path | None = None,
        wrapper: Sequence[str] = (),
        timeout: float = 900,
        alone: bool = False,
    ) -> Judged:
        """Run the command to completion, with a JSON report.

        :param wrapper: a program, with its arguments, that runs the command.
        :param timeout: seconds.
        :param alone: while no other test runs the suite.
        """
        with turn(alone=alone):
            return self._run(arguments, folder, wrapper, timeout)

    def _run(
        self, arguments: Sequence[str], folder: Path | None, wrapper: Sequence[str], timeout: float
    ) -> Judged:
        report = self.folder / "report-of-the-test.json"
        report.unlink(missing_ok=True)
        began = time.monotonic()
        process = self.start(*arguments, f"--conformance-report={report}", folder=folder, wrapper=wrapper)
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        finally:
            process.kill()
            process.wait()
        judged = Judged(process.returncode, stdout, stderr, time.monotonic() - began, report)
        print(f"{judged.seconds:.1f} s, status {judged.status}, {' '.join(arguments)}\n{judged.output}")
        return judged

    def left_alive(self, timeout: float = 0.0) -> list[str]:
        """Return the processes that this command started, directly or indirectly, and that still run.

        :param timeout: wait this many seconds for them to end.
        """
        until = time.monotonic() + timeout
        while (found := self._running()) and time.monotonic() < until:
            psutil.wait_procs(found, timeout=until - time.monotonic())
        return [f"{process.pid} {_command_line(process)[:100]}" for process in found]

    def _running(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                pass
        return found

    def left_in_tmp(self) -> list[str]:
        """Return the names of the files that it left in its temporary directory."""
        return sorted(os.listdir(self.folder / "tmp"))

    def kill_what_is_left(self) -> None:
        """Kill the processes that a failed test may have left."""
        for line in self.left_alive():
            try:
                os.kill(int(line.split()[0]), 9)
            except ProcessLookupError:
                pass


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return "(ended)"


@pytest.fixture
def judge(pytester: pytest.Pytester) -> Iterator[Command]:
    """Return the command, in the folder of ``pytester``."""
    command = Command(pytester.path)
    yield command
    command.kill_what_is_left()


class Mailbox:
    """A FIFO to which processes under test write lines."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        # Also open for writing, so that neither opening nor reading depends on whether there is a writer.
        self._file = os.fdopen(os.open(path, os.O_RDWR), "rb", buffering=0)

    def line(self, timeout: float) -> str:
        """Return the next line.

        :raises TimeoutError: there is none within this many seconds.
        """
        if not select.select([self._file], [], [], timeout)[0]:
            raise TimeoutError(f"no line after {timeout} s")
        return self._file.readline().decode().strip()

    def close(self) -> None:
        self._file.close()


@pytest.fixture
def mailbox() -> Iterator[Callable[[Path], Mailbox]]:
    """Return a function that creates a mailbox at a path."""
    with contextlib.ExitStack() as stack:
        yield lambda path: stack.enter_context(contextlib.closing(Mailbox(path)))
