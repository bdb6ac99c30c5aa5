"""A conformance suite for task executors.

Run it with ``pytest --executor=module:Class``, or in a test with :func:`check`.  Nothing is imported here on
purpose: the suite's probes (:mod:`executor_conformance.probes`) live in this package, and a new interpreter
that starts one must not pay for anything else.
"""

TYPE_CHECKING = False  # importing it from typing would import typing
if TYPE_CHECKING:
    from executor_conformance.checking import NotConformant, check

__all__ = ["NotConformant", "check"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from executor_conformance import checking

        return getattr(checking, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
