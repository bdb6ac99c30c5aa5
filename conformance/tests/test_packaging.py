"""Tests of the README on PyPI, of links into the repository, and of the package metadata."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
URL = "https://github.com/executor-conformance/executor-conformance"
#: All files that may contain links to this repository.
FILES = [
    REPOSITORY / "pyproject.toml",
    REPOSITORY / "CITATION.cff",
    *REPOSITORY.glob("*.md"),
    *REPOSITORY.glob("docs/**/*.md"),
    *REPOSITORY.glob(".github/**/*.md"),
    *REPOSITORY.glob(".github/**/*.yml"),
]


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def anchors(markdown: str) -> set[str]:
    """Return the fragments that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_in_the_readme_are_absolute() -> None:
    """PyPI shows the README without the files around it, and without GitHub's anchors."""
    prose = re.sub(r"^```.*?^```$", "", read("README.md"), flags=re.MULTILINE | re.DOTALL)
    defined = dict(re.findall(r"^\[([^\]]+)\]:\s*(\S+)", prose, re.MULTILINE))
    links = [*defined.values(), *re.findall(r"\]\(([^)\s]+)", prose)]
    links += re.findall(r'(?:href|src)="([^"]*)"', prose)
    assert links
    assert [link for link in links if not link.startswith("https://")] == []
    assert set(re.findall(r"\[[^\]]+\]\[([^\]]+)\]", prose)) == defined.keys()


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_into_the_repository_lead_to_files(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    for target, fragment in re.findall(rf"{URL}/(?:blob|tree|raw)/main/([\w./-]*\w)(?:#([\w-]+))?", text):
        assert (REPOSITORY / target).exists(), target
        assert not fragment or fragment in anchors(read(target)), f"{target}#{fragment}"


def test_project_urls() -> None:
    (urls,) = re.findall(r"^\[project\.urls\]\n(.*?)\n\n", read("pyproject.toml"), re.MULTILINE | re.DOTALL)
    labels = dict(re.findall(r'^(\w+) = "(.*)"$', urls, re.MULTILINE))
    assert labels.keys() == {"Homepage", "Documentation", "Specification", "Changelog", "Issues", "Source"}
    assert all(f"{url}/".startswith(f"{URL}/") for url in labels.values())


def test_citation_has_the_version_and_date_of_the_changelog() -> None:
    (version,) = re.findall(r'^version = "(.*)"$', read("pyproject.toml"), re.MULTILINE)
    (released,) = re.findall(rf"^## \[{re.escape(version)}\] - (.+)$", read("CHANGELOG.md"), re.MULTILINE)
    citation = dict(re.findall(r'^([\w-]+): "?([^"\n]+)"?$', read("CITATION.cff"), re.MULTILINE))
    assert citation["version"] == version
    assert citation.get("date-released", "unreleased") == released
