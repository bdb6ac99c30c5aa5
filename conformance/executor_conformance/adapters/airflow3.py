"""Airflow 3: subclasses of its ``BaseExecutor``, driven with real callback workloads.

A probe is an ``ExecuteCallback`` workload: Airflow's own supervisor imports and calls it in a process of its
own, with no API server and no database.  Nothing of Airflow is patched.  Keys are the callbacks' ids, so a
``TaskKey`` is turned into a UUID and back.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import uuid
from collections.abc import Sequence
from typing import Any, ClassVar

from executor_conformance.contract import TaskKey
from executor_conformance.driving import ABSENT, Adapter, Capability, Driver, Submission
from executor_conformance.verdicts import NotApplicable

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "executor-conformance")

#: Set before Airflow is imported, unless the user has set them.
_ENVIRONMENT = {
    "AIRFLOW__API_AUTH__JWT_SECRET": "executor-conformance-" * 4,
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    # With the default of 5 s, several callbacks in a hundred are reported that much late.
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "0",
}


class Airflow3Driver(Driver):
    """Does what Airflow's scheduler does with an executor."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor
        self._keys: dict[str, TaskKey] = {}

    def start(self) -> None:
        self.executor.start()

    def submit(self, submission: Submission) -> None:
        from airflow.executors.workloads import ExecuteCallback

        if not getattr(self.executor, "supports_callbacks", False):
            raise NotApplicable("the executor takes no callback workloads (supports_callbacks is not true)")
        assert submission.work.reference is not None
        path, arguments = submission.work.reference
        workload = ExecuteCallback(
            callback={
                "id": self._identity(submission.key),
                "fetch_method": "import_path",
                "data": {"path": path, "kwargs": dict(arguments)},
            },
            token="",
            dag_rel_path="",
            log_path=None,
            bundle_info={"name": ""},
        )
        self.executor.queue_workload(workload, session=None)

    def _identity(self, key: TaskKey) -> str:
        identity = str(uuid.uuid5(_NAMESPACE, repr(tuple(key))))
        self._keys[identity] = key
        return identity

    def pump(self) -> None:
        self.executor.heartbeat()

    def sync(self) -> None:
        self.executor.sync()

    def events(self, dag_ids: Sequence[str] | None = None) -> Any:
        events = self.executor.get_event_buffer()
        if not isinstance(events, dict):
            return events
        return {self._keys.get(str(getattr(key, "id", key)), key): event for key, event in events.items()}

    def end(self) -> None:
        self.executor.end()

    def terminate(self) -> None:
        self.executor.terminate()

    def forget(self) -> None:
        self._keys.clear()

    def optional(self, name: str) -> Any:
        # Callbacks have no priority, and their queue has another name than the tasks'.
        if name in ("queue_command", "command_kinds"):
            return ABSENT
        if name == "queued_tasks":
            name = "queued_callbacks"
        return getattr(self.executor, name, ABSENT)

    def holds(self, collection: Any, key: TaskKey) -> bool:
        identity = str(uuid.uuid5(_NAMESPACE, repr(tuple(key))))
        return any(str(getattr(held, "id", held)) == identity for held in collection)


class Airflow3Adapter(Adapter):
    """Recognised as subclasses of ``airflow.executors.base_executor.BaseExecutor`` of Airflow 3."""

    family = "airflow3"
    required_methods: ClassVar = (
        "start",
        "queue_workload",
        "heartbeat",
        "sync",
        "get_event_buffer",
        "end",
        "terminate",
    )
    words: ClassVar = {"execute_async()": "queue_workload()", "pump": "heartbeat()"}
    lacks: ClassVar = {
        Capability.COROUTINE: "an Airflow 3 workload names a callable, which its worker calls",
        Capability.ARGV: "an Airflow 3 workload names a callable, not a command line",
        Capability.QUEUE_AND_CONFIG: "an Airflow 3 callback workload has neither queue nor executor_config",
        Capability.EVENT_FILTER: "an Airflow 3 callback belongs to no DAG, so the filter does not concern it",
        Capability.RESULTS: "what an Airflow 3 callback returns stays in its process",
    }

    @classmethod
    def recognises(cls, candidate: object) -> bool:
        base = sys.modules.get("airflow.executors.base_executor")
        if base is None or not hasattr(base.BaseExecutor, "queue_workload"):
            return False
        kind = candidate if inspect.isclass(candidate) else type(candidate)
        return issubclass(kind, base.BaseExecutor)

    def drive(self, executor: Any) -> Driver:
        return Airflow3Driver(executor)

    def prepare(self, scratch: str) -> None:
        if importlib.util.find_spec("airflow") is None:
            return
        os.environ.setdefault("AIRFLOW_HOME", os.path.join(scratch, "airflow"))
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
