"""Calls of a service that throttles and fails.  They are retried where that is safe."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

from aiobotocore.config import AioConfig
from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

#: No retries by botocore: in all its modes, also the adaptive one, it repeats a SubmitJob that was answered
#: with 500.  SubmitJob takes no idempotency token, so the job might run twice.
CONFIG = AioConfig(retries={"mode": "standard", "total_max_attempts": 1}, max_pool_connections=50)
#: A call fails after this many attempts with an unknown outcome.  Throttling is always retried.
_MAX_ATTEMPTS = 8


class OutcomeUnknown(Exception):
    """It is unknown whether the service has executed the call."""


class Calls:
    """Makes calls through a client, and counts the ones that it had to repeat.

    The pause between two attempts is random, and its limit doubles each time.  So calls that were throttled
    at the same time do not return at the same time.

    :param base_s: the limit of the first pause, in seconds.
    :param cap_s: the limit of all pauses, in seconds.
    :ivar throttled: the number of throttled attempts.
    :ivar unknown_outcomes: the number of attempts with an unknown outcome.
    """

    def __init__(self, client: Any, base_s: float = 0.1, cap_s: float = 10.0) -> None:
        self.throttled = 0
        self.unknown_outcomes = 0
        self._client = client
        self._base_s = base_s
        self._cap_s = cap_s
        self._random = random.Random()

    async def __call__(self, operation: str, *, repeatable: bool = True, **arguments: Any) -> dict[str, Any]:
        """Call an operation until it returns an answer.

        :param repeatable: whether the operation is idempotent.
        :raises OutcomeUnknown: the outcome is unknown, and the operation is not repeatable.
        :raises ClientError: the service has rejected the call.
        """
        failures = 0
        for attempt in itertools.count():
            try:
                answer: dict[str, Any] = await getattr(self._client, operation)(**arguments)
                return answer
            except ClientError as error:
                if _is_throttling(error):
                    self.throttled += 1
                elif _status(error) >= 500:
                    failures += 1
                    self._count_unknown(error, repeatable, failures)
                else:
                    raise
            except (ConnectionError, HTTPClientError) as error:  # no answer, or an incomplete one
                failures += 1
                self._count_unknown(error, repeatable, failures)
            await self._pause(attempt)
        raise AssertionError("unreachable: count() is infinite")

    def _count_unknown(self, error: Exception, repeatable: bool, failures: int) -> None:
        self.unknown_outcomes += 1
        if not repeatable:
            raise OutcomeUnknown(str(error)) from error
        if failures >= _MAX_ATTEMPTS:
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
