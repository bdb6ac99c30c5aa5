"""Airflow 2: subclasses of its ``BaseExecutor``, fed through ``queue_command`` as its scheduler feeds them.

A probe is the command ``airflow tasks run``, and runs as the executor runs that: in a new interpreter, or in
a fork that calls what Airflow's own parser makes of the command.  Airflow's setting ``[core]
execute_tasks_new_python_interpreter`` decides which, and the probe records which it was.

The last step of either is a stub of the suite, which the report names.  Airflow's own last step needs a
migrated database, a DAG and seconds for each task; and none of its extension points (commands of an executor,
callbacks before a command) can make ``tasks run`` return without its DAG run in that database.
"""

from __future__ import annotations

import datetime
import os
import shlex
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

from executor_conformance.adapters.airflow_base import AirflowAdapter, AirflowDriver
from executor_conformance.adapters.api import Driver, Submission
from executor_conformance.contract import Call
from executor_conformance.probes import task
from executor_conformance.requirements import Capability

_PROGRAM = """\
#!/bin/sh
# The last word of the command is the probe's own command line.
for last; do :; done
eval "exec {python} -m {module} $last"
"""


class Airflow2Driver(AirflowDriver):
    """Submits ``airflow tasks run``."""

    def submit(self, submission: Submission) -> None:
        from airflow.models.taskinstancekey import TaskInstanceKey

        assert submission.work.reference is not None
        _, arguments = submission.work.reference
        key = TaskInstanceKey(*submission.key)
        line = shlex.join([arguments["journal"], arguments["probe"], *arguments["steps"]])
        self.executor.queue_command(
            _task_instance(key, submission.extra.get("executor_config")),
            ["airflow", "tasks", "run", *key[:3], "--local", "--subdir", line],
            priority=1 if submission.priority is None else submission.priority,
            queue=submission.extra.get("queue"),
        )

    def events(self, dag_ids: Sequence[str] | None = None) -> Any:
        return self.executor.get_event_buffer(dag_ids)


def _task_instance(key: Any, executor_config: object) -> SimpleNamespace:
    """What Airflow's base class reads of a task instance; a real one belongs to a row of the database."""
    now = datetime.datetime.now(datetime.timezone.utc)
    run = SimpleNamespace(dag_id=key.dag_id, run_id=key.run_id, start_date=now)
    return SimpleNamespace(key=key, executor_config=executor_config, dag_run=run)


class Airflow2Adapter(AirflowAdapter):
    """Subclasses of Airflow 2's ``BaseExecutor``."""

    family = "airflow2"
    has_workloads = False
    environment: ClassVar = {
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    }
    required_methods: ClassVar = (
        "start",
        "queue_command",
        "execute_async",
        "heartbeat",
        "sync",
        "get_event_buffer",
        "end",
        "terminate",
    )
    names: ClassVar = {Call.EXECUTE_ASYNC: "queue_command()"}
    lacks: ClassVar = {
        Capability.COROUTINE: "an Airflow 2 command is always 'airflow tasks run'",
        Capability.ARGV: "an Airflow 2 command is always 'airflow tasks run'",
        Capability.CALLABLE: "an Airflow 2 command is always 'airflow tasks run'",
        Capability.RESULTS: "an Airflow 2 task returns nothing to the scheduler",
    }
    stubs: ClassVar = (
        "the airflow program, by one that runs the probe in a new interpreter",
        "airflow.cli.commands.task_command.task_run, by a function that runs the probe in the same process",
    )

    def drive(self, executor: Any) -> Driver:
        return Airflow2Driver(executor)

    def install_stubs(self, scratch: str) -> None:
        from airflow.cli import cli_parser
        from airflow.cli.commands import task_command

        _load_providers_configuration()
        # A scheduler was started by this parser, and its forks inherit it.
        cli_parser.get_parser()
        task_command.task_run = _run_probe
        folder = os.path.join(scratch, "bin")
        os.makedirs(folder, exist_ok=True)
        program = os.path.join(folder, "airflow")
        with open(program, "w") as file:
            file.write(_PROGRAM.format(python=shlex.quote(sys.executable), module=task.__name__))
        os.chmod(program, 0o755)
        os.environ["PATH"] = os.pathsep.join([folder, os.environ.get("PATH", os.defpath)])


def _load_providers_configuration() -> None:
    """Add the defaults of providers, such as those of section ``[celery]``, as the scheduler does first."""
    try:
        from airflow.providers_manager import ProvidersManager

        load = ProvidersManager().initialize_providers_configuration
    except (ImportError, AttributeError):  # before Airflow 2.7 they were part of its own defaults
        return
    load()


def _run_probe(args: Any) -> None:
    """Called by Airflow with its parsed command, whose ``--subdir`` is the probe's own command line."""
    journal, name, *steps = shlex.split(args.subdir)
    task.run(journal, name, steps)
