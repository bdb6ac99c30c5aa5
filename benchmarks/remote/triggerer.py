"""Airflow's own triggerer, as ``airflow triggerer`` starts it, with its default capacity and settings.

Nothing of the triggerer is replaced: its supervisor reads the rows and writes the events, its runner has the
loop.  Two things around it are.  The rows of the tasks that have deferred are written here, in one
transaction, and not by as many workers; and the event of a trigger is its end, for no scheduler takes the
task up again.  So what a worker and a scheduler cost, before and after, is not measured.  The database is
SQLite: what it costs is the triggerer's, where a server's would be its own.  Logs are written, not served.
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

_STARTS_WITHIN_S = 120.0


def triggerer(work: Work) -> Cost:
    """All tasks have deferred by the start; the last has its event in the database in the end."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(
            AIRFLOW_HOME=folder,
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
            PYTHONWARNINGS="ignore",
        )
        lags = Path(folder, "lags")
        airflow = [sys.executable, "-m", "airflow"]
        subprocess.run([*airflow, "db", "migrate"], stdout=subprocess.DEVNULL, check=True)
        # Of this process; the triggerer has the default.
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
            _until(lambda: rows.deferred() == 0, process, _STARTS_WITHIN_S)
            tree = Tree(process.pid)
            lags.write_bytes(b"")
            began = time.monotonic()
            jobs.write()
            _until(lambda: rows.deferred() == 0, process)
            return Cost(time.monotonic() - began, tree.cpu_s(), tree.growth(), _part(lags, 0.99))


@contextmanager
def _running(command: list[str], core: int, folder: str) -> Iterator[subprocess.Popen[bytes]]:
    with (
        Path(folder, "triggerer.log").open("wb") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=functools.partial(_settle, os.getpid(), core),
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()


def _settle(parent: int, core: int) -> None:
    die_with_parent(parent)
    os.sched_setaffinity(0, {core})


def _until(
    is_so: Callable[[], bool], process: subprocess.Popen[bytes], patience_s: float = float("inf")
) -> None:
    """Look as often as a scheduler would.

    :raises RuntimeError: the process has ended, or it is not so in time.
    """
    until = time.monotonic() + patience_s
    while not is_so():
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"the triggerer is of no use; its status is {process.returncode}")
        time.sleep(HEARTBEAT_S)


def _part(path: Path, part: float) -> float:
    lags = array.array("d", path.read_bytes())
    return sorted(lags)[int(part * len(lags))] if lags else 0.0
