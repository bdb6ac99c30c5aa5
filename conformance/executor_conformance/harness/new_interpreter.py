"""Another host, in a new interpreter: it runs a task and exits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict

from executor_conformance.contract import Call
from executor_conformance.harness.trial import Trial
from executor_conformance.verdicts import NotApplicable, expect


def run_a_task_and_exit(trial: Trial, *, ends: bool = False, status: int = 0, left: str = "") -> int:
    """Start a host in a new interpreter that runs a task and exits; a trial can do so once.

    :param ends: it calls ``end()`` before it exits.
    :param status: the exit status that it gives itself.
    :param left: the file that its first exit function creates.
    :returns: its exit status.
    :raises Broken: it cannot run a task, its ``end()`` raises, or it does not exit.
    """
    if trial.context.build is not None:
        raise NotApplicable("a conftest hook builds the executor, and a new interpreter has no conftest")
    end = trial.target.adapter.name_of(Call.END)
    ready = os.path.join(trial.scratch, "ready")
    order = {
        "spec": trial.target.spec,
        "family": trial.target.adapter.family,
        "options": dict(trial.target.options),
        "path": sys.path,
        "scratch": os.path.join(trial.scratch, "other-host"),
        "ready": ready,
        "first_task_s": trial.facts.first_task_s,
        "budgets": asdict(trial.budgets),
        "ends": ends,
        "status": status,
        "left": left,
    }
    os.mkdir(str(order["scratch"]))
    host = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-m", "executor_conformance.harness.other_host"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert host.stdin is not None
    host.stdin.write(json.dumps(order).encode())
    host.stdin.close()
    trial.require(
        lambda: os.path.exists(ready) or host.poll() is not None,
        expected="a scheduler process in a new interpreter to run a task",
        actual=lambda: "the task has not ended",
        budget_s=trial.budgets.arrival_s * 3 + trial.facts.import_s * 3,
        patient=True,
    )
    expect(
        os.path.exists(ready),
        expected="a scheduler process in a new interpreter to run a task",
        actual=f"it exited with status {host.poll()}{_error_of(ready)}",
    )
    with open(ready, encoding="utf-8") as file:
        if reason := file.read():
            host.wait()
            raise NotApplicable(reason)
    limit_s = trial.budgets.stop_s * (2 if ends else 1)  # for end(), too
    exited = trial.wait_for(lambda: host.poll() is not None, budget_s=limit_s, patient=True)
    if not exited:
        host.send_signal(signal.SIGABRT)  # faulthandler adds its stacks to the evidence
        host.wait()
    expect(
        exited,
        expected=f"{end} to return and the interpreter to exit within {limit_s:.1f} s"
        if ends
        else f"the interpreter to exit within {limit_s:.1f} s even though {end} was not called",
        actual="it had not exited; all workers were idle",
    )
    error = _error_of(ready)
    expect(not error, expected=f"{end} to return in a new interpreter", actual=f"it did not{error}")
    return host.wait()


def _error_of(ready: str) -> str:
    """What the other host has raised, for messages; empty if nothing."""
    try:
        with open(f"{ready}.error", encoding="utf-8") as file:
            return f": {file.read():.300}"
    except FileNotFoundError:
        return ""
