"""Tests of the conversion of an Airflow metadata database; the rows are those of Airflow 3.3.2."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor_conformance.__main__ import main
from executor_conformance.history.airflow import NotAirflow, history
from executor_conformance.history.checker import HistoryChecker, check_lines

_TRIES = "dag_id, task_id, run_id, try_number, map_index, state, queued_dttm, start_date, end_date"
RUN = "manual__2026-11-21"


class Database:
    """A metadata database with the columns that the conversion reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = sqlite3.connect(path)
        for table in ("task_instance", "task_instance_history"):
            self._connection.execute(f"CREATE TABLE {table} ({_TRIES})")
        self._connection.execute(
            "CREATE TABLE log (dttm, event, dag_id, task_id, run_id, try_number, map_index, extra)"
        )

    def add_try(
        self,
        task: str,
        state: str | None,
        queued: int | None = None,
        start: int | None = None,
        end: int | None = None,
        number: int = 1,
        table: str = "task_instance",
    ) -> None:
        times = [None if time is None else _time(time) for time in (queued, start, end)]
        self._connection.execute(
            f"INSERT INTO {table} ({_TRIES}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            ("dag", task, RUN, number, -1, state, *times),
        )

    def add_log(self, time: int, event: str, task: str, number: int = 1, extra: str = "") -> None:
        self._connection.execute(
            "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (_time(time), event, "dag", task, RUN, number, -1, extra),
        )

    def lines(self) -> list[str]:
        self._connection.commit()
        return list(history(str(self.path)))

    def close(self) -> None:
        self._connection.close()

    def violations(self) -> list[str]:
        return [violation.rule for violation in check_lines(self.lines(), HistoryChecker())]


def _time(second: int) -> str:
    return f"2026-11-21 10:00:{second:02}.000000"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with contextlib.closing(Database(tmp_path / "airflow.db")) as opened:
        yield opened


def test_correct_history_has_no_violations(database: Database) -> None:
    database.add_try("retried", "failed", 1, 2, 3, table="task_instance_history")
    database.add_log(2, "running", "retried")
    database.add_log(3, "up_for_retry", "retried")
    database.add_try("retried", "success", 4, 5, 6, number=2)
    database.add_log(5, "running", "retried", number=2)
    database.add_log(6, "success", "retried", number=2)
    database.add_try("skipped", "skipped", 1, 2, 3)
    database.add_log(2, "running", "skipped")
    database.add_log(3, "skipped", "skipped")
    assert database.violations() == []
    assert sum('"submitted"' in line for line in database.lines()) == 3
    assert database.lines()[-1] == '{"event": "ended"}'


def test_tries_without_an_executor_are_left_out(database: Database) -> None:
    database.add_try("empty", "success", None, 2, 2)
    database.add_try("not_yet", None)
    assert database.lines() == ['{"event": "ended"}']


def test_history_with_running_tasks_has_no_ended_event(database: Database) -> None:
    database.add_try("at_work", "running", 1, 2)
    database.add_log(2, "running", "at_work")
    assert '"ended"' not in database.lines()[-1]
    assert database.violations() == []


def test_try_without_log_rows_is_taken_from_the_tables(database: Database) -> None:
    database.add_try("good", "success", 1, 2, 3)
    database.add_try("bad", "failed", 1, 2, 3)
    assert database.violations() == []
    assert sum('"finished"' in line for line in database.lines()) == 2


def test_deferred_try_runs_in_two_parts(database: Database) -> None:
    database.add_try("deferred", "success", 5, 6, 7)
    database.add_log(2, "running", "deferred")
    database.add_log(3, "deferred", "deferred")
    database.add_log(6, "running", "deferred")
    database.add_log(7, "success", "deferred")
    assert database.violations() == []


def test_killed_try_without_event_is_found(database: Database) -> None:
    database.add_try("killed", "failed", 1, 2, 9)
    database.add_log(2, "running", "killed")
    database.add_log(8, "heartbeat timeout", "killed", extra="Task did not emit heartbeat")
    database.add_log(8, "state mismatch", "killed", extra="finished with state failed, but ... is running")
    database.add_log(9, "failed", "killed")
    assert database.violations() == ["faults.a-killed-worker-fails-its-task"]


def test_lost_try_is_found(database: Database) -> None:
    database.add_try("lost", "failed", 1, None, 9)
    assert database.violations() == ["shutdown.end-finishes-queued-tasks"]


def test_concurrent_runs_of_one_try_are_found(database: Database) -> None:
    database.add_try("doubled", "success", 1, 2, 5)
    database.add_log(2, "running", "doubled")
    database.add_log(3, "running", "doubled")
    database.add_log(5, "success", "doubled")
    assert database.violations() == ["states.no-concurrent-runs-of-one-key"]


def test_success_without_a_run_is_found(database: Database) -> None:
    database.add_try("unrun", "failed", 1, None, 4)
    text = "reported that the task instance <...> finished with state success, but the state is queued"
    database.add_log(3, "state mismatch", "unrun", extra=text)
    assert database.violations() == ["states.no-terminal-event-before-the-task-ends"]


@pytest.mark.parametrize("event", ["stuck in queued reschedule", "patch_task_instance"])
def test_revoked_try_needs_no_event(database: Database, event: str) -> None:
    database.add_try("revoked", "failed", 1, None, 5)
    database.add_log(4, event, "revoked")
    assert database.violations() == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("missing.db", "unable to open"),
        ("postgresql://host/airflow", "is not in SQLite"),
        (__file__, "not a database"),
    ],
)
def test_other_databases_are_rejected(name: str, hint: str) -> None:
    with pytest.raises(NotAirflow, match=hint):
        list(history(name))


def test_check_history_reads_the_output_of_the_command(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database.add_try("lost", "failed", 1, None, 9)
    database.lines()
    assert main(["history-from-airflow", str(database.path)]) == 0
    log = tmp_path / "events.jsonl"
    log.write_text(capsys.readouterr().out)
    assert main(["check-history", str(log)]) == 1
    assert "dag/lost/manual__2026-11-21/1/-1 was accepted" in capsys.readouterr().out


def test_missing_database_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history-from-airflow", str(tmp_path / "missing.db")]) == 4
    assert "missing.db" in capsys.readouterr().err
