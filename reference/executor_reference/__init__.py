"""Reference executors: the executor contract as running code, meant to be read.

:class:`LocalExecutor` runs every task in a process of its own on this machine.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own would import typing
if TYPE_CHECKING:
    from executor_reference.keys import TaskKey
    from executor_reference.local import LocalExecutor

__all__ = ["LocalExecutor", "TaskKey"]


def __getattr__(name: str) -> object:
    # On demand: a process that forks tasks imports modules of this package, and is to be small.
    if name == "LocalExecutor":
        from executor_reference.local import LocalExecutor

        return LocalExecutor
    if name == "TaskKey":
        from executor_reference.keys import TaskKey

        return TaskKey
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
