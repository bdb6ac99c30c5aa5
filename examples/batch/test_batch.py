"""What the example promises, held against the truth of the server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("aiobotocore")
pytest.importorskip("aiohttp")
pytest.importorskip("aiolimiter")

from aiobotocore.config import AioConfig

from examples.batch.conduct import Conduct, Fault, Faults, as_options
from examples.batch.jobs import Jobs, job_name
from examples.batch.ledger import ClientError, Ledger
from examples.batch.process import served, truth_of
from examples.batch.run import Reports, broken_promises, keys_of, run_all
from executor_reference import AsyncExecutor, Limit, TaskKey

_BAD = Conduct(seed=7, seconds=1.0, fail=0.1, throttle=0.2, errors=0.1)
_GOOD = Conduct(seconds=0.2)


async def _run(endpoint: str, keys: list[TaskKey], rate: float = 1000.0) -> tuple[Jobs, Reports]:
    executor = AsyncExecutor(parallelism=len(keys), limits={"submit": Limit(rate=rate)})
    async with Jobs(endpoint, interval_s=0.1, lag_s=0.05) as jobs, executor:
        return jobs, await run_all(executor, jobs, keys)


def test_nothing_is_lost_or_doubled_however_the_service_misbehaves() -> None:
    keys = keys_of("bad", 300)
    with served(_BAD) as endpoint:
        jobs, reports = asyncio.run(_run(endpoint, keys))
        truth = truth_of(endpoint)
    assert broken_promises(keys, reports, truth) == []
    assert {state for events in reports.values() for state, _ in events} == {"success", "failed"}
    assert jobs.calls.throttled == truth["faults"]["throttled"] > 0
    assert truth["faults"]["lost"] >= jobs.adopted > 0
    assert jobs.under_way == 0


def test_throttling_above_a_rate_only_delays() -> None:
    keys = keys_of("rate", 60)
    with served(Conduct(seconds=0.2, throttle_above=20.0)) as endpoint:
        jobs, reports = asyncio.run(_run(endpoint, keys))
        truth = truth_of(endpoint)
    assert broken_promises(keys, reports, truth) == []
    assert jobs.calls.throttled == truth["faults"]["throttled"] > 0


def test_a_limit_below_the_rate_of_the_service_meets_no_throttling() -> None:
    keys = keys_of("limit", 60)
    with served(Conduct(seconds=0.2, throttle_above=200.0)) as endpoint:
        jobs, reports = asyncio.run(_run(endpoint, keys, rate=60.0))
        assert broken_promises(keys, reports, truth_of(endpoint)) == []
    assert jobs.calls.throttled == 0


def test_the_truth_tells_of_blind_repetitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the first test could fail, and why botocore's own retries are not used."""
    blind = AioConfig(retries={"mode": "standard", "total_max_attempts": 2})
    monkeypatch.setattr("examples.batch.jobs.CONFIG", blind)
    keys = keys_of("blind", 100)
    with served(Conduct(seconds=0.2, errors=0.2)) as endpoint:
        _, reports = asyncio.run(_run(endpoint, keys))
        broken = broken_promises(keys, reports, truth_of(endpoint))
    assert any("was submitted 2 times" in promise for promise in broken)


def test_terminated_tasks_have_their_jobs_terminated() -> None:
    keys = keys_of("terminated", 50)

    async def launch_and_terminate(endpoint: str) -> dict[TaskKey, Any]:
        executor = AsyncExecutor()
        async with Jobs(endpoint, interval_s=0.1) as jobs, executor:
            for key in keys:
                executor.execute_async(key, jobs.task(key))
            while jobs.submitted < len(keys):
                await asyncio.to_thread(truth_of, endpoint)
            executor.terminate()
            await executor.aclose()
        return executor.get_event_buffer()

    with served(Conduct(seconds=600.0)) as endpoint:
        events = asyncio.run(launch_and_terminate(endpoint))
        truth = truth_of(endpoint)
    assert events == dict.fromkeys(keys, ("failed", "terminated"))
    called_back = [["FAILED", "its task was cancelled"]]
    assert truth["jobs"] == {job_name(key): called_back for key in keys}


def test_a_scheduler_that_has_no_loop() -> None:
    keys = keys_of("threads", 50)
    opening, closing = TaskKey("example", "open", "threads"), TaskKey("example", "close", "threads")
    executor = AsyncExecutor()
    executor.start()
    with served(_BAD) as endpoint:
        jobs = Jobs(endpoint, interval_s=0.1, lag_s=0.05)
        executor.execute_async(opening, jobs.open)
        assert asyncio.run(executor.wait(opening)) == ("success", None)
        for key in keys:
            executor.execute_async(key, jobs.task(key))
        reports: Reports = {key: [asyncio.run(executor.wait(key))] for key in keys}
        executor.execute_async(closing, jobs.close)
        executor.end()
        assert executor.get_event_buffer() == {closing: ("success", None)}
        assert broken_promises(keys, reports, truth_of(endpoint)) == []


def test_the_same_client_against_moto() -> None:
    pytest.importorskip("moto")
    pytest.importorskip("flask")
    from examples.batch.moto_server import moto_served

    keys = keys_of("moto", 5)
    with moto_served() as endpoint:
        jobs, reports = asyncio.run(_run(endpoint, keys))
    assert reports == {key: [("success", None)] for key in keys}
    assert jobs.submitted == 5


# -- the service itself --------------------------------------------------------------------------------------


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _ledger(conduct: Conduct, clock: _Clock) -> Ledger:
    ledger = Ledger(conduct, clock)
    ledger.carry_out("createcomputeenvironment", {"computeEnvironmentName": "e"})
    ledger.carry_out(
        "createjobqueue", {"jobQueueName": "q", "computeEnvironmentOrder": [{"computeEnvironment": "e"}]}
    )
    ledger.carry_out("registerjobdefinition", {"jobDefinitionName": "d"})
    return ledger


def test_states_follow_from_the_clock() -> None:
    clock = _Clock()
    ledger = _ledger(Conduct(seconds=10.0, fail=1.0), clock)
    job_id = ledger.carry_out("submitjob", {"jobName": "n", "jobQueue": "q", "jobDefinition": "d"})["jobId"]
    seen = []
    for step in range(400):
        clock.now = step / 20
        (job,) = ledger.carry_out("describejobs", {"jobs": [job_id, "unknown"]})["jobs"]
        seen.append(job["status"])
    assert list(dict.fromkeys(seen)) == ["SUBMITTED", "RUNNABLE", "STARTING", "RUNNING", "FAILED"]
    assert ledger.truth()["peak"] == 1


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
def test_what_there_is_not_is_refused(operation: str, asked: dict[str, Any]) -> None:
    with pytest.raises(ClientError):
        _ledger(_GOOD, _Clock()).carry_out(operation, asked)


def test_faults_are_as_frequent_as_asked_for() -> None:
    faults = Faults(Conduct(throttle=0.1, errors=0.2), _Clock())
    for _ in range(10_000):
        faults.draw()
    assert faults.counts[Fault.THROTTLED] == pytest.approx(1000, rel=0.15)
    assert faults.counts[Fault.REFUSED] == pytest.approx(900, rel=0.15)
    assert faults.counts[Fault.LOST] == pytest.approx(900, rel=0.15)


def test_calls_above_the_rate_are_throttled() -> None:
    clock = _Clock()
    faults = Faults(Conduct(throttle_above=10.0), clock)
    assert [faults.draw() for _ in range(12)] == [Fault.NONE] * 10 + [Fault.THROTTLED] * 2
    clock.now = 0.5
    assert [faults.draw() for _ in range(6)] == [Fault.NONE] * 5 + [Fault.THROTTLED]


def test_options_survive_the_way_to_another_process() -> None:
    assert "--throttle-above=50.0" in as_options(Conduct(throttle_above=50.0))
