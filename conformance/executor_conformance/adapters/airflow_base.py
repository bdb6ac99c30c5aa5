"""What the adapters for Airflow 2 and 3 share: both drive subclasses of its ``BaseExecutor``."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

from executor_conformance.adapters.api import Adapter, Driver
from executor_conformance.contract import Call


class AirflowDriver(Driver):
    """Calls an executor as Airflow's scheduler does."""

    pump_call = Call.HEARTBEAT

    def __init__(self, executor: Any) -> None:
        self.executor = executor

    def start(self) -> None:
        self.executor.start()

    def pump(self) -> None:
        self.executor.heartbeat()

    def sync(self) -> None:
        self.executor.sync()

    def end(self) -> None:
        self.executor.end()

    def terminate(self) -> None:
        self.executor.terminate()


class AirflowAdapter(Adapter):
    """Recognized as subclasses of ``airflow.executors.base_executor.BaseExecutor`` of one major version."""

    #: Whether it is Airflow 3, the first with workloads.
    has_workloads: ClassVar[bool]
    #: Set before Airflow is imported, unless the user has set them.
    environment: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def recognizes(cls, candidate: object) -> bool:
        base = sys.modules.get("airflow.executors.base_executor")
        if base is None or hasattr(base.BaseExecutor, "queue_workload") is not cls.has_workloads:
            return False
        kind = candidate if inspect.isclass(candidate) else type(candidate)
        return issubclass(kind, base.BaseExecutor)

    def prepare(self, scratch: str) -> None:
        if importlib.util.find_spec("airflow") is None:
            return
        os.environ.setdefault("AIRFLOW_HOME", os.path.join(scratch, "airflow"))
        for name, value in self.environment.items():
            os.environ.setdefault(name, value)
