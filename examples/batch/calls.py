"""Calls of a service that throttles and errs: repeated with patience, where that is safe."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

from aiobotocore.config import AioConfig
from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

#: One attempt, because botocore's own retries, the adaptive ones too, repeat a SubmitJob that was answered
#: with 500, and Batch has no token by which it would know the job again: the job might run twice.
CONFIG = AioConfig(retries={"mode": "standard", "total_max_attempts": 1}, max_pool_connections=50)
#: Doubtful answers in a row after which a call has failed; being throttled is no failure, however often.
_DOUBTS = 8


class Doubtful(Exception):
    """The service may have done what it was asked, or not."""


class Calls:
    """Makes calls by way of a client, and counts those which it had to repeat.

    Between two attempts it waits for a random time, up to twice as long each time: those who were throttled
    together do not come back together.

    :param base_s: the first of these times, at most; ``cap_s``: the longest.
    """

    def __init__(self, client: Any, base_s: float = 0.1, cap_s: float = 10.0) -> None:
        self.throttled = 0
        self.doubtful = 0
        self._client = client
        self._base_s = base_s
        self._cap_s = cap_s
        self._random = random.Random()

    async def __call__(self, operation: str, *, repeatable: bool = True, **arguments: Any) -> dict[str, Any]:
        """Call until there is an answer.

        :param repeatable: doing it twice is as good as doing it once.
        :raises Doubtful: it is not, and nobody knows whether it was done.
        :raises ClientError: the service will not do it.
        """
        doubts = 0
        for attempt in itertools.count():
            try:
                answer: dict[str, Any] = await getattr(self._client, operation)(**arguments)
                return answer
            except ClientError as error:
                if _is_throttling(error):
                    self.throttled += 1
                elif _status(error) >= 500:
                    doubts += 1
                    self._doubt(error, repeatable, doubts)
                else:
                    raise
            except (ConnectionError, HTTPClientError) as error:  # no answer, or half of one
                doubts += 1
                self._doubt(error, repeatable, doubts)
            await self._pause(attempt)
        raise AssertionError("it counts for ever")

    def _doubt(self, error: Exception, repeatable: bool, doubts: int) -> None:
        self.doubtful += 1
        if not repeatable:
            raise Doubtful(str(error)) from error
        if doubts >= _DOUBTS:
            raise error

    async def _pause(self, attempt: int) -> None:
        longest = min(self._cap_s, self._base_s * 2 ** min(attempt, 30))
        await asyncio.sleep(self._random.uniform(0, longest))


def _status(error: ClientError) -> int:
    status: int = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return status


def _is_throttling(error: ClientError) -> bool:
    code = error.response["Error"]["Code"]
    return _status(error) == 429 or code in ("TooManyRequestsException", "ThrottlingException")
