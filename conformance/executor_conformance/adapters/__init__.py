"""The public API for adapters: each drives one family of executors in the suite's terms.

Write a subclass of :class:`Adapter` and one of :class:`Driver` (or of :class:`FutureDriver` for an engine
that returns futures), and register the adapter under the entry point group ``executor_conformance.adapters``.
"""

from executor_conformance.adapters.api import (
    ABSENT,
    DEFAULT,
    Adapter,
    CannotDrive,
    Driver,
    Submission,
    Work,
)
from executor_conformance.adapters.futures_base import FutureDriver, outcome_of
from executor_conformance.contract import Call, TaskKey
from executor_conformance.requirements import Capability

__all__ = [
    "ABSENT",
    "DEFAULT",
    "Adapter",
    "Call",
    "CannotDrive",
    "Capability",
    "Driver",
    "FutureDriver",
    "Submission",
    "TaskKey",
    "Work",
    "outcome_of",
]
