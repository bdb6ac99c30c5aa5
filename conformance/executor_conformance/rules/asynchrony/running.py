"""Runs part of a rule on an event loop that belongs to the executor's caller."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from executor_conformance.verdicts import Broken

Result = TypeVar("Result")


def run_on_a_loop(main: Coroutine[Any, Any, Result]) -> Result:
    """Run ``main`` on a new event loop.

    :raises Broken: the loop ended early, which can only be the executor's fault.
    """
    try:
        return asyncio.run(main)
    except (asyncio.CancelledError, RuntimeError) as error:
        raise Broken(
            expected="the caller's event loop to keep running",
            actual=f"it ended with {type(error).__name__}: {error}",
        ) from error
