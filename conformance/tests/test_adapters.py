"""Adapters are checked when they are loaded, and share what families have in common."""

from __future__ import annotations

import concurrent.futures
import io
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from executor_conformance.adapters import (
    Adapter,
    Call,
    CannotDrive,
    Capability,
    Driver,
    FutureDriver,
    Submission,
    TaskKey,
    Work,
    airflow2,
    outcome_of,
    registry,
)
from executor_conformance.adapters.airflow3 import Airflow3Adapter
from executor_conformance.adapters.registry import AdapterError, adapters, check, unusable
from executor_conformance.harness import other_host
from executor_conformance.harness.calibration import Budgets
from executor_conformance.harness.target import Target


class Right(Adapter):
    family = "right"
    names: ClassVar = {Call.END: "close()"}
    lacks: ClassVar = {Capability.TERMINATE: "it has no terminate()"}

    @classmethod
    def recognizes(cls, candidate: object) -> bool:
        return False

    def drive(self, executor: Any) -> Driver:
        raise NotImplementedError


def test_every_installed_adapter_is_right() -> None:
    assert {"native", "futures", "asyncio", "airflow2", "airflow3"} <= set(adapters())
    check(Right, "adapter 'right'")


def with_attributes(**attributes: Any) -> type[Adapter]:
    return type("Wrong", (Right,), attributes)


@pytest.mark.parametrize(
    ("adapter", "parts"),
    [
        (
            with_attributes(names={"edn()": "close()"}),
            ["names has the key 'edn()'", "did you mean Call.END?"],
        ),
        (with_attributes(names={"END": "close()"}), ["names has the key 'END'", "did you mean Call.END?"]),
        (
            with_attributes(lacks={"TERMINAT": "it has none"}),
            ["lacks has the key 'TERMINAT'", "did you mean Capability.TERMINATE?"],
        ),
        (with_attributes(lacks={Call.TERMINATE: "it has none"}), ["not a Capability"]),
        (object, ["not a subclass of executor_conformance.adapters.Adapter"]),
        (Right(), ["not a subclass of executor_conformance.adapters.Adapter"]),
    ],
)
def test_a_wrong_adapter_is_an_error_with_a_suggestion(adapter: Any, parts: list[str]) -> None:
    with pytest.raises(AdapterError) as error:
        check(adapter, "adapter 'wrong' (wrong:Adapter)")
    for part in ["adapter 'wrong' (wrong:Adapter)", *parts]:
        assert part in str(error.value)


@dataclass
class EntryPoint:
    name: str
    value: str
    loads: Any

    def load(self) -> Any:
        if isinstance(self.loads, Exception):
            raise self.loads
        return self.loads


def test_a_broken_adapter_is_in_the_way_of_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("right", "right:Right", Right),
        EntryPoint("wrong", "wrong:Wrong", with_attributes(names={"edn()": "close()"})),
        EntryPoint("missing", "missing:Adapter", ImportError("No module named 'missing'")),
    ]
    monkeypatch.setattr(registry.metadata, "entry_points", lambda group: points)
    registry._load.cache_clear()
    try:
        assert list(adapters()) == ["right"]
        assert list(unusable()) == ["wrong", "missing"]
        assert unusable()["missing"] == (
            "adapter 'missing' (missing:Adapter) cannot be imported: ImportError: No module named 'missing'"
        )
        with pytest.raises(AdapterError, match=r"--executor-adapter='wrong': .* did you mean Call\.END\?"):
            registry.choose(object, "wrong", "module:Class")
    finally:
        registry._load.cache_clear()


class CannotDriveAny(Right):
    def drive(self, executor: Any) -> Driver:
        raise CannotDrive("there is no task that it would run")


def test_what_cannot_be_driven_in_a_new_interpreter_is_not_applicable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    order = {
        "spec": "builtins:object",
        "family": "right",
        "options": {},
        "path": sys.path,
        "scratch": str(tmp_path),
        "ready": str(ready),
        "first_task_s": 0.1,
        "ends": False,
        "status": 0,
        "left": "",
        "budgets": asdict(Budgets(arrival_s=1, quiet_s=0.1, call_s=1, stop_s=1, block_s=1)),
    }

    def leave(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(
        other_host, "import_target", lambda *_: Target("builtins:object", object, CannotDriveAny())
    )
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(order)))
    monkeypatch.setattr(other_host.os, "_exit", leave)
    with pytest.raises(SystemExit) as left:
        other_host.main()
    assert left.value.code == other_host.CANNOT_RUN
    assert ready.read_text() == "there is no task that it would run"


def test_the_familys_names_are_used_in_messages() -> None:
    assert Right().name_of(Call.END) == "close()"
    assert Right().name_of(Call.START) == "start()"
    assert Right().name_of("running") == "running"


class Threads(FutureDriver):
    def send(self, work: Work) -> concurrent.futures.Future[object]:
        assert work.function is not None
        future: concurrent.futures.Future[object] = self.executor.submit(work.function)
        return future

    def end(self) -> None:
        self.executor.shutdown()


def test_a_driver_for_an_engine_that_returns_futures_is_short() -> None:
    driver = Threads(concurrent.futures.ThreadPoolExecutor(1))
    keys = [TaskKey("dag", name, "run") for name in ("good", "bad")]
    driver.submit(Submission(keys[0], Work(function=lambda: 7)))
    driver.submit(Submission(keys[1], Work(function=lambda: 1 // 0)))
    driver.end()
    events = driver.events()
    assert events[keys[0]] == ("success", 7)
    state, info = events[keys[1]]
    assert state == "failed"
    assert isinstance(info, ZeroDivisionError)
    assert driver.events() == {}
    with pytest.raises(NotImplementedError, match=r"Capability\.TERMINATE"):
        driver.terminate()


def test_each_future_of_a_key_is_an_event_of_its_own() -> None:
    driver = Threads(concurrent.futures.ThreadPoolExecutor(1))
    key = TaskKey("dag", "task", "run")
    for number in range(2):
        driver.submit(Submission(key, Work(function=lambda number=number: number)))
    driver.end()
    assert [driver.events(), driver.events()] == [{key: ("success", 0)}, {key: ("success", 1)}]


def test_a_cancelled_future_has_failed() -> None:
    future: concurrent.futures.Future[object] = concurrent.futures.Future()
    future.cancel()
    assert outcome_of(future) == ("failed", "cancelled")


def test_what_cannot_be_driven_says_why() -> None:
    with pytest.raises(CannotDrive, match="supports_callbacks is not true"):
        Airflow3Adapter().drive(object())


def test_airflow_2_knows_the_defaults_of_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class ProvidersManager:
        def initialize_providers_configuration(self) -> None:
            calls.append("loaded")

    module = ModuleType("airflow.providers_manager")
    monkeypatch.setitem(sys.modules, "airflow", ModuleType("airflow"))
    monkeypatch.setitem(sys.modules, "airflow.providers_manager", module)
    airflow2._load_providers_configuration()  # one without a ProvidersManager is no error
    module.ProvidersManager = ProvidersManager  # type: ignore[attr-defined]
    airflow2._load_providers_configuration()
    assert calls == ["loaded"]
