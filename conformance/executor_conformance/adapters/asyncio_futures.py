"""asyncio executors in the style of ``concurrent.futures``: ``submit`` takes a coroutine function, and
returns a future of asyncio or of ``concurrent.futures``.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from executor_conformance.adapters.api import Adapter, Driver
from executor_conformance.adapters.futures import FuturesAdapter
from executor_conformance.contract import Call
from executor_conformance.requirements import Capability

#: Methods that end such an executor; it has at least one of them.
_ENDS = ("shutdown", "aclose", "close")


class AsyncioAdapter(Adapter):
    """Recognized by a plain ``submit``, by ``shutdown``, ``aclose`` or ``close``, and by ``is_async = True``.

    An executor whose ``submit`` is itself a coroutine function belongs to no family: it reports a rejection
    to the caller who awaits it, in the same way as a failure of the task.
    """

    family = "asyncio"
    takes_coroutines = True
    required_methods: ClassVar = ("submit",)
    parallelism_argument: ClassVar = "max_workers"
    names: ClassVar = {**FuturesAdapter.names, Call.END: "shutdown() or aclose()"}
    lacks: ClassVar = {
        **{
            lack: reason
            for lack, reason in FuturesAdapter.lacks.items()
            if lack not in (Capability.COROUTINE, Capability.ASYNC)
        },
        Capability.CALLABLE: "an asyncio executor runs coroutine functions only",
    }

    @classmethod
    def recognizes(cls, candidate: object) -> bool:
        return (
            hasattr(candidate, "submit")
            and not inspect.iscoroutinefunction(candidate.submit)
            and any(hasattr(candidate, name) for name in _ENDS)
            and getattr(candidate, "is_async", False) is True
            and not hasattr(candidate, "execute_async")
        )

    def drive(self, executor: Any) -> Driver:
        # asyncio takes several MB, of which every fork of a host would copy the page tables.
        from executor_conformance.adapters.asyncio_driver import AsyncioDriver

        return AsyncioDriver(executor, _ENDS)
