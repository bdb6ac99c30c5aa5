"""Tests of the suite on the LocalExecutor of Airflow 3.3.2: known defects fail, everything else passes.

They run only in the ``airflow33`` environment of tox, because Airflow is large and a run takes minutes.
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
KNOWN_DEFECTS: dict[str, str] = tomllib.loads(_CAUSES.read_text(encoding="utf-8"))["airflow-3.3.2-local"]

#: Rules that have to pass.
PASSING_RULES = {
    "lifecycle.runs-a-task",
    "states.an-exception-is-a-failure",
    "states.exactly-one-terminal-event",
    "states.a-burst-is-reported-completely",
    "parallelism.at-most-n-tasks-run-at-once",
    "parallelism.n-tasks-run-at-once",
    "parallelism.negative-is-rejected",
    "shutdown.end-leaves-no-worker",
    "faults.other-tasks-survive-a-worker-death",
    "memory.copy-on-write-survives-garbage-collection",
    "queued_time.median-queued-time-is-within-budget",
    "faults.large-output-does-not-block-the-task",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    assert metadata.version("apache-airflow") == "3.3.2", "KNOWN_DEFECTS are those of this version"
    folder = tmp_path_factory.mktemp("airflow33")
    path = folder / "report.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider"),
            "--executor=airflow.executors.local_executor:LocalExecutor",
            f"--conformance-report={path}",
            "--conformance-time-limit=900",
        ],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    keep = os.environ.get("CONFORMANCE_OUTPUT")
    if keep:
        Path(keep).write_text(done.stdout, encoding="utf-8")
    assert path.exists(), done.stdout
    assert done.returncode == 1, done.stdout
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


@pytest.fixture(scope="module")
def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {rule["id"]: rule["verdict"] for rule in report["rules"]}


def test_adapter_is_the_one_for_airflow_3(report: dict[str, Any]) -> None:
    assert report["executor"]["adapter"] == "airflow3"
    assert report["conformant"] is False


@pytest.mark.parametrize("rule_id", KNOWN_DEFECTS)
def test_known_defect_fails_its_rule(verdicts: dict[str, str], rule_id: str) -> None:
    assert verdicts[rule_id] == "failed", KNOWN_DEFECTS[rule_id]


@pytest.mark.parametrize("rule_id", sorted(PASSING_RULES))
def test_rule_passes(verdicts: dict[str, str], rule_id: str) -> None:
    assert verdicts[rule_id] == "passed"


def test_no_rule_is_inconclusive(verdicts: dict[str, str]) -> None:
    assert [rule_id for rule_id, verdict in verdicts.items() if verdict == "inconclusive"] == []
