"""Hooks for a ``conftest.py``: they build executors that options on the command line cannot describe.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from typing import Any

import pytest


@pytest.hookspec(firstresult=True)
def pytest_conformance_build_executor(target: str, arguments: dict[str, Any]) -> Any:
    """Build one executor, or return ``None`` to have ``target`` called with ``arguments``.

    Called for every executor that a rule needs, in the process in which that rule is judged.

    :param target: ``module:Class`` as given to ``--executor``.
    :param arguments: the keyword arguments that the suite would pass: the options, and ``parallelism`` (or
        the family's name for it) where the rule chooses one.
    """


@pytest.hookspec
def pytest_conformance_dispose_executor(executor: Any) -> None:
    """Release resources of an executor that was built, after the rule that used it.

    Not called if the executor terminated its host process: every process that it made is killed then.
    """
