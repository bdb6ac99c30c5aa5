"""Airflow 3: subclasses of its ``BaseExecutor``, driven with real callback workloads.

A probe is an ``ExecuteCallback`` workload: Airflow's own supervisor imports and calls it in a process of its
own, with no API server and no database.  Nothing of Airflow is patched.  Airflow identifies callbacks by a
UUID, so keys are translated in both directions.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, ClassVar

from executor_conformance.adapters.airflow_base import AirflowAdapter, AirflowDriver
from executor_conformance.adapters.api import ABSENT, CannotDrive, Driver, Submission
from executor_conformance.contract import Call, TaskKey
from executor_conformance.requirements import Capability

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "executor-conformance")


class Airflow3Driver(AirflowDriver):
    """Submits callback workloads."""

    def __init__(self, executor: Any) -> None:
        super().__init__(executor)
        self._keys: dict[str, TaskKey] = {}

    def submit(self, submission: Submission) -> None:
        from airflow.executors.workloads import ExecuteCallback

        assert submission.work.reference is not None
        path, arguments = submission.work.reference
        identity = _identity(submission.key)
        self._keys[identity] = submission.key
        workload = ExecuteCallback(
            callback={
                "id": identity,
                "fetch_method": "import_path",
                "data": {"path": path, "kwargs": dict(arguments)},
            },
            token="",
            dag_rel_path="",
            log_path=None,
            bundle_info={"name": ""},
        )
        self.executor.queue_workload(workload, session=None)

    def events(self, dag_ids: Sequence[str] | None = None) -> Any:
        events = self.executor.get_event_buffer()
        if not isinstance(events, dict):
            return events
        return {self._keys.get(str(getattr(key, "id", key)), key): event for key, event in events.items()}

    def forget(self) -> None:
        self._keys.clear()

    def optional(self, name: str) -> Any:
        # Callbacks have no priority, and their queue has another name than that of tasks.
        if name in ("queue_command", "command_kinds"):
            return ABSENT
        if name == "queued_tasks":
            name = "queued_callbacks"
        return getattr(self.executor, name, ABSENT)

    def holds(self, collection: Any, key: TaskKey) -> bool:
        identity = _identity(key)
        return any(str(getattr(held, "id", held)) == identity for held in collection)


def _identity(key: TaskKey) -> str:
    return str(uuid.uuid5(_NAMESPACE, repr(tuple(key))))


class Airflow3Adapter(AirflowAdapter):
    """Subclasses of Airflow 3's ``BaseExecutor`` that take callback workloads."""

    family = "airflow3"
    has_workloads = True
    environment: ClassVar = {
        "AIRFLOW__API_AUTH__JWT_SECRET": "executor-conformance-" * 4,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        # With the default of 5 s, several callbacks in a hundred are reported that much late.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "0",
    }
    required_methods: ClassVar = (
        "start",
        "queue_workload",
        "heartbeat",
        "sync",
        "get_event_buffer",
        "end",
        "terminate",
    )
    names: ClassVar = {Call.EXECUTE_ASYNC: "queue_workload()"}
    lacks: ClassVar = {
        Capability.COROUTINE: "an Airflow 3 workload names a callable, which its worker calls",
        Capability.ARGV: "an Airflow 3 workload names a callable, not a command line",
        Capability.QUEUE_AND_CONFIG: "an Airflow 3 callback workload has neither queue nor executor_config",
        Capability.EVENT_FILTER: "an Airflow 3 callback belongs to no DAG, so no filter applies to it",
        Capability.RESULTS: "the return value of an Airflow 3 callback stays in its process",
    }

    def drive(self, executor: Any) -> Driver:
        if not getattr(executor, "supports_callbacks", False):
            raise CannotDrive(
                "this executor takes no callback workloads (supports_callbacks is not true), and the suite "
                "has no other tasks for Airflow 3"
            )
        return Airflow3Driver(executor)
