"""Tests of the suite on the LocalExecutor of Airflow 2.11.2: known defects fail, everything else passes.

They run only in the ``airflow211`` environment of tox, because Airflow is large and a run takes minutes.  All
rules run with forked tasks, and some of them also with a new interpreter for each task.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import tomllib

_CAUSES = Path(__file__).resolve().parents[3] / "benchmarks" / "causes.toml"
#: The id of a rule -> the cause of its failure.
KNOWN_DEFECTS: dict[str, str] = tomllib.loads(_CAUSES.read_text(encoding="utf-8"))["airflow-2.11.2-local"]

#: Rules that have to pass.
PASSING_RULES = {
    "lifecycle.runs-a-task",
    "lifecycle.constructor-acquires-no-resources",
    "states.an-exception-is-a-failure",
    "states.exactly-one-terminal-event",
    "states.events-carry-the-submitted-key",
    "states.dag-filter-drains-only-matching-events",
    "states.a-burst-is-reported-completely",
    "parallelism.at-most-n-tasks-run-at-once",
    "parallelism.n-tasks-run-at-once",
    "parallelism.negative-is-rejected",
    "parallelism.unlimited-mode-has-no-hidden-limit",
    "parallelism.higher-priority-first",
    "parallelism.slot-counts-are-accurate",
    "parallelism.running-is-accurate",
    "shutdown.end-leaves-no-worker",
    "shutdown.interpreter-exit-does-not-hang",
    "faults.other-tasks-survive-a-worker-death",
    "faults.a-large-backlog-does-not-block-submit",
    "faults.large-output-does-not-block-the-task",
    "isolation.module-changes-do-not-leak-between-tasks",
}

#: The verdicts with a new interpreter for each task.
WITH_NEW_INTERPRETERS = {
    "lifecycle.runs-a-task": "passed",
    "states.exit-status-decides-the-outcome": "passed",
    "states.system-exit-maps-to-its-exit-status": "passed",
    "states.death-by-signal-is-a-failure": "passed",
    "parallelism.unlimited-mode-has-no-hidden-limit": "passed",
    "parallelism.slot-counts-are-accurate": "passed",
    "isolation.module-changes-do-not-leak-between-tasks": "passed",
    "isolation.tasks-do-not-read-host-stdin": "failed",
    "faults.a-killed-worker-fails-its-task": "failed",
    "faults.no-task-outlives-its-killed-worker": "failed",
    "shutdown.end-finishes-queued-tasks": "failed",
}


def _judge(folder: Path, *arguments: str, new_interpreters: bool = False) -> dict[str, Any]:
    assert metadata.version("apache-airflow") == "2.11.2", "KNOWN_DEFECTS are those of this version"
    path = folder / "report.json"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))
    }
    environment["AIRFLOW__CORE__EXECUTE_TASKS_NEW_PYTHON_INTERPRETER"] = str(new_interpreters)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider"),
            "--executor=airflow.executors.local_executor:LocalExecutor",
            f"--conformance-report={path}",
            "--conformance-time-limit=1500",
            *arguments,
        ],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    keep = os.environ.get("CONFORMANCE_OUTPUT")
    if keep:
        with open(keep, "a", encoding="utf-8") as file:
            file.write(done.stdout)
    assert path.exists(), done.stdout
    assert done.returncode == 1, done.stdout
    assert ("(new interpreters)" in done.stdout) is new_interpreters, done.stdout
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


def _verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {rule["id"]: rule["verdict"] for rule in report["rules"]}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return _judge(tmp_path_factory.mktemp("airflow211"))


@pytest.fixture(scope="module")
def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return _verdicts(report)


@pytest.fixture(scope="module")
def verdicts_with_new_interpreters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("airflow211-new-interpreters")
    return _verdicts(_judge(folder, "-k", " or ".join(WITH_NEW_INTERPRETERS), new_interpreters=True))


def test_adapter_is_the_one_for_airflow_2(report: dict[str, Any]) -> None:
    assert report["executor"]["adapter"] == "airflow2"
    assert report["conformant"] is False


def test_stubs_are_listed(report: dict[str, Any]) -> None:
    stubs = report["executor"]["stubs"]
    assert [text.partition(",")[0] for text in stubs] == [
        "the airflow program",
        "airflow.cli.commands.task_command.task_run",
    ]


@pytest.mark.parametrize("rule_id", KNOWN_DEFECTS)
def test_known_defect_fails_its_rule(verdicts: dict[str, str], rule_id: str) -> None:
    assert verdicts[rule_id] == "failed", KNOWN_DEFECTS[rule_id]


@pytest.mark.parametrize("rule_id", sorted(PASSING_RULES))
def test_rule_passes(verdicts: dict[str, str], rule_id: str) -> None:
    assert verdicts[rule_id] == "passed"


def test_no_rule_is_inconclusive(verdicts: dict[str, str]) -> None:
    assert [rule_id for rule_id, verdict in verdicts.items() if verdict == "inconclusive"] == []


@pytest.mark.parametrize("rule_id", sorted(WITH_NEW_INTERPRETERS))
def test_verdict_with_new_interpreters(verdicts_with_new_interpreters: dict[str, str], rule_id: str) -> None:
    assert verdicts_with_new_interpreters[rule_id] == WITH_NEW_INTERPRETERS[rule_id]
