"""Reference executors: the executor contract as running code, written to be read.

:class:`LocalExecutor` runs each task in its own process on this machine.  :class:`AsyncExecutor` runs
thousands of coroutines on one event loop.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # importing it from typing would import typing
if TYPE_CHECKING:
    from executor_reference.asynchronous import AsyncExecutor
    from executor_reference.keys import TaskKey
    from executor_reference.limits import Limit
    from executor_reference.local import LocalExecutor
    from executor_reference.pause import delay

__all__ = ["AsyncExecutor", "Limit", "LocalExecutor", "TaskKey", "delay"]

_MODULES = {
    "AsyncExecutor": "asynchronous",
    "Limit": "limits",
    "LocalExecutor": "local",
    "TaskKey": "keys",
    "delay": "pause",
}


def __getattr__(name: str) -> object:
    # Lazy imports: the process that forks tasks imports modules of this package and has to stay small.
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
