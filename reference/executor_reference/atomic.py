"""Calls whose result cannot be lost.

A signal handler runs between two bytecodes, and may raise: also after ``os.fork()`` has returned and before
its result is stored.  The caller could then not know that there is a new process.
"""

from __future__ import annotations

from itertools import starmap

TYPE_CHECKING = False  # importing it from typing would import typing
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def append_result(results: list[Any], function: Callable[..., Any], *arguments: object) -> None:
    """Call a function that is implemented in C, and append its result to a list.

    No bytecode runs between the call and the append, so no signal handler does.
    """
    results.extend(starmap(function, (arguments,)))
