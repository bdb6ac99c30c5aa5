"""The contender Airflow: its triggerer, as ``airflow triggerer`` starts it, with default settings.

No part of the triggerer is stubbed: its supervisor reads the rows and writes the events, and its runner has
the loop.  Two things around it are stubbed.  The rows of the deferred tasks are written here, in one
transaction, and not by one worker each.  And a job counts as ended with the event of its trigger, because no
scheduler resumes the task.  So the cost of workers before, and of a scheduler after, is not measured.  The
database is SQLite, whose cost counts as the triggerer's; a database server would have its own.  Logs are
written, but not served.
"""

from __future__ import annotations

import array
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.remote.work import HEARTBEAT_S, Cost, Work
from examples.batch.jobs import job_name
from executor_reference.linux import die_with_parent

_START_TIMEOUT_S = 120.0


def triggerer(work: Work) -> Cost:
    """Measure from the moment when all tasks have deferred until the last event is in the database."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(
            AIRFLOW_HOME=folder,
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
            PYTHONWARNINGS="ignore",
        )
        lags = Path(folder, "lags")
        airflow = [sys.executable, "-m", "airflow"]
        subprocess.run([*airflow, "db", "migrate"], stdout=subprocess.DEVNULL, check=True)
        # For this process only; the triggerer keeps the default.
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "WARNING"

        from benchmarks.remote import rows
        from benchmarks.remote.tree import Tree
        from benchmarks.remote.trigger import ENDPOINT, INTERVAL_S, LAGS, WARM_UP, JobTrigger

        first, *others = rows.make_runs(1 + work.jobs)
        warm_up = rows.Deferral([first], [JobTrigger(WARM_UP)])
        jobs = rows.Deferral(others, [JobTrigger(job_name(key)) for key in work.keys])
        del os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"]
        os.environ.update({ENDPOINT: work.endpoint, INTERVAL_S: str(work.interval_s), LAGS: str(lags)})
        with _running([*airflow, "triggerer", "--skip-serve-logs"], work.core, folder) as process:
            warm_up.write()
            _wait_until(lambda: rows.deferred() == 0, process, _START_TIMEOUT_S)
            tree = Tree(process.pid)
            lags.write_bytes(b"")
            began = time.monotonic()
            jobs.write()
            _wait_until(lambda: rows.deferred() == 0, process)
            return Cost(time.monotonic() - began, tree.cpu_s(), tree.growth(), _quantile(lags, 0.99))


@contextmanager
def _running(command: list[str], core: int, folder: str) -> Iterator[subprocess.Popen[bytes]]:
    with (
        Path(folder, "triggerer.log").open("wb") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=functools.partial(_prepare_child, os.getpid(), core),
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()


def _prepare_child(parent: int, core: int) -> None:
    die_with_parent(parent)
    os.sched_setaffinity(0, {core})


def _wait_until(
    condition: Callable[[], bool], process: subprocess.Popen[bytes], timeout_s: float = float("inf")
) -> None:
    """Wait until the condition holds, checking it as often as a scheduler would.

    :raises RuntimeError: the process has ended, or the condition did not hold in time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the triggerer did not do its work; its exit status is {process.returncode}")
        time.sleep(HEARTBEAT_S)


def _quantile(path: Path, part: float) -> float:
    lags = array.array("d", path.read_bytes())
    return sorted(lags)[int(part * len(lags))] if lags else 0.0
