"""Runs the suite on real executors and writes docs/results: a page for each, and a table.

    python3.12 -m benchmarks.results [--environments FOLDER] [NAME...]

With names (of pages, without suffix) only these are updated; the table is made from all pages.  Executors of
other projects are installed, in the versions that ``fixtures/peers/requirements`` pins, in an environment of
their own for each file there.  It is made when it is needed first, and kept.

A ``must`` rule that fails says that somebody else's code is wrong.  So ``causes.toml`` names, for each of
them, the file and the function that cause it.  The page shows them, and a failure without one is an error.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import tomllib

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = REPOSITORY / "docs" / "results"
_REQUIREMENTS = REPOSITORY / "fixtures" / "peers" / "requirements"
_CAUSES = Path(__file__).with_name("causes.toml")
_AIRFLOW = "airflow.executors.local_executor:LocalExecutor"
_REDIS = ("fixtures.peers.redis_server",)
_COLUMNS = ("passed", "failed", "not applicable", "inconclusive", "blocked")
#: A line of a page about a ``must`` rule that failed.
_FAILED_MUST = r"^- \*\*[\w.-]+\*\* \(must\): expected "


@dataclass(frozen=True)
class Subject:
    """An executor with a page.

    :param page: the name of the page, without suffix.
    :param environment: the file with its requirements, without suffix; by default, this interpreter has it.
    :param variables: environment variables that select its mode.
    :param plugins: pytest plugins that it needs, such as one that lends it a server.
    :param causes: the page with whose causes its own begin.
    :param since: the first version of Python that has it; an older one leaves its page as it is.
    """

    page: str
    title: str
    target: str
    environment: str = ""
    variables: tuple[tuple[str, str], ...] = ()
    plugins: tuple[str, ...] = ()
    causes: str = ""
    since: tuple[int, int] = (3, 10)


SUBJECTS = (
    Subject("reference", "reference `LocalExecutor`", "executor_reference:LocalExecutor"),
    Subject("reference-async", "reference `AsyncExecutor`", "executor_reference:AsyncExecutor"),
    Subject("thread-pool", "`ThreadPoolExecutor`", "concurrent.futures:ThreadPoolExecutor"),
    Subject("process-pool", "`ProcessPoolExecutor`", "concurrent.futures:ProcessPoolExecutor"),
    Subject(
        "interpreter-pool",
        "`InterpreterPoolExecutor` of Python 3.14",
        "concurrent.futures:InterpreterPoolExecutor",
        causes="thread-pool",
        since=(3, 14),
    ),
    Subject("loky", "loky 3.7.0", "loky:ProcessPoolExecutor", environment="pools"),
    Subject(
        "multiprocessing-pool",
        "`multiprocessing.Pool`",
        "fixtures.peers.multiprocessing_pool:MultiprocessingPool",
    ),
    Subject(
        "pebble", "pebble 5.2.3 `ProcessPool`", "fixtures.peers.pebble_pool:PebblePool", environment="pools"
    ),
    Subject("deadpool", "deadpool 2026.7.1", "fixtures.peers.pools:deadpool", environment="pools"),
    Subject(
        "executorlib",
        "executorlib 1.11.0 `SingleNodeExecutor`",
        "fixtures.peers.pools:executorlib",
        environment="pools",
    ),
    Subject(
        "more-executors",
        "more-executors 2.11.4 `with_retry`",
        "fixtures.peers.pools:more_executors",
        environment="pools",
    ),
    Subject(
        "futurist",
        "futurist 3.5.0 `ThreadPoolExecutor`",
        "fixtures.peers.pools:futurist",
        environment="pools",
    ),
    Subject(
        "threadpoolexecutorplus",
        "ThreadPoolExecutorPlus 0.2.2",
        "ThreadPoolExecutorPlus:ThreadPoolExecutor",
        environment="pools",
    ),
    Subject(
        "flexexecutor-threads",
        "flexexecutor 0.0.13 `ThreadPoolExecutor`",
        "flexexecutor:ThreadPoolExecutor",
        environment="pools",
    ),
    Subject(
        "flexexecutor-async",
        "flexexecutor 0.0.13 `AsyncPoolExecutor`",
        "fixtures.peers.pools:flexexecutor_async",
        environment="pools",
    ),
    Subject(
        "bounded-thread-pool",
        "bounded-pool-executor 0.0.3 `BoundedThreadPoolExecutor`",
        "bounded_pool_executor:BoundedThreadPoolExecutor",
        environment="pools",
    ),
    Subject(
        "bounded-process-pool",
        "bounded-pool-executor 0.0.3 `BoundedProcessPoolExecutor`",
        "bounded_pool_executor:BoundedProcessPoolExecutor",
        environment="pools",
        causes="process-pool",
    ),
    Subject("mpire", "mpire 2.10.2 `WorkerPool`", "fixtures.peers.mpire_pool:MpirePool", environment="pools"),
    Subject(
        "billiard", "billiard 4.3.2 `Pool`", "fixtures.peers.billiard_pool:BilliardPool", environment="pools"
    ),
    Subject(
        "apscheduler-threads",
        "APScheduler 3.11.3, pool of threads",
        "fixtures.peers.apscheduler_pools:ThreadPool",
        environment="pools",
    ),
    Subject(
        "apscheduler-processes",
        "APScheduler 3.11.3, pool of processes",
        "fixtures.peers.apscheduler_pools:ProcessPool",
        environment="pools",
    ),
    Subject(
        "gevent",
        "gevent 26.9.0 `ThreadPool`",
        "fixtures.peers.gevent_pool:GeventThreadPool",
        environment="pools",
    ),
    Subject(
        "aiojobs",
        "aiojobs 1.4.0 `Scheduler`",
        "fixtures.peers.aiojobs_scheduler:AiojobsScheduler",
        environment="pools",
    ),
    Subject(
        "parsl-threads",
        "Parsl 2026.10.26 on threads",
        "fixtures.peers.parsl_pools:threads",
        environment="parsl",
    ),
    Subject(
        "parsl-high-throughput",
        "Parsl 2026.10.26 `HighThroughputExecutor`",
        "fixtures.peers.parsl_pools:high_throughput",
        environment="parsl",
    ),
    Subject(
        "ipyparallel",
        "ipyparallel 9.2.0, load-balanced view",
        "fixtures.peers.ipyparallel_cluster:load_balanced",
        environment="ipyparallel",
    ),
    Subject(
        "mpi4py",
        "mpi4py 4.1.2 `MPIPoolExecutor`",
        "fixtures.peers.mpi4py_pool:mpi_pool",
        environment="mpi4py",
    ),
    Subject(
        "dask",
        "Dask 2026.8.0 `Client.get_executor()`",
        "fixtures.peers.dask_cluster:client_executor",
        environment="dask",
    ),
    Subject(
        "ray", "Ray 2.60.0 `util.multiprocessing.Pool`", "fixtures.peers.ray_pool:RayPool", environment="ray"
    ),
    Subject(
        "celery",
        "Celery 5.7.0 on Redis",
        "fixtures.peers.celery_redis:CeleryOnRedis",
        environment="celery",
        plugins=_REDIS,
    ),
    Subject(
        "airflow-3.3.2-celery",
        "Airflow 3.3.2 `CeleryExecutor` on Redis",
        "fixtures.peers.airflow_celery:celery_executor",
        environment="airflow3",
        plugins=_REDIS,
    ),
    Subject(
        "airflow-2.11.2-celery",
        "Airflow 2.11.2 `CeleryExecutor` on Redis",
        "fixtures.peers.airflow_celery:celery_executor",
        environment="airflow2",
        plugins=_REDIS,
    ),
    Subject(
        "airflow-2.11.2-dask",
        "Airflow 2.11.2 `DaskExecutor`",
        "fixtures.peers.airflow_dask:dask_executor",
        environment="airflow2",
    ),
    Subject(
        "airflow-2.11.2-sequential",
        "Airflow 2.11.2 `SequentialExecutor`",
        "airflow.executors.sequential_executor:SequentialExecutor",
        environment="airflow2",
    ),
    Subject("airflow-2.11.2-local", "Airflow 2.11.2 `LocalExecutor`", _AIRFLOW, environment="airflow2"),
    Subject(
        "airflow-2.11.2-local-new-interpreter",
        "the same, with new interpreters",
        _AIRFLOW,
        environment="airflow2",
        variables=(("AIRFLOW__CORE__EXECUTE_TASKS_NEW_PYTHON_INTERPRETER", "True"),),
        causes="airflow-2.11.2-local",
    ),
    Subject("airflow-3.3.2-local", "Airflow 3.3.2 `LocalExecutor`", _AIRFLOW, environment="airflow3"),
)

_README = """\
# Results on real executors

<!-- written by `python -m benchmarks.results`; do not edit -->

The pages are reports of the suite (`--conformance-report=PATH.md`) at level `must`, made on Linux with two
processors. The table counts rules of all levels. Only failures of `must` rules make an executor not
conformant. A page that was written when there were fewer rules counts fewer.

{table}

Executors without the calls of `concurrent.futures` or of Airflow have a thin driver in `fixtures/peers`,
which adds nothing of its own. The others are constructed as their documentation shows. Airflow 3 runs
callback workloads in its own supervisor. Airflow 2 runs its own command, the end of which is replaced by
stubs; its report lists them.
"""


def main() -> int:
    """Run the suite, write the pages, and return the exit status."""
    options = _options()
    causes = tomllib.loads(_CAUSES.read_text(encoding="utf-8"))
    found = causes.pop("found")
    unexplained = []
    for subject in SUBJECTS:
        if options.names and subject.page not in options.names:
            continue
        if sys.version_info < subject.since:
            print(f"{subject.page}: needs Python {'.'.join(map(str, subject.since))}", flush=True)
            continue
        python = _interpreter(subject.environment, options.environments)
        began = time.monotonic()
        known = {**causes.get(subject.causes, {}), **causes.get(subject.page, {})}
        unexplained += _judge(subject, python, known)
        print(f"{subject.page}: {time.monotonic() - began:.0f} s", flush=True)
    (PAGES / "README.md").write_text(_README.format(table="\n".join(_table(found))), encoding="utf-8")
    for line in unexplained:
        print(f"{_CAUSES.name} has no cause of {line}", file=sys.stderr)
    return 1 if unexplained else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument(
        "--environments",
        metavar="FOLDER",
        type=Path,
        default=REPOSITORY / ".peers",
        help="where the environments are made (default: .peers)",
    )
    options = parser.parse_args()
    pages = [one.page for one in SUBJECTS]
    if unknown := sorted(set(options.names) - set(pages)):
        parser.error(f"unknown page {', '.join(unknown)}; choose from {', '.join(pages)}")
    return options


def _interpreter(environment: str, folder: Path) -> str:
    """The interpreter that has the executor installed; makes its environment if there is none yet."""
    if not environment:
        return sys.executable
    python = folder / environment / "bin" / "python"
    complete = folder / environment / "complete"
    if not complete.exists():
        print(f"installing {environment} in {folder / environment}", flush=True)
        requirements = _REQUIREMENTS / f"{environment}.txt"
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder / environment], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "-r", requirements, "-e", REPOSITORY]
        subprocess.run(install, check=True)
        complete.touch()
    return str(python)


def _judge(subject: Subject, python: str, causes: Mapping[str, str]) -> list[str]:
    """Judge an executor and write its page.

    :param causes: rule id -> what causes its failure.
    :returns: the failures of ``must`` rules that have no cause.
    """
    page = PAGES / f"{subject.page}.md"
    with tempfile.TemporaryDirectory() as folder:
        written, report = Path(folder, "page.md"), Path(folder, "report.json")
        done = subprocess.run(
            [
                *(python, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
                *(argument for plugin in subject.plugins for argument in ("-p", plugin)),
                *(f"--executor={subject.target}", "--conformance-time-limit=1500"),
                *(f"--conformance-report={path}" for path in (written, report)),
            ],
            cwd=folder,
            env={
                **os.environ,
                **dict(subject.variables),
                "PYTHONPATH": str(REPOSITORY),
                "PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}",
                "AIRFLOW_HOME": str(Path(folder, "airflow")),
                "IPYTHONDIR": str(Path(folder, "ipython")),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if not written.exists():
            raise SystemExit(f"no report was written for {subject.page}:\n{done.stdout}")
        data = json.loads(report.read_text(encoding="utf-8"))
        if not data["complete"]:
            raise SystemExit(f"{subject.page}: {data['verdict']}; its page stays as it is")
        rules = data["rules"]
        failed = [rule["id"] for rule in rules if rule["verdict"] == "failed" and rule["level"] == "must"]
        text = written.read_text(encoding="utf-8") + "\n".join(_section_of_causes(failed, causes))
        prefix, base = Path(python).parents[1], Path(python).resolve().parents[1]
        for place in (
            f"{prefix}/bin/",
            f"{prefix}/",
            *([] if base == Path("/usr") else [f"{base}/"]),
            f"{folder}/",
            f"{REPOSITORY}/",
        ):  # paths of this machine
            text = text.replace(place, "")
        text = text.replace(str(REPOSITORY), ".")
        text = re.sub(r" --conformance-report=\S*", "", text)  # in command lines, which may be cut
        page.write_text(text, encoding="utf-8")
    return [f"{subject.page}: {rule_id}" for rule_id in failed if rule_id not in causes]


def _section_of_causes(failed: Iterable[str], causes: Mapping[str, str]) -> Iterable[str]:
    known = [rule_id for rule_id in failed if rule_id in causes]
    if known:
        yield from ("", "## Causes", "")
        yield from (f"- **{rule_id}**: {causes[rule_id]}" for rule_id in known)
        yield ""


def _table(found: Mapping[str, str]) -> Iterable[str]:
    """The lines of the table.

    :param found: page -> the most important findings.
    """
    columns = [column if column != "failed" else "must failed | should failed" for column in _COLUMNS]
    yield f"| executor | {' | '.join(columns)} | main findings |"
    yield "|---|" + "---:|" * (len(_COLUMNS) + 1) + "---|"
    for subject in SUBJECTS:
        page = PAGES / f"{subject.page}.md"
        if page.exists():
            text = page.read_text(encoding="utf-8")
            numbers = dict(zip(_COLUMNS, _counts(text), strict=True))
            must = len(re.findall(_FAILED_MUST, text, re.MULTILINE))
            numbers["failed"] = f"{must} | {numbers['failed'] - must}"
            counts = " | ".join(map(str, numbers.values()))
            yield f"| [{subject.title}]({page.name}) | {counts} | {found.get(subject.page, '')} |"


def _counts(page: str) -> list[int]:
    """Return the total of each column over all chapters."""
    rows = [
        [int(cell) for cell in row.split("|")[2 : 2 + len(_COLUMNS)]]
        for row in page.splitlines()
        if re.match(r"\| \w+ \| \d+ \|", row)
    ]
    return [sum(column) for column in zip(*rows, strict=True)]


if __name__ == "__main__":
    sys.exit(main())
