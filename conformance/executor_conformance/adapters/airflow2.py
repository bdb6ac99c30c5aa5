"""Airflow 2: subclasses of its ``BaseExecutor``, fed through ``queue_command`` as its scheduler feeds them.

A probe is the command ``airflow tasks run``, and runs as the executor runs that: in a new interpreter, or in
a fork that calls what Airflow's own parser makes of the command.  Which of them is Airflow's setting
``[core] execute_tasks_new_python_interpreter``, and is seen in the probe.

At the far end of either stands something of the suite's own, which the report names.  Airflow's own end needs
a migrated database, a DAG and seconds for each task; and what it offers to be extended with (commands of an
executor, callbacks before a command) cannot make ``tasks run`` return without its DAG run in that database.
"""

from __future__ import annotations

import datetime
import importlib.util
import inspect
import os
import shlex
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

from executor_conformance import probe
from executor_conformance.driving import Adapter, Capability, Driver, Submission

#: Set before Airflow is imported, unless the user has set them.
_ENVIRONMENT = {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
}

_PROGRAM = """\
#!/bin/sh
# The last word of the command is the probe's own command line.
for last; do :; done
eval "exec {python} -m {module} $last"
"""


class Airflow2Driver(Driver):
    """Does what Airflow's scheduler does with an executor."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor

    def start(self) -> None:
        self.executor.start()

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

    def pump(self) -> None:
        self.executor.heartbeat()

    def sync(self) -> None:
        self.executor.sync()

    def events(self, dag_ids: Sequence[str] | None = None) -> Any:
        return self.executor.get_event_buffer(dag_ids)

    def end(self) -> None:
        self.executor.end()

    def terminate(self) -> None:
        self.executor.terminate()


def _task_instance(key: Any, executor_config: object) -> SimpleNamespace:
    """What Airflow's base class reads of one; a real one belongs to a row of the database."""
    now = datetime.datetime.now(datetime.timezone.utc)
    run = SimpleNamespace(dag_id=key.dag_id, run_id=key.run_id, start_date=now)
    return SimpleNamespace(key=key, executor_config=executor_config, dag_run=run)


class Airflow2Adapter(Adapter):
    """Recognised as subclasses of ``airflow.executors.base_executor.BaseExecutor`` of Airflow 2."""

    family = "airflow2"
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
    words: ClassVar = {"execute_async()": "queue_command()", "pump": "heartbeat()"}
    lacks: ClassVar = {
        Capability.COROUTINE: "an Airflow 2 command is airflow tasks run and nothing else",
        Capability.ARGV: "an Airflow 2 command is airflow tasks run and nothing else",
        Capability.CALLABLE: "an Airflow 2 command is airflow tasks run and nothing else",
        Capability.RESULTS: "an Airflow 2 task returns nothing to the scheduler",
    }
    replaces: ClassVar = (
        "the program airflow, by one that runs the probe in a new interpreter",
        "airflow.cli.commands.task_command.task_run, by a function that runs the probe where it is called",
    )

    @classmethod
    def recognises(cls, candidate: object) -> bool:
        base = sys.modules.get("airflow.executors.base_executor")
        if base is None or hasattr(base.BaseExecutor, "queue_workload"):  # which only Airflow 3 has
            return False
        kind = candidate if inspect.isclass(candidate) else type(candidate)
        return issubclass(kind, base.BaseExecutor)

    def drive(self, executor: Any) -> Driver:
        return Airflow2Driver(executor)

    def prepare(self, scratch: str) -> None:
        if importlib.util.find_spec("airflow") is None:
            return
        os.environ.setdefault("AIRFLOW_HOME", os.path.join(scratch, "airflow"))
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)

    def stand_in(self, scratch: str) -> None:
        from airflow.cli import cli_parser
        from airflow.cli.commands import task_command

        # A scheduler was started by this parser, and its forks inherit it.
        cli_parser.get_parser()
        task_command.task_run = _run_probe
        folder = os.path.join(scratch, "bin")
        os.makedirs(folder, exist_ok=True)
        program = os.path.join(folder, "airflow")
        with open(program, "w") as file:
            file.write(_PROGRAM.format(python=shlex.quote(sys.executable), module=probe.__name__))
        os.chmod(program, 0o755)
        os.environ["PATH"] = os.pathsep.join([folder, os.environ.get("PATH", os.defpath)])


def _run_probe(args: Any) -> None:
    """Called by Airflow with its parsed command, whose ``--subdir`` is the probe's own command line."""
    journal, name, *steps = shlex.split(args.subdir)
    probe.run(journal, name, steps)
