"""The client's side by itself, with a service made up for the moment."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("aiobotocore")

from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError

from examples.batch.calls import Calls, Doubtful
from examples.batch.jobs import job_name
from examples.batch.monitor import Monitor, UnknownJob
from executor_reference import TaskKey

Answer = dict[str, Any]


class _Client:
    """Answers as it was told to, one after the other."""

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
_BROKEN = _error(500, "ServerException")
_REFUSED = _error(400, "ClientException")
_CUT = ConnectionClosedError(endpoint_url="")
_GONE = EndpointConnectionError(endpoint_url="")
_ANSWER: Answer = {"a": 1}


def _calls(*answers: Answer | Exception) -> Calls:
    return Calls(_Client(*answers), base_s=0)


@pytest.mark.parametrize("repeatable", [True, False])
def test_being_throttled_is_no_failure_however_often(repeatable: bool) -> None:
    calls = _calls(*[_THROTTLED] * 50, _ANSWER)
    assert asyncio.run(calls("ask", repeatable=repeatable)) == _ANSWER
    assert (calls.throttled, calls.doubtful) == (50, 0)


@pytest.mark.parametrize("doubt", [_BROKEN, _CUT, _GONE])
def test_a_doubtful_answer_is_asked_for_again_where_that_is_safe(doubt: Exception) -> None:
    assert asyncio.run(_calls(doubt, doubt, _ANSWER)("ask")) == _ANSWER
    with pytest.raises(Doubtful):
        asyncio.run(_calls(doubt, _ANSWER)("ask", repeatable=False))


def test_doubts_come_to_an_end() -> None:
    with pytest.raises(ClientError):
        asyncio.run(_calls(*[_BROKEN] * 20)("ask"))


def test_a_refusal_is_final() -> None:
    calls = _calls(_REFUSED, _ANSWER)
    with pytest.raises(ClientError):
        asyncio.run(calls("ask"))


class _Service:
    """In place of :class:`Calls`: describes jobs by a function, and keeps what it was asked."""

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
        ends = await asyncio.gather(*map(monitor.end_of, ids), return_exceptions=True)
        await monitor.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return list(ends)

    return asyncio.run(wait())


def test_jobs_are_asked_after_by_the_hundred_and_no_longer_than_they_last() -> None:
    ids = [str(number) for number in range(250)]
    service = _Service(lambda asked: [{"jobId": id_, "status": "SUCCEEDED"} for id_ in asked])
    assert _wait_for(service, ids) == [("SUCCEEDED", "")] * 250
    assert [len(asked) for asked in service.asked] == [100, 100, 50]


def test_a_job_that_the_service_does_not_know_is_given_up_in_the_end() -> None:
    service = _Service(
        lambda asked: [{"jobId": "a", "status": "FAILED", "statusReason": "why"}][: "a" in asked]
    )
    end, unknown = _wait_for(service, ["a", "b"])
    assert end == ("FAILED", "why")
    assert isinstance(unknown, UnknownJob)
    assert len(service.asked) == 5


def test_whoever_waits_learns_that_the_service_refuses() -> None:
    def refuse(_: list[str]) -> list[Answer]:
        raise _REFUSED

    assert _wait_for(_Service(refuse), ["a", "b"]) == [_REFUSED, _REFUSED]


def test_a_name_is_of_one_try_and_fit_for_batch() -> None:
    first, second = TaskKey("my dag", "täsk", "run:1"), TaskKey("my dag", "täsk", "run:1", 2)
    assert job_name(first).startswith("try-my_dag-t_sk-run_1-1--1-")
    long, longer = TaskKey("d" * 200, "t", "r"), TaskKey("d" * 200, "t", "r", 2)
    names = [job_name(key) for key in (first, second, TaskKey("my dag", "task", "run:1"), long, longer)]
    assert len(set(names)) == 5
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}", name) for name in names)
