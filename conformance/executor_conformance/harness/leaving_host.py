"""A host in an interpreter of its own that runs a task and leaves without ``end()``.

Started as ``python -m executor_conformance.harness.leaving_host`` with its order, as JSON, on standard input.
"""

from __future__ import annotations

import json
import os
import sys

from executor_conformance.acquaintance import import_target
from executor_conformance.harness.blackboard import Blackboard
from executor_conformance.harness.calibration import Budgets
from executor_conformance.harness.trial import Facts, Trial


def main() -> None:
    """Import the target, run one task, say so, and return; what happens then is the executor's affair."""
    order = json.load(sys.stdin)
    sys.path[:] = order["path"]
    target = import_target(order["spec"], order["family"], order["options"], order["scratch"])
    trial = Trial(
        target=target,
        budgets=Budgets(**order["budgets"]),
        blackboard=Blackboard(),
        scratch=order["scratch"],
        warden=os.getpid(),
        facts=Facts(first_task_s=order["first_task_s"]),
    )
    subject = trial.started()
    subject.run(trial.probe())
    with open(order["ready"], "w"):
        pass
    # the executor is still referred to when the interpreter ends, as by a scheduler that has crashed
    globals()["kept"] = (subject, trial)


if __name__ == "__main__":
    main()
