"""The key that identifies one try of one task."""

from __future__ import annotations

from typing import NamedTuple


class TaskKey(NamedTuple):
    """A key with the fields of Airflow's ``TaskInstanceKey``.

    The executors accept any hashable value as a key.  ``dag_ids`` filters by ``key.dag_id``, or by the first
    item of a plain tuple.
    """

    dag_id: str
    task_id: str
    run_id: str
    try_number: int = 1
    map_index: int = -1
