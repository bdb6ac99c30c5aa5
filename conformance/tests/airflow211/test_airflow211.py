"""The suite on Airflow 2.11.2's own LocalExecutor: its known defects are named, what works there passes.

Selected in the ``airflow211`` environment of tox only: Airflow is large, and a run takes minutes.  All rules
judge it as it forks, and some of them as it starts a new interpreter for each task.
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

#: Rule -> what a reader of ``airflow/executors/local_executor.py`` (2.11.2) finds.
KNOWN_DEFECTS = {
    "lifecycle.submit-before-start-is-refused": "queue_command() does not look whether there was a start()",
    "lifecycle.submit-after-end-is-refused": "queue_command() does not look whether there was an end()",
    "lifecycle.end-before-start-is-harmless": "end() uses what start() makes",
    "lifecycle.end-twice-is-harmless": "end() puts pills on the queue of a manager that it has shut down",
    "states.system-exit-means-its-status": "the forked child's status is set after the command has returned",
    "parallelism.nan-is-refused": "the manager process is started before range() refuses the number",
    "parallelism.true-is-refused": "the number is only compared with 0",
    "parallelism.a-fraction-is-refused": "the manager process is started before range() refuses the number",
    "parallelism.huge-is-refused-or-lazy": "start() makes every worker",
    "shutdown.no-zombie-is-left": "end() joins the queue and not the workers",
    "shutdown.accepted-work-is-finished": "end() drops what was not handed over yet, without an event",
    "shutdown.terminate-stops-what-runs": "terminate() is empty",
    "shutdown.end-returns-after-a-worker-died": "end() waits until the dead worker has taken its pill",
    "shutdown.nothing-outlives-a-killed-host": "workers and manager never look whether their parent lives",
    "faults.a-killed-worker-fails-its-task": "a worker's exit status is looked at by nobody",
    "faults.an-idle-worker-may-die": "workers are made in start() and never again",
    "faults.a-killed-workers-task-is-stopped": "the task is a child that does not notice its worker's death",
    "faults.threads-of-the-host-do-no-harm": "the forked child flushes the logs of the host before it exits",
    "isolation.a-task-does-not-have-the-hosts-terminal": "nothing makes a session for the task",
    "memory.copy-on-write-is-kept": "nothing is frozen before the fork",
}

#: What works there and has to be seen to work.
KEPT_PROMISES = {
    "lifecycle.runs-a-task",
    "lifecycle.constructor-is-inert",
    "states.an-exception-is-a-failure",
    "states.exactly-one-terminal-event",
    "states.the-key-comes-back-whole",
    "states.the-filter-flushes-what-it-returns",
    "states.a-burst-loses-nothing",
    "parallelism.never-more-than-n",
    "parallelism.n-is-reached",
    "parallelism.negative-is-refused",
    "parallelism.unlimited-has-no-limit",
    "parallelism.higher-priority-first",
    "parallelism.slots-are-true-to-the-journal",
    "parallelism.running-is-true-to-the-journal",
    "shutdown.every-worker-exits",
    "shutdown.interpreter-exit-does-not-hang",
    "faults.the-other-tasks-go-on",
    "faults.a-backlog-never-blocks-the-host",
    "faults.a-flood-of-output-stalls-nothing",
    "isolation.modules-are-each-tasks-own",
}

#: What is otherwise with a new interpreter for each task, or has to be as it is in a fork.
WITH_NEW_INTERPRETERS = {
    "lifecycle.runs-a-task": "passed",
    "states.every-exit-status-tells": "passed",
    "states.system-exit-means-its-status": "passed",
    "states.death-by-signal-is-a-failure": "passed",
    "parallelism.unlimited-has-no-limit": "passed",
    "parallelism.slots-are-true-to-the-journal": "passed",
    "isolation.modules-are-each-tasks-own": "passed",
    "isolation.a-task-does-not-read-the-hosts-input": "failed",
    "faults.a-killed-worker-fails-its-task": "failed",
    "faults.a-killed-workers-task-is-stopped": "failed",
    "shutdown.accepted-work-is-finished": "failed",
}


def _judge(folder: Path, *arguments: str, new_interpreters: bool = False) -> dict[str, Any]:
    assert metadata.version("apache-airflow") == "2.11.2", "the defects are those of this version"
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
    assert (", in new interpreters" in done.stdout) is new_interpreters, done.stdout
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return told


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


def test_it_is_driven_by_the_adapter_for_airflow_2(report: dict[str, Any]) -> None:
    assert report["executor"]["adapter"] == "airflow2"
    assert report["conformant"] is False


def test_what_was_replaced_is_told(report: dict[str, Any]) -> None:
    replaced = report["executor"]["replaces"]
    assert [text.partition(",")[0] for text in replaced] == [
        "the program airflow",
        "airflow.cli.commands.task_command.task_run",
    ]


@pytest.mark.parametrize("rule_id", KNOWN_DEFECTS)
def test_a_known_defect_is_named(verdicts: dict[str, str], rule_id: str) -> None:
    assert verdicts[rule_id] == "failed", KNOWN_DEFECTS[rule_id]


@pytest.mark.parametrize("rule_id", sorted(KEPT_PROMISES))
def test_what_works_is_not_called_broken(verdicts: dict[str, str], rule_id: str) -> None:
    assert verdicts[rule_id] == "passed"


def test_every_rule_has_a_verdict(verdicts: dict[str, str]) -> None:
    assert [rule_id for rule_id, verdict in verdicts.items() if verdict == "inconclusive"] == []


@pytest.mark.parametrize("rule_id", sorted(WITH_NEW_INTERPRETERS))
def test_new_interpreters_are_judged_as_they_are(
    verdicts_with_new_interpreters: dict[str, str], rule_id: str
) -> None:
    assert verdicts_with_new_interpreters[rule_id] == WITH_NEW_INTERPRETERS[rule_id]
