"""Judges real executors and writes ``docs/results``: a page each, and their table.

    python -m benchmarks.results [--pools PYTHON] [--airflow2 PYTHON] [--airflow3 PYTHON] [NAME...]

With names (of pages, without suffix) only these are judged anew; the table is made from what the pages say.
Airflow has interpreters of its own, with this project installed beside it, and so have the pools of others.
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

    :param found: what a reader of its page should know first.
    :param interpreter: the option that tells which Python has it; this one by default.
    :param environment: variables that choose its mode.
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
        "NaN is taken, and nothing ever runs; a `submit()` that raises for want of threads still runs "
        "its task later",
    ),
    Subject(
        "process-pool",
        "`ProcessPoolExecutor`",
        "concurrent.futures:ProcessPoolExecutor",
        "its workers copy what they share with the host; one dead worker breaks the pool; an exception that "
        "cannot be unpickled does so too; workers outlive a killed host",
    ),
    Subject(
        "loky",
        "loky",
        "loky:ProcessPoolExecutor",
        "one dead worker breaks the pool; workers outlive a killed host",
    ),
    Subject(
        "multiprocessing-pool",
        "`multiprocessing.Pool`",
        "fixtures.peers:MultiprocessingPool",
        "the task of a killed worker never ends; a killed idle worker stops everything; `end()` hangs",
    ),
    Subject(
        "deadpool",
        "deadpool 2026.7.1",
        "fixtures.pools:deadpool",
        "a `submit()` waits for ever beside 1,000 waiting calls (its default bound); a call that was taken "
        "when no process could be made has no outcome; -1 is taken, and nothing ever runs",
        "pools",
    ),
    Subject(
        "executorlib",
        "executorlib 1.11.0 `SingleNodeExecutor`",
        "fixtures.pools:executorlib",
        "`shutdown()` after `cancel()` never returns, nor does the interpreter exit without it; a whole "
        "processor while all wait; a worker outlives a killed host; -1 and `'4'` are taken, and nothing runs",
        "pools",
    ),
    Subject(
        "more-executors",
        "more-executors 2.11.4 `with_retry`",
        "fixtures.pools:more_executors",
        "`shutdown(wait=True)` leaves accepted calls undone, and `cancel_futures` leaves futures that "
        "are never done; NaN is taken, and nothing ever runs",
        "pools",
    ),
    Subject(
        "futurist",
        "futurist 3.5.0 `ThreadPoolExecutor`",
        "fixtures.pools:futurist",
        "a shortage of threads costs capacity for good; `cancel_futures` is taken, and not looked at",
        "pools",
    ),
    Subject(
        "airflow-2.11.2-local",
        "Airflow 2.11.2 `LocalExecutor`",
        _AIRFLOW,
        "queued tasks are dropped by `end()`; what is queued after it is lost, with an error out of "
        "`heartbeat()`; `sys.exit(0)` counts as failed; `terminate()` does nothing; the task of a killed "
        "worker is never reported, and `end()` hangs then; workers outlive a killed host, and copy what they "
        "share with a living one",
        "airflow2",
    ),
    Subject(
        "airflow-2.11.2-local-new-interpreter",
        "the same, with new interpreters",
        _AIRFLOW,
        "the same but for `sys.exit(0)`; a task reads the host's standard input",
        "airflow2",
        (("AIRFLOW__CORE__EXECUTE_TASKS_NEW_PYTHON_INTERPRETER", "True"),),
    ),
    Subject(
        "airflow-3.3.2-local",
        "Airflow 3.3.2 `LocalExecutor`",
        _AIRFLOW,
        "slots are not counted; queued tasks are dropped by `end()`; `terminate()` does nothing; a key "
        "runs twice at once; a killed idle worker deadlocks the rest; the task of a killed worker is never "
        "reported; a backlog blocks the heartbeat; `end()` hangs where one worker has gone before "
        "the next gets its pill; interpreter exit hangs",
        "airflow3",
    ),
)

_README = """\
# Results on real executors

<!-- written by `python -m benchmarks.results`; do not edit -->

Reports as the suite writes them (`--conformance-report=PATH.md`), at level `must`, on Linux with 2
processors. What is not conformant is so by a `must`; rules of level `should` and `may` are judged and
counted, too.

{table}

`multiprocessing.Pool` is judged behind the thin adapter in `fixtures/peers.py`; the others as they are, those
of `fixtures/pools.py` as their documentation makes them.
Airflow 3 runs callback workloads in its own supervisor. Airflow 2 runs its own command, at whose end
something is replaced: its report says what.
"""


def main() -> int:
    """Judge and write; the exit status."""
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
    parser.add_argument("--pools", metavar="PYTHON", help="with what fixtures/pools.py names")
    parser.add_argument("--airflow2", metavar="PYTHON", help="with Airflow 2.11.2")
    parser.add_argument("--airflow3", metavar="PYTHON", help="with Airflow 3.3.2")
    options = parser.parse_args()
    pages = [one.page for one in SUBJECTS]
    if unknown := sorted(set(options.names) - set(pages)):
        parser.error(f"there is no page {', '.join(unknown)}; there are {', '.join(pages)}")
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
            raise SystemExit(f"no report was written of {subject.page}:\n{done.stdout}")
        text = written.read_text(encoding="utf-8")
        prefix = Path(python).parents[1]
        for place in (f"{prefix}/bin/", f"{prefix}/", f"{folder}/", f"{REPOSITORY}/"):  # of this machine
            text = text.replace(place, "")
        text = text.replace(str(REPOSITORY), ".")
        page.write_text(text, encoding="utf-8")


def _table() -> Iterable[str]:
    yield f"| executor | {' | '.join(_COLUMNS)} | what was found, among other things |"
    yield "|---|" + "---:|" * len(_COLUMNS) + "---|"
    for subject in SUBJECTS:
        page = PAGES / f"{subject.page}.md"
        if page.exists():
            counts = " | ".join(str(count) for count in _counts(page.read_text(encoding="utf-8")))
            yield f"| [{subject.title}]({page.name}) | {counts} | {subject.found} |"


def _counts(page: str) -> list[int]:
    """Of each column, summed over the chapters."""
    rows = [
        [int(cell) for cell in row.split("|")[2 : 2 + len(_COLUMNS)]]
        for row in page.splitlines()
        if re.match(r"\| \w+ \| \d+ \|", row)
    ]
    return [sum(column) for column in zip(*rows, strict=True)]


if __name__ == "__main__":
    sys.exit(main())
