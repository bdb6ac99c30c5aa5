"""Runs every contender once per round, each in its own process, in random order."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.remote.contenders import Contender
from benchmarks.remote.holding import HOLDERS
from benchmarks.remote.work import Work
from examples.batch.behavior import Behavior
from examples.batch.jobs import job_name
from examples.batch.process import fetch_truth, run_server

_ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 1800.0

#: The name of a contender -> its figures in each round, or ``None`` if it failed.
Rounds = dict[str, list[dict[str, float] | None]]


@dataclass(frozen=True)
class Cores:
    """The processors: one for the contender, and another for the service if there is more than one."""

    measured: int
    service: int

    @staticmethod
    def here() -> Cores:
        """Choose from the processors that this process may use."""
        first, *others = sorted(os.sched_getaffinity(0))
        return Cores(first, others[0] if others else first)


def launch_and_watch(
    contenders: Sequence[Contender],
    pythons: Mapping[str, str],
    rounds: int,
    behavior: Behavior,
    work: Work,
    cores: Cores,
) -> Rounds:
    """Measure the cost of each contender.

    :param pythons: the interpreter of each contender.
    :param work: its endpoint is ignored, because each run has its own service.
    """
    found: Rounds = defaultdict(list)
    for number in range(rounds):
        for one in random.sample(contenders, len(contenders)):
            print(f"round {number + 1}: {one.name}", file=sys.stderr, flush=True)
            with run_server(behavior, cores.service) as endpoint:
                here = dataclasses.asdict(dataclasses.replace(work, endpoint=endpoint))
                options = [f"--{field.replace('_', '-')}={value}" for field, value in here.items()]
                cost = _json_of([pythons[one.name], "-m", "benchmarks.remote.one", one.name, *options])
                found[one.name].append(cost and _with_peak(cost, work, fetch_truth(endpoint)))
    return found


def hold(rounds: int, tasks: int, seconds: float, cores: Cores) -> Rounds:
    """Measure what it costs to hold sleeping tasks."""
    found: Rounds = defaultdict(list)
    for number in range(rounds):
        for name in random.sample(list(HOLDERS), len(HOLDERS)):
            print(f"round {number + 1}: {name} holds {tasks:,}", file=sys.stderr, flush=True)
            options = [f"--tasks={tasks}", f"--seconds={seconds}", f"--core={cores.measured}"]
            found[name].append(_json_of([sys.executable, "-m", "benchmarks.remote.holding", name, *options]))
    return found


def _with_peak(cost: dict[str, Any], work: Work, truth: dict[str, Any]) -> dict[str, Any] | None:
    """Add the peak number of running jobs; return ``None`` if a job was lost or submitted twice."""
    jobs = truth["jobs"]
    once = {job_name(key) for key in work.keys if len(jobs.get(job_name(key), [])) == 1}
    over = {name for name in once if jobs[name][0][0] in ("SUCCEEDED", "FAILED")}
    if len(jobs) != len(over) or len(over) != work.jobs:
        print(
            f"of {work.jobs} jobs, {len(once)} were submitted exactly once, and {len(over)} of these ended",
            file=sys.stderr,
        )
        return None
    return {**cost, "peak": truth["peak"], "described": truth["calls"]["describejobs"]}


def _json_of(command: list[str]) -> dict[str, Any] | None:
    """Run a command and return the last line that it prints, parsed as JSON."""
    # The interpreter with Airflow need not have the reference installed.
    paths = os.pathsep.join([str(_ROOT / "reference"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": paths},
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        print(late, file=sys.stderr)
        return None
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)
        return None
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures
