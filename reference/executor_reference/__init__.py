"""Reference executors: the executor contract as running code, meant to be read.

:class:`LocalExecutor` runs every task in a process of its own on this machine.
"""

from executor_reference.keys import TaskKey
from executor_reference.local import LocalExecutor

__all__ = ["LocalExecutor", "TaskKey"]
