"""On another system than Linux: what needs none of it works, and the rest is one clear error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

#: Hides, from this interpreter, what only Linux (or only Unix) has.
HIDE = """
import importlib.abc, os, sys

class Hidden(importlib.abc.MetaPathFinder):
    names = {"fcntl", "resource", "termios", "pty", "psutil", "executor_conformance.harness"}

    def find_spec(self, name, path=None, target=None):
        if name in self.names:
            raise ModuleNotFoundError(f"No module named {name!r} on this system", name=name)

import pytest
for name in Hidden.names & set(sys.modules):
    del sys.modules[name]
sys.meta_path.insert(0, Hidden())
for name in ("fork", "forkpty", "pidfd_open", "memfd_create", "sched_getaffinity", "setsid", "mkfifo"):
    if hasattr(os, name):
        delattr(os, name)
sys.platform = "darwin"
"""


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HIDE + code],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def pytest_with(*arguments: str) -> str:
    words = ["-p", "executor_conformance.plugin", "-p", "no:cacheprovider", *arguments]
    return f"sys.exit(pytest.main({words!r}))"


def test_an_executor_is_one_usage_error(tmp_path: Path) -> None:
    done = run(pytest_with("--executor=concurrent.futures:ThreadPoolExecutor"), tmp_path)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("ERROR: ")]
    assert "--executor needs Linux" in line
    assert "this is darwin" in line
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("argument", "part"),
    [
        ("--explain=lifecycle.runs-a-task", "lifecycle.runs-a-task (must)"),
        ("--conformance-rules", "must    lifecycle.runs-a-task"),
    ],
)
def test_the_specification_can_be_read(tmp_path: Path, argument: str, part: str) -> None:
    done = run(pytest_with(argument), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert part in done.stdout


def test_a_mistyped_rule_gets_a_suggestion(tmp_path: Path) -> None:
    done = run(pytest_with("--explain=lifecycle.runs-a-tsk"), tmp_path)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "did you mean 'lifecycle.runs-a-task'" in done.stderr


def test_an_event_log_can_be_checked(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"event": "submitted", "key": "a"}\n{"event": "ended"}\n')
    done = run(
        "from executor_conformance.__main__ import main; sys.exit(main(['check-history', 'log.jsonl']))",
        tmp_path,
    )
    assert done.returncode == 1, done.stderr
    assert "1 violation" in done.stdout


def test_the_specification_can_be_written(tmp_path: Path) -> None:
    done = run("from executor_conformance.specification import main; main([])", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# The specification")


def test_reports_can_be_made_and_read(tmp_path: Path) -> None:
    done = run(
        """
from executor_conformance.report import WRITERS, Report
from executor_conformance.report.json_format import schema
from executor_conformance.rules import catalogue
from executor_conformance.verdicts import Finding, Verdict
machine = {"python": "3", "platform": "Darwin", "cpus": 2, "calibration": {}}
finding = (catalogue()["lifecycle.runs-a-task"], Finding(Verdict.PASSED))
report = Report("a:B", "native", None, {}, machine, "must", (finding,), 1, 7, "", 1.0, "pytest")
print(schema()["title"], *(len(writer(report.as_dict())) > 100 for writer in WRITERS.values()))
""",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Executor conformance report True True True\n"
