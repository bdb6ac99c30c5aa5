"""Tests of the Batch example, against the simulated service, and of the service itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("aiobotocore")
pytest.importorskip("aiohttp")
pytest.importorskip("aiolimiter")

from aiobotocore.config import AioConfig

from examples.batch.behavior import Behavior, Fault, Faults, as_options
from examples.batch.jobs import Jobs, job_name
from examples.batch.process import fetch_truth, run_server
from examples.batch.run import Reports, find_errors, make_keys, run_all
from examples.batch.service import BatchService, ClientError
from executor_reference import AsyncExecutor, Limit, TaskKey

_FAULTY = Behavior(seed=7, seconds=1.0, fail=0.1, throttle=0.2, errors=0.1)
_FAULTLESS = Behavior(seconds=0.2)


async def _run(endpoint: str, keys: list[TaskKey], rate: float = 1000.0) -> tuple[Jobs, Reports]:
    executor = AsyncExecutor(parallelism=len(keys), limits={"submit": Limit(rate=rate)})
    async with Jobs(endpoint, interval_s=0.1, lag_s=0.05) as jobs, executor:
        return jobs, await run_all(executor, jobs, keys)


def test_no_job_is_lost_or_duplicated_by_a_faulty_service() -> None:
    keys = make_keys("bad", 300)
    with run_server(_FAULTY) as endpoint:
        jobs, reports = asyncio.run(_run(endpoint, keys))
        truth = fetch_truth(endpoint)
    assert find_errors(keys, reports, truth) == []
    assert {state for events in reports.values() for state, _ in events} == {"success", "failed"}
    assert jobs.calls.throttled == truth["faults"]["throttled"] > 0
    assert truth["faults"]["lost"] >= jobs.adopted > 0
    assert jobs.running == 0


def test_throttling_only_delays_jobs() -> None:
    keys = make_keys("rate", 60)
    with run_server(Behavior(seconds=0.2, throttle_above=20.0)) as endpoint:
        jobs, reports = asyncio.run(_run(endpoint, keys))
        truth = fetch_truth(endpoint)
    assert find_errors(keys, reports, truth) == []
    assert jobs.calls.throttled == truth["faults"]["throttled"] > 0


def test_rate_limit_avoids_throttling() -> None:
    keys = make_keys("limit", 60)
    with run_server(Behavior(seconds=0.2, throttle_above=200.0)) as endpoint:
        jobs, reports = asyncio.run(_run(endpoint, keys, rate=60.0))
        assert find_errors(keys, reports, fetch_truth(endpoint)) == []
    assert jobs.calls.throttled == 0


def test_retries_by_botocore_submit_jobs_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show that the first test can fail, and why botocore's own retries are off."""
    blind = AioConfig(retries={"mode": "standard", "total_max_attempts": 2})
    monkeypatch.setattr("examples.batch.jobs.CONFIG", blind)
    keys = make_keys("blind", 100)
    with run_server(Behavior(seconds=0.2, errors=0.2)) as endpoint:
        _, reports = asyncio.run(_run(endpoint, keys))
        errors = find_errors(keys, reports, fetch_truth(endpoint))
    assert any("was submitted 2 times" in error for error in errors)


def test_terminate_terminates_the_jobs() -> None:
    keys = make_keys("terminated", 50)

    async def launch_and_terminate(endpoint: str) -> dict[TaskKey, Any]:
        executor = AsyncExecutor()
        async with Jobs(endpoint, interval_s=0.1) as jobs, executor:
            for key in keys:
                executor.execute_async(key, jobs.task(key))
            while jobs.submitted < len(keys):
                await asyncio.to_thread(fetch_truth, endpoint)
            executor.terminate()
            await executor.aclose()
        return executor.get_event_buffer()

    with run_server(Behavior(seconds=600.0)) as endpoint:
        events = asyncio.run(launch_and_terminate(endpoint))
        truth = fetch_truth(endpoint)
    assert events == dict.fromkeys(keys, ("failed", "terminated"))
    terminated = [["FAILED", "its task was cancelled"]]
    assert truth["jobs"] == {job_name(key): terminated for key in keys}


def test_scheduler_without_a_loop() -> None:
    keys = make_keys("threads", 50)
    opening, closing = TaskKey("example", "open", "threads"), TaskKey("example", "close", "threads")
    executor = AsyncExecutor()
    executor.start()
    with run_server(_FAULTY) as endpoint:
        jobs = Jobs(endpoint, interval_s=0.1, lag_s=0.05)
        executor.execute_async(opening, jobs.open)
        assert asyncio.run(executor.wait(opening)) == ("success", None)
        for key in keys:
            executor.execute_async(key, jobs.task(key))
        reports: Reports = {key: [asyncio.run(executor.wait(key))] for key in keys}
        executor.execute_async(closing, jobs.close)
        executor.end()
        assert executor.get_event_buffer() == {closing: ("success", None)}
        assert find_errors(keys, reports, fetch_truth(endpoint)) == []


def test_client_works_with_moto() -> None:
    pytest.importorskip("moto")
    pytest.importorskip("flask")
    from examples.batch.moto_server import run_moto

    keys = make_keys("moto", 5)
    with run_moto() as endpoint:
        jobs, reports = asyncio.run(_run(endpoint, keys))
    assert reports == {key: [("success", None)] for key in keys}
    assert jobs.submitted == 5


# -- the simulated service -----------------------------------------------------------------------------------


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _service(behavior: Behavior, clock: _Clock) -> BatchService:
    service = BatchService(behavior, clock)
    service.call("createcomputeenvironment", {"computeEnvironmentName": "e"})
    service.call(
        "createjobqueue", {"jobQueueName": "q", "computeEnvironmentOrder": [{"computeEnvironment": "e"}]}
    )
    service.call("registerjobdefinition", {"jobDefinitionName": "d"})
    return service


def test_states_of_a_job_over_time() -> None:
    clock = _Clock()
    service = _service(Behavior(seconds=10.0, fail=1.0), clock)
    job_id = service.call("submitjob", {"jobName": "n", "jobQueue": "q", "jobDefinition": "d"})["jobId"]
    seen = []
    for step in range(400):
        clock.now = step / 20
        (job,) = service.call("describejobs", {"jobs": [job_id, "unknown"]})["jobs"]
        seen.append(job["status"])
    assert list(dict.fromkeys(seen)) == ["SUBMITTED", "RUNNABLE", "STARTING", "RUNNING", "FAILED"]
    assert service.truth()["peak"] == 1


@pytest.mark.parametrize(
    ("operation", "asked"),
    [
        ("submitjob", {"jobName": "n", "jobQueue": "none", "jobDefinition": "d"}),
        ("submitjob", {"jobQueue": "q", "jobDefinition": "d"}),
        ("describejobs", {"jobs": [str(number) for number in range(101)]}),
        ("createcomputeenvironment", {"computeEnvironmentName": "e"}),
        ("canceljob", {"jobId": "n"}),
    ],
)
def test_invalid_requests_are_rejected(operation: str, asked: dict[str, Any]) -> None:
    with pytest.raises(ClientError):
        _service(_FAULTLESS, _Clock()).call(operation, asked)


def test_faults_have_the_requested_frequency() -> None:
    faults = Faults(Behavior(throttle=0.1, errors=0.2), _Clock())
    for _ in range(10_000):
        faults.draw()
    assert faults.counts[Fault.THROTTLED] == pytest.approx(1000, rel=0.15)
    assert faults.counts[Fault.REJECTED] == pytest.approx(900, rel=0.15)
    assert faults.counts[Fault.LOST] == pytest.approx(900, rel=0.15)


def test_calls_above_the_rate_are_throttled() -> None:
    clock = _Clock()
    faults = Faults(Behavior(throttle_above=10.0), clock)
    assert [faults.draw() for _ in range(12)] == [Fault.NONE] * 10 + [Fault.THROTTLED] * 2
    clock.now = 0.5
    assert [faults.draw() for _ in range(6)] == [Fault.NONE] * 5 + [Fault.THROTTLED]


def test_behavior_as_options() -> None:
    assert "--throttle-above=50.0" in as_options(Behavior(throttle_above=50.0))
