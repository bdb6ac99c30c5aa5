"""What it costs to import the executor and to construct it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass

from executor_conformance.adapters.api import DEFAULT
from executor_conformance.harness.memory import MB
from executor_conformance.harness.trial import Trial
from executor_conformance.rules import may
from executor_conformance.verdicts import NotApplicable, expect

_TIME_ALLOWED_S, _MEMORY_ALLOWED = 1.0, 50 * MB


@may()
def import_and_construction_are_cheap(trial: Trial) -> None:
    """Importing the executor's module and constructing the executor take less than a second, and less than
    50 MB.

    Why: every process that only checks what an executor can do pays this cost: command-line tools, workers,
    tests.
    Likely causes: the module imports a service client or a database layer at its top; the constructor loads
    what only some tasks need.
    Origin: apache/airflow#58143 (memory that each process of a scheduler holds because of its imports).
    """
    cost = _measure_import(trial)
    trial.measurements.update(asdict(cost))
    allowed_s = _TIME_ALLOWED_S * max(trial.slowdown(), 1.0) * trial.budgets.scale
    heaviest = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in cost.heaviest_s.items())
    expect(
        cost.import_s + cost.construct_s < allowed_s and cost.memory_bytes < _MEMORY_ALLOWED,
        expected=f"import and construction to take under {allowed_s:.1f} s and {_MEMORY_ALLOWED // MB} MB",
        actual=f"import took {cost.import_s:.2f} s and construction {cost.construct_s:.2f} s, together "
        f"{cost.memory_bytes / MB:.0f} MB; slowest imports: {heaviest}",
    )


@dataclass(frozen=True)
class _Cost:
    """What it costs a new interpreter to import and construct the executor.

    :param heaviest_s: by package, the seconds that its modules took without those that they import.
    """

    import_s: float
    construct_s: float
    memory_bytes: int
    heaviest_s: dict[str, float]


_SCRIPT = """\
import json, os, sys, time
request = json.loads(sys.argv.pop())
sys.path[:] = request["path"]
def private():
    with open("/proc/self/smaps_rollup") as file:
        return 1024 * sum(int(line.split()[1]) for line in file if line.startswith("Private_"))
before, began = private(), time.monotonic()
import importlib
found = importlib.import_module(request["module"])
for name in request["names"]:
    found = getattr(found, name)
imported = time.monotonic()
if request["arguments"] is not None:
    executor = found(**request["arguments"])
constructed = time.monotonic()
print(json.dumps(["cost", imported - began, constructed - imported, private() - before]), flush=True)
os._exit(0)
"""


def _measure_import(trial: Trial) -> _Cost:
    target = trial.target
    module, _, path = target.spec.partition(":")
    request = {
        "path": sys.path,
        "module": module,
        "names": path.split("."),
        "arguments": None if trial.context.build is not None else target.arguments(DEFAULT),
    }
    # Files, not pipes: a process that the constructor starts might keep the other end of a pipe open.
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        subprocess.run(
            [sys.executable, "-X", "importtime", "-c", _SCRIPT, json.dumps(request)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            check=False,
        )
        output.seek(0)
        errors.seek(0)
        printed, imports = output.read(), errors.read()
    lines = [line for line in printed.splitlines() if line.startswith('["cost"')]
    if not lines:
        messages = [
            line for line in imports.splitlines() if line.strip() and not line.startswith("import time:")
        ]
        error = messages[-1] if messages else "it printed no error"  # the last line of a traceback
        raise NotApplicable(f"a new interpreter cannot import and construct the executor: {error:.200}")
    _, import_s, construct_s, memory = json.loads(lines[-1])
    packages: dict[str, float] = {}
    for line in imports.splitlines():
        head, _, rest = line.partition("import time:")
        own, _, name = (part.strip() for part in [*rest.split("|"), "", ""][:3])
        if not head and own.isdigit():
            package = name.partition(".")[0]
            packages[package] = packages.get(package, 0.0) + int(own) / 1e6
    heaviest = sorted(packages, key=lambda name: -packages[name])[:5]
    return _Cost(
        import_s=round(import_s, 4),
        construct_s=round(construct_s, 4),
        memory_bytes=memory,
        heaviest_s={name: round(packages[name], 4) for name in heaviest},
    )
