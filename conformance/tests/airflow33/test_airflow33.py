"""The suite on Airflow 3.3.2's own LocalExecutor: its known defects are named, what works there passes.

Selected in the ``airflow33`` environment of tox only: Airflow is large, and a run takes minutes.
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

#: Rule -> what a reader of ``airflow/executors/local_executor.py`` (3.3.2) finds.
KNOWN_DEFECTS = {
    "parallelism.slots-are-true-to-the-journal": "running is never filled, so every slot is always available",
    "lifecycle.end-before-start-is-harmless": "end() uses what start() makes",
    "lifecycle.end-twice-is-harmless": "end() uses processes that it has closed",
    "shutdown.accepted-work-is-finished": "end() drops what is still queued, without an event",
    "shutdown.terminate-stops-what-runs": "terminate() is empty",
    "shutdown.nothing-outlives-a-killed-host": "workers wait on a queue that they hold open themselves",
    "states.a-key-in-flight-never-runs-twice-at-once": "nothing remembers what is in flight",
    "shutdown.interpreter-exit-does-not-hang": "workers that are no daemons are joined at exit",
    "faults.a-killed-worker-fails-its-task": "a worker's exit status is looked at by nobody",
    "faults.an-idle-worker-may-die": "a worker that waits holds the lock of the shared queue",
    "faults.a-killed-workers-task-is-stopped": "the task is a child that does not notice its worker's death",
    "faults.a-backlog-never-blocks-the-host": "workloads are put into a pipe by the host itself",
}

#: What works there and has to be seen to work.
KEPT_PROMISES = {
    "lifecycle.runs-a-task",
    "states.an-exception-is-a-failure",
    "states.exactly-one-terminal-event",
    "states.a-burst-loses-nothing",
    "parallelism.never-more-than-n",
    "parallelism.n-is-reached",
    "parallelism.negative-is-refused",
    "shutdown.every-worker-exits",
    "faults.the-other-tasks-go-on",
    "memory.copy-on-write-is-kept",
    "queued_time.the-first-instruction-comes-soon",
    "faults.a-flood-of-output-stalls-nothing",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    assert metadata.version("apache-airflow") == "3.3.2", "the defects are those of this version"
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
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return told


@pytest.fixture(scope="module")
def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {rule["id"]: rule["verdict"] for rule in report["rules"]}


def test_it_is_driven_by_the_adapter_for_airflow_3(report: dict[str, Any]) -> None:
    assert report["executor"]["adapter"] == "airflow3"
    assert report["conformant"] is False


@pytest.mark.parametrize("rule_id", KNOWN_DEFECTS)
def test_a_known_defect_is_named(verdicts: dict[str, str], rule_id: str) -> None:
    assert verdicts[rule_id] == "failed", KNOWN_DEFECTS[rule_id]


@pytest.mark.parametrize("rule_id", sorted(KEPT_PROMISES))
def test_what_works_is_not_called_broken(verdicts: dict[str, str], rule_id: str) -> None:
    assert verdicts[rule_id] == "passed"


def test_every_rule_has_a_verdict(verdicts: dict[str, str]) -> None:
    assert [rule_id for rule_id, verdict in verdicts.items() if verdict == "inconclusive"] == []
