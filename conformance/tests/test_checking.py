"""Tests of ``executor_conformance.check()``."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import executor_conformance
from executor_conformance import NotConformant, check
from executor_reference import LocalExecutor

RULE, NAN = "lifecycle.runs-a-task", "parallelism.nan-is-rejected"


def by_two(parallelism: int = 2, retries: int = 0) -> LocalExecutor:
    return LocalExecutor(parallelism)


@pytest.mark.parametrize("factory", [LocalExecutor, by_two, "executor_reference:LocalExecutor"])
def test_a_right_executor(factory: Any) -> None:
    report = check(factory, rules=[RULE])
    assert [rule["verdict"] for rule in report["rules"]] == ["passed"]


def test_arguments_are_passed_on() -> None:
    report = check(by_two, rules=[RULE], arguments=["--executor-option=retries=3"], level="should")
    assert (report["executor"]["options"], report["level"]) == ({"retries": 3}, "should")


def test_a_failure_raises_with_the_summary() -> None:
    with pytest.raises(NotConformant, match=f"FAILED {NAN}") as caught:
        check(ThreadPoolExecutor, rules=[RULE, NAN])
    assert caught.value.report["conformant"] is False
    assert isinstance(caught.value, AssertionError)


@pytest.mark.parametrize(
    ("factory", "rules", "text"),
    [
        (lambda: None, [RULE], "is not at the top level of a module"),
        (LocalExecutor, ["lifecycle.runs-a-tsk"], "did you mean 'lifecycle.runs-a-task'?"),
        ("executor_reference:LocalExecuto", [RULE], "did you mean 'LocalExecutor'?"),
    ],
)
def test_what_cannot_be_used(factory: Any, rules: list[str], text: str) -> None:
    with pytest.raises(ValueError, match=text.replace("?", "[?]")):
        check(factory, rules=rules)


def test_the_package_imports_nothing_until_it_is_needed() -> None:
    code = (
        "import sys, executor_conformance; print([n for n in sys.modules if n.startswith('executor_conf')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['executor_conformance']"
    with pytest.raises(AttributeError, match="no attribute 'chek'"):
        executor_conformance.chek  # noqa: B018
