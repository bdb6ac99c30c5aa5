"""Judges an executor from a test of one's own: :func:`check`."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from executor_conformance.report import reading


class NotConformant(AssertionError):
    """The executor failed rules that count.

    :param summary: what the suite printed.
    :param report: the data of the JSON report.
    """

    def __init__(self, summary: str, report: Mapping[str, Any]) -> None:
        super().__init__(summary)
        self.report = report


def check(
    factory: Callable[..., Any] | str,
    *,
    level: str = "must",
    rules: Iterable[str] = (),
    arguments: Iterable[str] = (),
) -> dict[str, Any]:
    """Run the suite on an executor, in a process of its own.

    :param factory: a class, or a function that returns an executor, at the top level of a module that can be
        imported; or its name, ``"module:name"``.
    :param level: which rules count: ``"must"`` or ``"should"``.
    :param rules: ids of rules or names of chapters; by default, all rules run.
    :param arguments: further arguments of the command, such as ``"--executor-option=retries=3"``.
    :returns: the data of the JSON report.
    :raises NotConformant: a rule that counts failed or was inconclusive; the text is the summary.
    :raises ValueError: the factory, a rule or an argument cannot be used; the text says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "report.json")
        command = [
            *("-q", "-c", os.devnull, "-p", "no:cacheprovider"),
            *(f"--executor={_name(factory)}", f"--conformance-level={level}"),
            *(f"--conformance-report={path}", *arguments, *rules),
        ]
        # Neither pytest's settings of the run that this is part of, nor those of a project, are for this one.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment["PYTHONPATH"] = os.pathsep.join(part or os.getcwd() for part in sys.path)
        done = run_pytest(command, environment=environment)
        if not os.path.exists(path):
            raise ValueError(done.stdout.strip().removeprefix("ERROR: "))
        report = reading.read(path)
    if done.returncode:
        raise NotConformant(done.stdout, report)
    return report


def run_pytest(
    arguments: Sequence[str], *, environment: Mapping[str, str], folder: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run pytest with this interpreter; its output and errors are in ``stdout``."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )


def _name(factory: Callable[..., Any] | str) -> str:
    """The name by which another process finds the factory.

    :raises ValueError: there is none.
    """
    if isinstance(factory, str):
        return factory
    module, name = getattr(factory, "__module__", ""), getattr(factory, "__qualname__", "")
    found: Any = None
    if module and module != "__main__" and name:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part, None)
    if found is not factory:
        raise ValueError(f"{factory!r} is not at the top level of a module that can be imported")
    return f"{module}:{name}"
