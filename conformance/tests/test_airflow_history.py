"""A metadata database of Airflow becomes a history; rows are as Airflow 3.3.2 writes them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from executor_conformance.__main__ import main
from executor_conformance.airflow_history import NotAirflow, history
from executor_conformance.history import HistoryJudge, judge_lines

_TRIES = "dag_id, task_id, run_id, try_number, map_index, state, queued_dttm, start_date, end_date"
RUN = "manual__2026-11-21"


class Database:
    """A metadata database with the columns that are read."""

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

    def offences(self) -> list[str]:
        return [offence.rule for offence in judge_lines(self.lines(), HistoryJudge())]


def _time(second: int) -> str:
    return f"2026-11-21 10:00:{second:02}.000000"


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "airflow.db")


def test_a_good_day_is_clean(database: Database) -> None:
    database.add_try("retried", "failed", 1, 2, 3, table="task_instance_history")
    database.add_log(2, "running", "retried")
    database.add_log(3, "up_for_retry", "retried")
    database.add_try("retried", "success", 4, 5, 6, number=2)
    database.add_log(5, "running", "retried", number=2)
    database.add_log(6, "success", "retried", number=2)
    database.add_try("skipped", "skipped", 1, 2, 3)
    database.add_log(2, "running", "skipped")
    database.add_log(3, "skipped", "skipped")
    assert database.offences() == []
    assert sum('"submitted"' in line for line in database.lines()) == 3
    assert database.lines()[-1] == '{"event": "ended"}'


def test_what_never_met_an_executor_is_left_out(database: Database) -> None:
    database.add_try("empty", "success", None, 2, 2)
    database.add_try("not_yet", None)
    assert database.lines() == ['{"event": "ended"}']


def test_the_history_of_a_system_at_work_has_no_end(database: Database) -> None:
    database.add_try("at_work", "running", 1, 2)
    database.add_log(2, "running", "at_work")
    assert '"ended"' not in database.lines()[-1]
    assert database.offences() == []


def test_without_its_log_a_try_is_told_by_the_tables(database: Database) -> None:
    database.add_try("good", "success", 1, 2, 3)
    database.add_try("bad", "failed", 1, 2, 3)
    assert database.offences() == []
    assert sum('"finished"' in line for line in database.lines()) == 2


def test_a_deferred_try_runs_in_pieces(database: Database) -> None:
    database.add_try("deferred", "success", 5, 6, 7)
    database.add_log(2, "running", "deferred")
    database.add_log(3, "deferred", "deferred")
    database.add_log(6, "running", "deferred")
    database.add_log(7, "success", "deferred")
    assert database.offences() == []


def test_a_try_that_was_killed_and_never_reported_is_found(database: Database) -> None:
    database.add_try("killed", "failed", 1, 2, 9)
    database.add_log(2, "running", "killed")
    database.add_log(8, "heartbeat timeout", "killed", extra="Task did not emit heartbeat")
    database.add_log(8, "state mismatch", "killed", extra="finished with state failed, but ... is running")
    database.add_log(9, "failed", "killed")
    assert database.offences() == ["faults.a-killed-worker-fails-its-task"]


def test_a_try_that_was_lost_is_found(database: Database) -> None:
    database.add_try("lost", "failed", 1, None, 9)
    assert database.offences() == ["shutdown.accepted-work-is-finished"]


def test_a_try_that_ran_twice_at_once_is_found(database: Database) -> None:
    database.add_try("doubled", "success", 1, 2, 5)
    database.add_log(2, "running", "doubled")
    database.add_log(3, "running", "doubled")
    database.add_log(5, "success", "doubled")
    assert database.offences() == ["states.a-key-in-flight-never-runs-twice-at-once"]


def test_a_success_of_what_never_ran_is_found(database: Database) -> None:
    database.add_try("unrun", "failed", 1, None, 4)
    text = "reported that the task instance <...> finished with state success, but the state is queued"
    database.add_log(3, "state mismatch", "unrun", extra=text)
    assert database.offences() == ["states.no-terminal-event-before-the-end"]


@pytest.mark.parametrize("event", ["stuck in queued reschedule", "patch_task_instance"])
def test_what_was_taken_back_is_not_awaited(database: Database, event: str) -> None:
    database.add_try("taken_back", "failed", 1, None, 5)
    database.add_log(4, event, "taken_back")
    assert database.offences() == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("missing.db", "unable to open"),
        ("postgresql://host/airflow", "is not in SQLite"),
        (__file__, "not a database"),
    ],
)
def test_what_is_no_database_of_airflow_is_told(name: str, hint: str) -> None:
    with pytest.raises(NotAirflow, match=hint):
        list(history(name))


def test_the_command_writes_what_the_judge_reads(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database.add_try("lost", "failed", 1, None, 9)
    database.lines()
    assert main(["history-from-airflow", str(database.path)]) == 0
    log = tmp_path / "events.jsonl"
    log.write_text(capsys.readouterr().out)
    assert main(["check-history", str(log)]) == 1
    assert "dag/lost/manual__2026-11-21/1/-1 was accepted" in capsys.readouterr().out


def test_a_database_that_is_none_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history-from-airflow", str(tmp_path / "missing.db")]) == 4
    assert "missing.db" in capsys.readouterr().err
