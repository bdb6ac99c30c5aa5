"""Makes an event log from Airflow's metadata database: what was queued, ran, ended and was contradicted.

Airflow keeps, for each try of a task, when it was queued, started and ended (``task_instance``, and
``task_instance_history`` for tries before the last), and a log of what happened to it (``log``).  It does not
keep what the executor reported, except where the scheduler found that to contradict the task's own state
("state mismatch").  Where it found nothing, the report is taken to have agreed with the task.

Rows are read in the order of time and written one by one; only tries in flight are remembered.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Iterator
from typing import Any

from executor_conformance.contract import FAILED, SUCCESS
from executor_conformance.history.checker import Kind

#: How the task itself ended, in ``log.event`` and ``task_instance.state`` -> the outcome for the executor: a
#: run that ended well, not work that is done.
_ENDS = {
    "success": SUCCESS,
    "skipped": SUCCESS,
    "deferred": SUCCESS,
    "up_for_reschedule": SUCCESS,
    "up_for_retry": FAILED,
    "failed": FAILED,
}
_IN_FLIGHT = ("queued", "running", "restarting")
_NO_HEARTBEAT, _MISMATCH = "heartbeat timeout", "state mismatch"
_TAKEN_BACK = "stuck in queued reschedule"
_BY_HAND = ("patch_task_instance", "post_clear_task_instances", "clear", "confirm")
_REPORTED = re.compile(r"finished with state (\w+)")

_KEY = "dag_id, task_id, run_id, try_number, map_index"
_EVENTS = ", ".join(
    repr(event) for event in ("running", *_ENDS, _NO_HEARTBEAT, _MISMATCH, _TAKEN_BACK, *_BY_HAND)
)
_ROWS = f"""
    WITH tries AS (
        SELECT {_KEY}, queued_dttm, start_date, end_date, state FROM task_instance
        UNION ALL
        SELECT {_KEY}, queued_dttm, start_date, end_date, state FROM task_instance_history
    ), queued AS (
        SELECT * FROM tries WHERE queued_dttm IS NOT NULL
    ), logged AS (
        SELECT {_KEY},
               MAX(event = 'running') AS start,
               MAX(event IN ({", ".join(map(repr, _ENDS))})) AS ending
        FROM log WHERE task_id IS NOT NULL AND event IN ({_EVENTS}) GROUP BY {_KEY}
    )
    SELECT queued_dttm AS time, 0 AS place, 'queued' AS event, {_KEY}, NULL AS detail FROM queued
    UNION ALL
    SELECT start_date, 1, 'running', {_KEY}, NULL
    FROM queued LEFT JOIN logged USING ({_KEY}) WHERE start_date IS NOT NULL AND COALESCE(start, 0) = 0
    UNION ALL
    SELECT dttm, 2, event, {_KEY}, extra FROM log WHERE task_id IS NOT NULL AND event IN ({_EVENTS})
    UNION ALL
    SELECT end_date, 3, 'settled', {_KEY}, state || CASE WHEN start THEN '' ELSE ' unlogged' END
    FROM queued LEFT JOIN logged USING ({_KEY}) WHERE end_date IS NOT NULL AND COALESCE(ending, 0) = 0
    ORDER BY 1, 2
"""


class NotAirflow(ValueError):
    """The file is not an Airflow metadata database; the text says why."""


def history(path: str) -> Iterator[str]:
    """The lines of the history of a metadata database in SQLite.

    The last one is ``ended`` if Airflow itself believes that nothing is in flight any more: whatever has no
    end then was lost.

    :param path: of the database file, or its URL (``sqlite:///...``).
    :raises NotAirflow: it is not such a database.
    """
    if "://" in path and not path.startswith("sqlite:"):
        raise NotAirflow(
            f"{path!r} is not in SQLite; copy its tables task_instance, task_instance_history and log there"
        )
    path = re.sub(r"^sqlite:/{0,3}(?=/|[^/])", "", path)
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            yield from _lines(database)
    except sqlite3.Error as error:
        raise NotAirflow(f"{path!r} is not the metadata database of Airflow 2.10 or later: {error}") from None


def _lines(database: sqlite3.Connection) -> Iterator[str]:
    tries = _Tries()
    for _, _, event, dag, task, run, number, index, detail in database.execute(_ROWS):
        for kind, state in tries.take((dag, task, run, number, index), event, detail or ""):
            line: dict[str, Any] = {"event": kind.value, "key": [dag, task, run, number, index]}
            if state:
                line["state"] = state
            yield json.dumps(line)
    marks = ", ".join("?" * len(_IN_FLIGHT))
    query = f"SELECT COUNT(*) FROM task_instance WHERE state IN ({marks})"
    if not database.execute(query, _IN_FLIGHT).fetchone()[0]:
        yield json.dumps({"event": Kind.ENDED.value})


_Key = tuple[Any, ...]
_Events = list[tuple[Kind, str]]


class _Tries:
    """The tries in flight: key -> whether it runs."""

    def __init__(self) -> None:
        self._open: dict[_Key, bool] = {}

    def take(self, key: _Key, event: str, detail: str) -> _Events:
        """The events of a history that a row of the database stands for."""
        if event == "queued":
            return self._accepted(key)
        if event == "running":
            events = self._accepted(key)  # a try that was deferred is queued again, and only the last is kept
            self._open[key] = True
            return [*events, (Kind.STARTED, "")]
        if key not in self._open:
            return []
        if event in _ENDS:
            return self._ended(key, _ENDS[event])
        if event == _MISMATCH:
            return self._contradicted(key, detail)
        if event == "settled":
            return self._settled(key, detail)
        ran = self._open.pop(key)
        if event == _NO_HEARTBEAT:  # what follows is the scheduler's conclusion, not a report of the executor
            return [(Kind.KILLED, "")] if ran else []
        return [(Kind.WITHDRAWN, "")]  # by the scheduler or by hand

    def _accepted(self, key: _Key) -> _Events:
        if key in self._open:
            return []
        self._open[key] = False
        return [(Kind.SUBMITTED, "")]

    def _ended(self, key: _Key, state: str) -> _Events:
        events: _Events = [(Kind.FINISHED, state)] if self._open.pop(key) else []
        return [*events, (Kind.OBSERVED, state)]

    def _contradicted(self, key: _Key, detail: str) -> _Events:
        found = _REPORTED.search(detail)
        state = SUCCESS if found and found[1] == "success" else FAILED
        ran = self._open.pop(key)
        # The task may have ended without having logged it.
        events: _Events = [(Kind.KILLED, "")] if ran and state == FAILED else []
        return [*events, (Kind.OBSERVED, state)]

    def _settled(self, key: _Key, detail: str) -> _Events:
        """The scheduler has closed it, and the task itself logged nothing."""
        state, _, unlogged = detail.partition(" ")
        ran = self._open.pop(key)
        if ran and unlogged:  # the log was purged: the tables have to do
            return [(Kind.FINISHED, _ENDS.get(state, FAILED)), (Kind.OBSERVED, _ENDS.get(state, FAILED))]
        if state != "failed":
            return [(Kind.WITHDRAWN, "")]
        return [(Kind.KILLED, "")] if ran else []  # and the executor reported nothing
