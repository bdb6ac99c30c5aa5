"""Runs the suite on real executors and writes docs/results: a page for each, and a table.

    python -m benchmarks.results [--pools PYTHON] [--airflow2 PYTHON] [--airflow3 PYTHON] [NAME...]

With names (of pages, without suffix) only these are updated; the table is made from all pages.  Airflow and
the third-party pools need their own interpreters, with this project installed in each.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = REPOSITORY / "docs" / "results"
_AIRFLOW = "airflow.executors.local_executor:LocalExecutor"
_COLUMNS = ("passed", "failed", "not applicable", "inconclusive", "blocked")


@dataclass(frozen=True)
class Subject:
    """An executor with a page.

    :param page: the name of the page, without suffix.
    :param found: the most important findings, for the table.
    :param interpreter: the option with the interpreter that has it installed; by default, this one.
    :param environment: environment variables that select its mode.
    """

    page: str
    title: str
    target: str
    found: str = ""
    interpreter: str = ""
    environment: tuple[tuple[str, str], ...] = ()


SUBJECTS = (
    Subject("reference", "reference `LocalExecutor`", "executor_reference:LocalExecutor"),
    Subject("reference-async", "reference `AsyncExecutor`", "executor_reference:AsyncExecutor"),
    Subject(
        "thread-pool",
        "`ThreadPoolExecutor`",
        "concurrent.futures:ThreadPoolExecutor",
        "NaN is accepted, and then nothing runs; if `submit()` raises because no thread can be started, the "
        "task still runs later",
    ),
    Subject(
        "process-pool",
        "`ProcessPoolExecutor`",
        "concurrent.futures:ProcessPoolExecutor",
        "a garbage collection in a worker copies the memory that it shares with the host; a killed worker "
        "breaks the pool, and so does an exception that cannot be unpickled; workers outlive a killed host",
    ),
    Subject(
        "loky",
        "loky",
        "loky:ProcessPoolExecutor",
        "a killed worker breaks the pool; workers outlive a killed host",
    ),
    Subject(
        "multiprocessing-pool",
        "`multiprocessing.Pool`",
        "fixtures.peers:MultiprocessingPool",
        "the task of a killed worker has no outcome; if an idle worker is killed, nothing runs any more; "
        "`end()` hangs",
    ),
    Subject(
        "deadpool",
        "deadpool 2026.7.1",
        "fixtures.pools:deadpool",
        "`submit()` blocks forever once 1,000 calls are queued (its default limit); a call that was accepted "
        "while no process could be started has no outcome; -1 is accepted, and then nothing runs",
        "pools",
    ),
    Subject(
        "executorlib",
        "executorlib 1.11.0 `SingleNodeExecutor`",
        "fixtures.pools:executorlib",
        "`shutdown()` hangs after `cancel()`; without `shutdown()`, the interpreter does not exit; waiting "
        "tasks cost a whole CPU; workers outlive a killed host; -1 and `'4'` are accepted, and then nothing "
        "runs",
        "pools",
    ),
    Subject(
        "more-executors",
        "more-executors 2.11.4 `with_retry`",
        "fixtures.pools:more_executors",
        "`shutdown(wait=True)` drops accepted calls; with `cancel_futures`, some futures never finish; NaN "
        "is accepted, and then nothing runs",
        "pools",
    ),
    Subject(
        "futurist",
        "futurist 3.5.0 `ThreadPoolExecutor`",
        "fixtures.pools:futurist",
        "after a shortage of threads, capacity stays lost; `cancel_futures` is accepted and ignored",
        "pools",
    ),
    Subject(
        "airflow-2.11.2-local",
        "Airflow 2.11.2 `LocalExecutor`",
        _AIRFLOW,
        "`end()` drops queued tasks; tasks queued after `end()` are lost, and `heartbeat()` raises; "
        "`sys.exit(0)` counts as a failure; `terminate()` does nothing; the task of a killed worker has no "
        "outcome, and then `end()` hangs; workers outlive a killed host; a garbage collection in a worker "
        "copies the memory that it shares with the host",
        "airflow2",
    ),
    Subject(
        "airflow-2.11.2-local-new-interpreter",
        "the same, with new interpreters",
        _AIRFLOW,
        "the same, except for `sys.exit(0)`; in addition, tasks read the host's standard input",
        "airflow2",
        (("AIRFLOW__CORE__EXECUTE_TASKS_NEW_PYTHON_INTERPRETER", "True"),),
    ),
    Subject(
        "airflow-3.3.2-local",
        "Airflow 3.3.2 `LocalExecutor`",
        _AIRFLOW,
        "slots are not counted; `end()` drops queued tasks; `terminate()` does nothing; one key can run "
        "twice at once; if an idle worker is killed, the others deadlock; the task of a killed worker has no "
        "outcome; a backlog blocks `heartbeat()`; `end()` hangs if one worker exits before the next gets its "
        "poison pill; interpreter exit hangs",
        "airflow3",
    ),
)

_README = """\
# Results on real executors

<!-- written by `python -m benchmarks.results`; do not edit -->

The pages are reports of the suite (`--conformance-report=PATH.md`) at level `must`, made on Linux with two
processors. The table counts rules of all levels. Only failures of `must` rules make an executor not
conformant.

{table}

`multiprocessing.Pool` is wrapped in a thin class, `fixtures/peers.py`. deadpool, executorlib, more-executors
and futurist are constructed as their documentation shows (`fixtures/pools.py`). All others are checked
unchanged. Airflow 3 runs callback workloads in its own supervisor. Airflow 2 runs its own command, the end of
which is replaced by stubs; its report lists them.
"""


def main() -> int:
    """Run the suite, write the pages, and return the exit status."""
    options = _options()
    for subject in SUBJECTS:
        python = getattr(options, subject.interpreter) if subject.interpreter else sys.executable
        if python is None or (options.names and subject.page not in options.names):
            continue
        began = time.monotonic()
        _judge(subject, python)
        print(f"{subject.page}: {time.monotonic() - began:.0f} s", flush=True)
    (PAGES / "README.md").write_text(_README.format(table="\n".join(_table())), encoding="utf-8")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument(
        "--pools", metavar="PYTHON", help="interpreter with the libraries of fixtures/pools.py"
    )
    parser.add_argument("--airflow2", metavar="PYTHON", help="interpreter with Airflow 2.11.2")
    parser.add_argument("--airflow3", metavar="PYTHON", help="interpreter with Airflow 3.3.2")
    options = parser.parse_args()
    pages = [one.page for one in SUBJECTS]
    if unknown := sorted(set(options.names) - set(pages)):
        parser.error(f"unknown page {', '.join(unknown)}; choose from {', '.join(pages)}")
    return options


def _judge(subject: Subject, python: str) -> None:
    page = PAGES / f"{subject.page}.md"
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, "page.md")
        done = subprocess.run(
            [
                *(python, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
                *(f"--executor={subject.target}", f"--conformance-report={written}"),
                "--conformance-time-limit=1500",
            ],
            cwd=folder,
            env={
                **os.environ,
                **dict(subject.environment),
                "PYTHONPATH": str(REPOSITORY),
                "AIRFLOW_HOME": str(Path(folder, "airflow")),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if not written.exists():
            raise SystemExit(f"no report was written for {subject.page}:\n{done.stdout}")
        text = written.read_text(encoding="utf-8")
        prefix = Path(python).parents[1]
        for place in (
            f"{prefix}/bin/",
            f"{prefix}/",
            f"{folder}/",
            f"{REPOSITORY}/",
        ):  # paths of this machine
            text = text.replace(place, "")
        text = text.replace(str(REPOSITORY), ".")
        page.write_text(text, encoding="utf-8")


def _table() -> Iterable[str]:
    yield f"| executor | {' | '.join(_COLUMNS)} | main findings |"
    yield "|---|" + "---:|" * len(_COLUMNS) + "---|"
    for subject in SUBJECTS:
        page = PAGES / f"{subject.page}.md"
        if page.exists():
            counts = " | ".join(str(count) for count in _counts(page.read_text(encoding="utf-8")))
            yield f"| [{subject.title}]({page.name}) | {counts} | {subject.found} |"


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
