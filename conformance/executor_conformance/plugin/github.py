"""What GitHub Actions shows of a run: the job summary, and annotations in the code of the executor.

Each of these is written by itself if the environment variables of GitHub Actions are set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from executor_conformance.report import markdown_format
from executor_conformance.verdicts import Verdict

_LEVELS = {"must": "error", "should": "warning", "may": "notice"}


def write_summary(data: Mapping[str, Any]) -> None:
    """Add the report to the summary of the job, if there is one.

    :param data: as the JSON report has it.
    """
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if path and os.environ.get("GITHUB_ACTIONS") == "true":
        with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(markdown_format.write(data))


def commands(data: Mapping[str, Any], source: tuple[str, int]) -> Iterator[str]:
    """Workflow commands that annotate the definition of the executor with each failure, ``must`` rules first.

    :param data: as the JSON report has it.
    :param source: file and line of the definition, if they are known.
    """
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    place = ""
    root = os.environ.get("GITHUB_WORKSPACE", os.getcwd())
    file, line = source
    if file and os.path.commonpath([root, os.path.abspath(file)]) == root:
        place = f"file={_property(os.path.relpath(file, root))},line={line},"
    for level, command in _LEVELS.items():
        for rule in data["rules"]:
            if rule["verdict"] == Verdict.FAILED and rule["level"] == level:
                yield f"::{command} {place}title={_property(rule['id'])}::{_text(rule['message'])}"


def _text(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _text(text).replace(":", "%3A").replace(",", "%2C")
