"""What pytest's header shows of a run: the executor, where its tasks run, and the machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from executor_conformance.adapters.registry import unusable
from executor_conformance.discovery import Discovery
from executor_conformance.harness.calibration import Calibration
from executor_conformance.requirements import Capability, TaskLocation


def lines(executor: str, found: Discovery, calibration: Calibration, seed: int) -> list[str]:
    """The lines of the header.

    :param executor: as it was named on the command line.
    """
    return [
        f"executor: {executor} ({found.distribution or _origin(executor)}), adapter {found.family}",
        f"tasks: {_tasks(found)}",
        *_peculiarities(found),
        *(f"ignored: {reason}" for reason in unusable().values()),
        f"machine speed: fork {calibration.fork_s * 1e3:.1f} ms, new interpreter "
        f"{calibration.interpreter_s * 1e3:.0f} ms, jitter {calibration.jitter_s * 1e3:.1f} ms; "
        f"--conformance-seed={seed}",
    ]


def _origin(spec: str) -> str:
    module = spec.partition(":")[0].partition(".")[0]
    return "standard library" if module in sys.stdlib_module_names else "not from an installed package"


def _peculiarities(discovery: Discovery) -> Iterator[str]:
    facts = discovery.facts
    if fixed := facts.lacks.get(Capability.CHOSEN_PARALLELISM.name):
        yield f"parallelism: {fixed}, and {facts.at_once}"
    if facts.starts_on_import:
        yield f"import: starts {facts.starts_on_import}; so each rule imports the target again"


def _tasks(discovery: Discovery) -> str:
    facts = discovery.facts
    if facts.location is TaskLocation.LOCAL_PROCESSES:
        return f"run in separate processes ({'fork' if facts.forked else 'new interpreters'})"
    return {
        TaskLocation.HOST: "run in the scheduler's process",
        TaskLocation.ELSEWHERE: "run outside the scheduler's process tree",
        TaskLocation.UNKNOWN: "not known" if facts.first_task_s else "none ran",
    }[facts.location]
