"""Reference executors: the executor contract as running code, meant to be read.

:class:`LocalExecutor` runs every task in a process of its own on this machine; :class:`AsyncExecutor` runs
thousands of coroutines on one event loop.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # typing's own would import typing
if TYPE_CHECKING:
    from executor_reference.asynchronous import AsyncExecutor
    from executor_reference.keys import TaskKey
    from executor_reference.limits import Limit
    from executor_reference.local import LocalExecutor
    from executor_reference.pause import delay

__all__ = ["AsyncExecutor", "Limit", "LocalExecutor", "TaskKey", "delay"]

_HOMES = {
    "AsyncExecutor": "asynchronous",
    "Limit": "limits",
    "LocalExecutor": "local",
    "TaskKey": "keys",
    "delay": "pause",
}


def __getattr__(name: str) -> object:
    # On demand: a process that forks tasks imports modules of this package, and is to be small.
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
