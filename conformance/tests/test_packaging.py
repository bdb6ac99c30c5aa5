"""The README as PyPI shows it, links into the repository, and the metadata that other tools read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
URL = "https://github.com/executor-conformance/executor-conformance"
#: Every file in which a link to this repository may go stale.
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
    """The fragments under which GitHub shows the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_in_the_readme_is_absolute() -> None:
    """PyPI shows the README without the files around it, and without GitHub's anchors."""
    prose = re.sub(r"^```.*?^```$", "", read("README.md"), flags=re.MULTILINE | re.DOTALL)
    defined = dict(re.findall(r"^\[([^\]]+)\]:\s*(\S+)", prose, re.MULTILINE))
    links = [*defined.values(), *re.findall(r"\]\(([^)\s]+)", prose)]
    links += re.findall(r'(?:href|src)="([^"]*)"', prose)
    assert links
    assert [link for link in links if not link.startswith("https://")] == []
    assert set(re.findall(r"\[[^\]]+\]\[([^\]]+)\]", prose)) == defined.keys()


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_link_into_the_repository_leads_to_a_file(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    for target, fragment in re.findall(rf"{URL}/(?:blob|tree|raw)/main/([\w./-]*\w)(?:#([\w-]+))?", text):
        assert (REPOSITORY / target).exists(), target
        assert not fragment or fragment in anchors(read(target)), f"{target}#{fragment}"


def test_the_project_has_the_links_that_pypi_shows() -> None:
    (urls,) = re.findall(r"^\[project\.urls\]\n(.*?)\n\n", read("pyproject.toml"), re.MULTILINE | re.DOTALL)
    labels = dict(re.findall(r'^(\w+) = "(.*)"$', urls, re.MULTILINE))
    assert labels.keys() == {"Homepage", "Documentation", "Specification", "Changelog", "Issues", "Source"}
    assert all(f"{url}/".startswith(f"{URL}/") for url in labels.values())


def test_the_citation_has_the_version_and_date_of_the_changelog() -> None:
    (version,) = re.findall(r'^version = "(.*)"$', read("pyproject.toml"), re.MULTILINE)
    (released,) = re.findall(rf"^## \[{re.escape(version)}\] - (.+)$", read("CHANGELOG.md"), re.MULTILINE)
    citation = dict(re.findall(r'^([\w-]+): "?([^"\n]+)"?$', read("CITATION.cff"), re.MULTILINE))
    assert citation["version"] == version
    assert citation.get("date-released", "unreleased") == released
