"""A run that a server has forked is as one of ``python -m pytest``."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from conftest import REPOSITORY, Mailbox

from fixtures.pytest_server import Server

#: Far more than any of these runs needs.
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    environment = {
        name: text for name, text in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))
    }
    server = Server({**environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    yield server
    server.close()


def run(
    server: Server, folder: Path, *arguments: str, timeout_s: float = PATIENCE_S
) -> tuple[int | None, str]:
    with tempfile.TemporaryFile() as output:
        status = server.run(arguments, directory=str(folder), output=output, timeout_s=timeout_s)
        output.seek(0)
        return status, output.read().decode()


@pytest.mark.parametrize(
    ("test", "status", "seen"),
    [
        ("print('here'); assert False", pytest.ExitCode.TESTS_FAILED, "here"),
        ("print(os.getcwd()); assert os.getcwd() not in __file__", 1, "test_it.py"),
        ("assert sys.modules['__main__'].__spec__.name == 'pytest.__main__'", 0, "1 passed"),
        ("assert os.getsid(0) == os.getpid()", 0, "1 passed"),
        ("assert not sys.stdin.read()", 0, "1 passed"),
        ("os._exit(7)", 7, ""),
        ("os.kill(os.getpid(), 9)", -9, ""),
    ],
)
def test_it_has_its_own_status_folder_and_output(
    server: Server, tmp_path: Path, test: str, status: int, seen: str
) -> None:
    (tmp_path / "test_it.py").write_text(f"import os, sys\n\ndef test_it():\n    {test}\n")
    found, output = run(server, tmp_path, "-s", "-p", "no:cacheprovider", "test_it.py")
    assert found == status, output
    assert seen in output


@pytest.mark.parametrize("arguments", [["--version"], ["--nosuchoption"], []])
def test_a_run_leaves_nothing_for_the_next(server: Server, tmp_path: Path, arguments: Sequence[str]) -> None:
    first, second = run(server, tmp_path, *arguments), run(server, tmp_path, *arguments)
    assert first[0] == second[0]
    assert first[1].splitlines()[:4] == second[1].splitlines()[:4]


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    (tmp_path / "test_it.py").write_text(
        "import os, signal\n\n"
        "def test_it():\n"
        "    open('pid', 'w').write(f'{os.getpid()}\\n')\n"
        "    while True: signal.pause()\n"
    )
    return tmp_path


def test_a_run_that_takes_too_long_is_killed(server: Server, endless: Path) -> None:
    assert run(server, endless, "test_it.py", timeout_s=0.01)[0] is None
    assert run(server, endless, "--version")[0] == 0


CLIENT = """
import os, sys, tempfile
from fixtures.pytest_server import Server
with tempfile.TemporaryFile() as output:
    Server(os.environ).run(["test_it.py"], directory=sys.argv[1], output=output, timeout_s=float(sys.argv[2]))
"""


def test_a_run_ends_with_its_client(endless: Path, mailbox: Callable[[Path], Mailbox]) -> None:
    pid = mailbox(endless / "pid")
    client = subprocess.Popen([sys.executable, "-c", CLIENT, str(endless), str(PATIENCE_S)], cwd=REPOSITORY)
    try:
        run = psutil.Process(int(pid.line(PATIENCE_S)))
    finally:
        client.kill()
        client.wait()
    run.wait(PATIENCE_S)
