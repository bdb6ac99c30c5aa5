"""The suite's own task: it records when, where and how it really ran.

Run as ``python -m executor_conformance.probes.task JOURNAL PROBE STEP...`` or called as :func:`run`.  What it
appends to the journal is the ground truth that reported events are checked against, so it writes before it
does anything else.  This module is small and imports only light ones: a task that loads it, in a new
interpreter or by ``runpy``, must measure the executor and not this file.  The steps of a task are in
:mod:`executor_conformance.probes.steps`.
"""

import _thread
import os
import sys
import time

from executor_conformance.probes.transport import record

_monotonic_ns = time.monotonic_ns
_RUNS = iter(range(1, 1 << 62))
#: Set on ``sys`` in the host: only a forked child inherits it, so whether a task was forked is *seen*.
HOST_MARKER = "_executor_conformance_host"


def begin(journal: str, probe: str) -> str:
    """Record that a run of ``probe`` has started, and where; returns the id of that run."""
    run_id = f"{os.getpid()}.{_thread.get_ident()}.{_monotonic_ns()}.{next(_RUNS)}"
    host = getattr(sys, HOST_MARKER, 0)
    record(journal, "start", probe, run_id, os.getpid(), os.getppid(), os.getpgrp(), os.getsid(0), host)
    return run_id


def echo(*arguments: object, **keywords: object) -> "tuple[tuple[object, ...], dict[str, object]]":
    """A call that returns its arguments."""
    return arguments, keywords


def run(journal: str, probe: str, steps: "tuple[str, ...] | list[str]" = ()) -> object:
    """Run the steps as the task ``probe``; returns the probe's name, or the value of a ``return`` step."""
    run_id = begin(journal, probe)
    result: object = probe
    for step in steps:
        from executor_conformance.probes.steps import ENDINGS, STEPS

        name, _, value = step.partition("=")
        if name == "return":
            result = b"r" * int(value)
        elif name == "return-value":
            from executor_conformance.probes.calls import RETURN_VALUES

            result = RETURN_VALUES[value]
        elif name.startswith("return-"):
            from executor_conformance.probes import calls

            result = calls.Unpicklable() if name == "return-unpicklable" else calls.Unloadable()
        elif name in ENDINGS:
            record(journal, "finish", probe, run_id)
            ENDINGS[name](value)
        else:
            STEPS[name](journal, probe, run_id, value)
    record(journal, "finish", probe, run_id)
    return result


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], sys.argv[3:])
