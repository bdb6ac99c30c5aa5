"""Tests of the repository: the commands in the README, the license, the version, the links."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")]


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def test_readme_has_two_commands_and_ci_runs_the_second() -> None:
    judge, test = re.findall(r"^```sh\n(.*?)\n```$", read("README.md"), re.MULTILINE | re.DOTALL)
    assert "\n" not in judge + test
    assert "--executor=executor_reference:LocalExecutor" in judge
    assert test in read(".ci/run").splitlines()
    assert os.access(REPOSITORY / ".ci" / "run", os.X_OK)


def test_license_is_complete() -> None:
    text = read("LICENSE")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert 'license = "Apache-2.0"' in read("pyproject.toml")


def test_changelog_has_the_current_version() -> None:
    (version,) = re.findall(r'^version = "(.*)"$', read("pyproject.toml"), re.MULTILINE)
    assert f"## [{version}]" in read("CHANGELOG.md")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_to_files(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target
