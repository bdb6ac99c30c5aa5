"""What identifies one try of one task."""

from __future__ import annotations

from typing import NamedTuple


class TaskKey(NamedTuple):
    """The fields are those of Airflow's ``TaskInstanceKey``.

    Any hashable tuple is taken as a key; this one is for those who have none of their own.
    """

    dag_id: str
    task_id: str
    run_id: str
    try_number: int = 1
    map_index: int = -1
