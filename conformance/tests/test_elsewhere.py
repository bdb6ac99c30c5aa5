"""An executor whose workers the suite cannot see: judged by what can be seen, and by nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY, Command

from executor_conformance.requirements import Observation, TaskLocation
from executor_conformance.rules import catalogue

SEEING = [
    rule.id for rule in catalogue().values() if any(isinstance(need, Observation) for need in rule.needs)
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The path of a server's socket; its process is no descendant of the suite's."""
    path = str(tmp_path / "s")
    process = subprocess.Popen(
        [sys.executable, "-m", "fixtures.elsewhere", path],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield path
    process.kill()
    process.wait()
    process.stdout.close()


def test_workers_elsewhere_are_not_judged_and_never_pass(judge: Command, server: str) -> None:
    judged = judge(
        "--executor=fixtures.elsewhere:ElsewhereExecutor",
        f"--executor-option=address={server}",
        *("-k", "interface or lifecycle or shutdown or deaths or faults or idle-costs or leak"),
    )
    assert judged.report["executor"]["tasks"] == TaskLocation.ELSEWHERE.value
    assert "tasks: run outside the scheduler's process tree" in judged.stdout
    assert judged.rules("failed", "inconclusive", "blocked") == {}, judged.output
    not_applicable = judged.rules("not_applicable")
    selected = judged.rules()
    seeing = [rule_id for rule_id in SEEING if rule_id in selected]
    assert len(seeing) > 25
    for rule_id in seeing:
        assert rule_id in not_applicable
    reason = "tasks run outside the scheduler's process tree, where the suite cannot see them"
    assert reason in not_applicable["shutdown.end-leaves-no-worker"]
    assert reason in not_applicable["faults.a-killed-worker-fails-its-task"]
    assert len(judged.rules("passed")) > 30


def test_the_reason_is_in_the_specification_and_in_explain(pytester: pytest.Pytester) -> None:
    specification = (REPOSITORY / "docs" / "specification.md").read_text(encoding="utf-8")
    explained = pytester.runpytest_subprocess("--explain", "shutdown.end-leaves-no-worker").stdout.str()
    assert Observation.VISIBLE_WORKERS.value in specification
    assert Observation.VISIBLE_WORKERS.value in " ".join(explained.split())
