"""Tests of the client, with a fake service."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("aiobotocore")

from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError

from examples.batch.calls import Calls, OutcomeUnknown
from examples.batch.jobs import job_name
from examples.batch.monitor import Monitor, UnknownJob
from executor_reference import TaskKey

Answer = dict[str, Any]


class _Client:
    """Returns or raises the given answers, one after the other."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)

    async def ask(self, **_: Any) -> Answer:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def _error(status: int, code: str) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Ask")


_THROTTLED = _error(429, "TooManyRequestsException")
_SERVER_ERROR = _error(500, "ServerException")
_REJECTED = _error(400, "ClientException")
_CONNECTION_CLOSED = ConnectionClosedError(endpoint_url="")
_NO_CONNECTION = EndpointConnectionError(endpoint_url="")
_ANSWER: Answer = {"a": 1}


def _calls(*answers: Answer | Exception) -> Calls:
    return Calls(_Client(*answers), base_s=0)


@pytest.mark.parametrize("repeatable", [True, False])
def test_throttling_is_always_retried(repeatable: bool) -> None:
    calls = _calls(*[_THROTTLED] * 50, _ANSWER)
    assert asyncio.run(calls("ask", repeatable=repeatable)) == _ANSWER
    assert (calls.throttled, calls.unknown_outcomes) == (50, 0)


@pytest.mark.parametrize("failure", [_SERVER_ERROR, _CONNECTION_CLOSED, _NO_CONNECTION])
def test_call_with_unknown_outcome_is_retried_if_repeatable(failure: Exception) -> None:
    assert asyncio.run(_calls(failure, failure, _ANSWER)("ask")) == _ANSWER
    with pytest.raises(OutcomeUnknown):
        asyncio.run(_calls(failure, _ANSWER)("ask", repeatable=False))


def test_retries_after_unknown_outcomes_are_limited() -> None:
    with pytest.raises(ClientError):
        asyncio.run(_calls(*[_SERVER_ERROR] * 20)("ask"))


def test_client_error_is_not_retried() -> None:
    calls = _calls(_REJECTED, _ANSWER)
    with pytest.raises(ClientError):
        asyncio.run(calls("ask"))


class _Service:
    """Replaces :class:`Calls`: describes jobs with a function, and records the requests."""

    def __init__(self, describe: Callable[[list[str]], list[Answer]]) -> None:
        self.asked: list[list[str]] = []
        self._describe = describe

    async def __call__(self, operation: str, *, jobs: list[str]) -> Answer:
        assert operation == "describe_jobs"
        self.asked.append(jobs)
        return {"jobs": self._describe(jobs)}


def _wait_for(service: _Service, ids: list[str]) -> list[Any]:
    async def wait() -> list[Any]:
        monitor = Monitor(service, interval_s=0)  # type: ignore[arg-type]
        ends = await asyncio.gather(*map(monitor.wait_for, ids), return_exceptions=True)
        await monitor.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return list(ends)

    return asyncio.run(wait())


def test_jobs_are_polled_by_the_hundred_until_they_end() -> None:
    ids = [str(number) for number in range(250)]
    service = _Service(lambda asked: [{"jobId": id_, "status": "SUCCEEDED"} for id_ in asked])
    assert _wait_for(service, ids) == [("SUCCEEDED", "")] * 250
    assert [len(asked) for asked in service.asked] == [100, 100, 50]


def test_unknown_job_raises_after_several_polls() -> None:
    service = _Service(
        lambda asked: [{"jobId": "a", "status": "FAILED", "statusReason": "why"}][: "a" in asked]
    )
    end, unknown = _wait_for(service, ["a", "b"])
    assert end == ("FAILED", "why")
    assert isinstance(unknown, UnknownJob)
    assert len(service.asked) == 5


def test_rejected_poll_is_raised_in_all_waiting_tasks() -> None:
    def reject(_: list[str]) -> list[Answer]:
        raise _REJECTED

    assert _wait_for(_Service(reject), ["a", "b"]) == [_REJECTED, _REJECTED]


def test_job_name_is_unique_per_try_and_valid_for_batch() -> None:
    first, second = TaskKey("my dag", "täsk", "run:1"), TaskKey("my dag", "täsk", "run:1", 2)
    assert job_name(first).startswith("try-my_dag-t_sk-run_1-1--1-")
    long, longer = TaskKey("d" * 200, "t", "r"), TaskKey("d" * 200, "t", "r", 2)
    names = [job_name(key) for key in (first, second, TaskKey("my dag", "task", "run:1"), long, longer)]
    assert len(set(names)) == 5
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}", name) for name in names)
