"""Measures the queued time of Airflow 2's LocalExecutor, with no part of Airflow stubbed.

    python benchmarks/airflow2_queued_time.py

Needs an environment with Airflow 2.  It migrates a SQLite database in a temporary folder and runs the tasks
of a real DAG one after the other, forked and in new interpreters.  It prints the medians, in seconds, from
the call of ``execute_async()`` to the first instruction of the operator's function.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TASKS = 5
_DAG = """
import os, pathlib, time
import pendulum
from airflow import DAG
from airflow.operators.python import PythonOperator

def record(name):
    now = time.monotonic()
    path = pathlib.Path(os.environ["AIRFLOW_HOME"], name)
    path.with_suffix(".new").write_text(repr(now))
    path.with_suffix(".new").rename(path)

with DAG("timed", schedule=None, start_date=pendulum.datetime(2026, 1, 1)) as dag:
    for number in range({tasks}):
        name = f"task-{{number}}"
        PythonOperator(task_id=name, python_callable=record, op_args=[name])
"""


def measure() -> None:
    """Run the tasks and print each queued time.  The environment must have Airflow's settings."""
    import airflow.jobs.scheduler_job_runner  # noqa: F401 - a scheduler has imported it when it forks
    import pendulum
    from airflow.cli.cli_parser import get_parser
    from airflow.executors.local_executor import LocalExecutor
    from airflow.models import DagBag
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState, TaskInstanceState
    from airflow.utils.types import DagRunType

    get_parser()
    home = Path(os.environ["AIRFLOW_HOME"])
    dag = DagBag(home / "dags", include_examples=False).dags["timed"]
    dag.sync_to_db()
    now = pendulum.now("UTC")
    run = dag.create_dagrun(
        run_type=DagRunType.MANUAL, execution_date=now, data_interval=(now, now), state=DagRunState.RUNNING
    )
    with create_session() as session:
        tasks = [session.merge(task) for task in run.get_task_instances(session=session)]
        for task in tasks:
            task.state = TaskInstanceState.QUEUED
    executor = LocalExecutor(parallelism=1)
    executor.start()
    for task in tasks:
        task.task = dag.get_task(task.task_id)
        recorded = home / task.task_id
        recorded.unlink(missing_ok=True)
        command = task.command_as_list(local=True)
        submitted = time.monotonic()
        executor.execute_async(task.key, command)
        while task.key not in executor.get_event_buffer():
            executor.heartbeat()
            time.sleep(0.01)
        print(float(recorded.read_text()) - submitted, flush=True)
    executor.end()


def main() -> None:
    """Set up, measure in both modes, and print the results."""
    with tempfile.TemporaryDirectory() as folder:
        dags = Path(folder, "dags")
        dags.mkdir()
        (dags / "timed.py").write_text(_DAG.format(tasks=TASKS))
        environment = {
            **os.environ,
            "AIRFLOW_HOME": folder,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "PYTHONWARNINGS": "ignore",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        }
        migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
        subprocess.run(migrate, env=environment, stdout=subprocess.DEVNULL, check=True)
        for mode, new_interpreter in (("forked", "False"), ("in new interpreters", "True")):
            done = subprocess.run(
                [sys.executable, __file__, "measure"],
                env={**environment, "AIRFLOW__CORE__EXECUTE_TASKS_NEW_PYTHON_INTERPRETER": new_interpreter},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            times = [float(line) for line in done.stdout.splitlines() if line[:1].isdigit()]
            shown = ", ".join(f"{seconds:.2f}" for seconds in sorted(times))
            print(f"{mode}: median {statistics.median(times):.2f} s of {len(times)} ({shown})")


if __name__ == "__main__":
    measure() if sys.argv[1:] == ["measure"] else main()
