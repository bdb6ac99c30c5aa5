"""A host in a new interpreter that runs a task and exits, with or without ``end()``.

Started as ``python -m executor_conformance.harness.other_host`` with its order, as JSON, on standard
input.
"""

from __future__ import annotations

import atexit
import json
import os
import sys

from executor_conformance.harness.blackboard import Blackboard
from executor_conformance.harness.calibration import Budgets
from executor_conformance.harness.context import Facts, RunContext
from executor_conformance.harness.target import import_target
from executor_conformance.harness.trial import Trial
from executor_conformance.verdicts import NotApplicable

#: The exit status if no task can be run; ``ready`` contains the reason.
CANNOT_RUN = 77


def main() -> None:
    """Import the target, run one task, create the file ``ready``, and exit; the rest is up to the executor.

    If no task can be run, the file contains the reason.  An error is written to ``ready.error``.
    """
    order = json.load(sys.stdin)
    if order["left"]:
        atexit.register(lambda: open(order["left"], "x").close())
    sys.path[:] = order["path"]
    context = RunContext(
        import_target(order["spec"], order["family"], order["options"], order["scratch"]),
        Budgets(**order["budgets"]),
        Facts(first_task_s=order["first_task_s"]),
    )
    trial = Trial(context, blackboard=Blackboard(), scratch=order["scratch"], warden=os.getpid())
    try:
        subject = trial.started(slots=1)
        subject.run(trial.probe())
        _write(order["ready"])
        if order["ends"]:
            subject.end()
    except NotApplicable as reason:
        _write(order["ready"], str(reason))
        os._exit(CANNOT_RUN)
    except Exception as error:
        _write(f"{order['ready']}.error", str(error) or repr(error))
        raise
    # the executor is still referred to when the interpreter exits, as in a scheduler that has crashed
    globals()["kept"] = (subject, trial)
    sys.exit(order["status"])


def _write(path: str, what: str = "") -> None:
    with open(f"{path}.new", "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(what)
    os.rename(file.name, path)


if __name__ == "__main__":
    main()
