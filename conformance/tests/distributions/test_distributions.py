"""Tests of the built sdist and wheel: their contents, and that the installed wheel runs.

They run only in the ``package`` environment of tox, which builds both into ``dist/`` first.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
DIST = REPOSITORY / "dist"
(VERSION,) = re.findall(
    r'^version = "(.*)"$', (REPOSITORY / "pyproject.toml").read_text("utf-8"), re.MULTILINE
)
NAME = f"executor_conformance-{VERSION}"
SDIST = DIST / f"{NAME}.tar.gz"
WHEEL = DIST / f"{NAME}-py3-none-any.whl"
#: The directories of the two packages.  Paths in the wheel start below their parents.
PACKAGES = ("conformance/executor_conformance/", "reference/executor_reference/")


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    """Return the paths of all files in the repository."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout, so there is nothing to compare with")
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=REPOSITORY, text=True)
    return set(filter(None, listed.split("\0")))


def test_dist_has_one_sdist_and_one_wheel() -> None:
    """Any other file would be uploaded too."""
    assert sorted(path.name for path in DIST.iterdir()) == sorted([SDIST.name, WHEEL.name])


def test_sdist_is_the_repository(tracked: set[str]) -> None:
    with tarfile.open(SDIST) as archive:
        files = {member.name.removeprefix(f"{NAME}/"): member for member in archive if not member.isdir()}
        assert files.keys() - {"PKG-INFO"} == tracked
        for name in tracked:
            content = archive.extractfile(files[name])
            assert content is not None, name
            assert content.read() == (REPOSITORY / name).read_bytes(), f"{name} differs; build it again"


def test_wheel_has_exactly_the_two_packages(tracked: set[str]) -> None:
    with zipfile.ZipFile(WHEEL) as archive:
        files = set(archive.namelist())
    metadata = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
    packaged = {name.partition("/")[2] for name in tracked if name.startswith(PACKAGES)}
    assert files == packaged | {f"{NAME}.dist-info/{name}" for name in metadata}


def test_wheel_has_the_data_files() -> None:
    with zipfile.ZipFile(WHEEL) as archive:
        data = {name for name in archive.namelist() if ".dist-info/" not in name and not name.endswith(".py")}
    assert {"executor_conformance/py.typed", "executor_reference/py.typed"} <= data
    assert any(name.endswith("/schema-v1.json") for name in data)
    assert any(name.endswith("/report.html") for name in data)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel in a new virtual environment; return its scripts directory."""
    environment = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    scripts = environment / "bin"
    subprocess.run([scripts / "pip", "install", "--quiet", WHEEL], check=True)
    return scripts


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        pytest.param(["--conformance-rules"], "lifecycle.runs-a-task", id="list"),
        pytest.param(["--explain", "lifecycle.runs-a-task"], "lifecycle.runs-a-task", id="explain"),
        pytest.param(
            ["--executor=executor_reference:LocalExecutor", "-k", "lifecycle.runs-a-task"],
            "executor_reference:LocalExecutor",
            id="run",
        ),
    ],
)
def test_installed_wheel_runs(installed: Path, tmp_path: Path, arguments: list[str], printed: str) -> None:
    ended = subprocess.run([installed / "pytest", *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert printed in ended.stdout
