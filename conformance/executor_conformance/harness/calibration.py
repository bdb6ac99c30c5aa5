"""How fast this machine is now, and the waiting budgets that follow from it.

No rule has a timeout of its own.  A wait for something to happen ends as soon as it happens; how long that
may take is a :class:`Budgets` value, which grows with what was measured here.
"""

from __future__ import annotations

import contextlib
import os
import select
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from executor_conformance.harness.linux import fork, monotonic, sleep, thread_time

# What an ordinary idle machine needs, in seconds; the scale of the budgets is how much slower this one is.
_FORK_S = 0.004
_INTERPRETER_S = 0.06
_JITTER_S = 0.004
_LARGEST_SCALE = 6.0
#: A slow machine extends fixed limits by at most this factor, because they are generous already.
LARGEST_EXTENSION = 2.0
_COMPUTED_S = 0.02
#: Seconds for the first constructor, ``start()`` and task, when nothing is known of the executor yet.
FIRST_S = 60.0
#: If the constructor and ``start()`` together take less than this, workers are started fast or lazily.
_NOTABLE_S = 0.2
#: The parallelism that is assumed for an executor created without one; it is Airflow's default.
_USUAL_DEFAULT = 32
#: The most seconds that further workers add to the limit of ``start()``.
_LONGEST_FOR_WORKERS_S = 120.0
#: A sync() that waits for a second does so on any machine; a slow machine must not excuse it.
_LONGEST_BLOCK_S = 0.8


@dataclass(frozen=True)
class Calibration:
    """Measured at the start of a run.

    :param fork_s: median seconds from ``fork`` of the pytest process to the child's end, waited for.
    :param interpreter_s: median seconds for ``python -c pass``.
    :param jitter_s: 95th percentile of how late a sleep of 1 ms ends, in seconds.
    """

    fork_s: float
    interpreter_s: float
    jitter_s: float

    @property
    def scale(self) -> float:
        """How many times slower than an ordinary idle machine, between 1 and 6."""
        slowest = max(
            self.fork_s / _FORK_S, self.interpreter_s / _INTERPRETER_S, 1 + self.jitter_s / _JITTER_S / 4
        )
        return min(max(slowest, 1.0), _LARGEST_SCALE)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


#: Internal, for tests that start hundreds of short runs from one process: what that has measured a moment ago
#: for all of them.  A run that a user starts measures the machine itself.
measured_before: Calibration | None = None


def calibrate() -> Calibration:
    """Measure this machine; takes about a quarter of a second."""
    if measured_before is not None:
        return measured_before
    return Calibration(
        fork_s=round(statistics.median(_fork_once() for _ in range(7)), 6),
        interpreter_s=round(statistics.median(_interpreter_once() for _ in range(3)), 6),
        jitter_s=round(sorted(_late_sleep() for _ in range(40))[37], 6),
    )


def fork_here_s(times: int = 3) -> float | None:
    """Median seconds from a fork of this process to the end of the child, now; ``None``: not known."""

    def start() -> int:
        child = fork()
        if child == 0:
            os._exit(0)
        return child

    return _median_until_its_end(start, times)


def interpreter_here_s(times: int = 1) -> float | None:
    """Median seconds for a new interpreter, now; ``None``: not known."""
    command = [sys.executable, "-c", "pass"]
    return _median_until_its_end(lambda: os.posix_spawn(command[0], command, os.environ), times)


def _median_until_its_end(start: Callable[[], int], times: int) -> float | None:
    # By pidfd: the executor in this host may reap whatever child it finds.
    took = []
    try:
        for _ in range(times):
            began = monotonic()
            child = start()
            descriptor = os.pidfd_open(child)
            try:
                poll = select.poll()  # unlike select(), it takes descriptors above 1024
                poll.register(descriptor, select.POLLIN)
                poll.poll(10_000)
            finally:
                os.close(descriptor)
            took.append(monotonic() - began)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)
    except (OSError, ValueError):
        return None
    return statistics.median(took)


def processor_share() -> float:
    """How many times longer than its CPU time a computation takes, now; 1 on an idle machine."""
    began, began_computing = monotonic(), thread_time()
    while thread_time() - began_computing < _COMPUTED_S:
        pass
    return (monotonic() - began) / _COMPUTED_S


def times_out_of_processor(
    groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> int:
    """How often a CPU limit, such as that of a container, has throttled this process and its siblings.

    :param groups: the file that names the control groups of this process (see cgroups(7)).
    :param root: the folder in which they are.
    """
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    stopped = 0
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        folder = root / "cpu" if controllers else root
        # Any parent group may have the limit; inside a container some of the names do not exist.
        group = Path(name.lstrip("/"))
        stopped += sum(_times_stopped(folder / part / "cpu.stat") for part in (group, *group.parents))
    return stopped


def _times_stopped(statistics_file: Path) -> int:
    try:
        lines = statistics_file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("nr_throttled "))


def _fork_once() -> float:
    began = monotonic()
    child = fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return monotonic() - began


def _interpreter_once() -> float:
    began = monotonic()
    subprocess.run([sys.executable, "-c", "pass"], check=False, stdin=subprocess.DEVNULL)
    return monotonic() - began


def _late_sleep() -> float:
    began = monotonic()
    sleep(0.001)
    return monotonic() - began - 0.001


@dataclass(frozen=True)
class Budgets:
    """How long the suite waits, in seconds.

    :param arrival_s: for something that must happen, such as a start, an event or an exit.
    :param quiet_s: to see that nothing more happens.
    :param call_s: for one call of the executor to return.
    :param stop_s: for ``start``, ``end``, ``terminate`` and the constructor to return, with two workers.
    :param worker_s: what each further worker may add to that.
    :param block_s: a call of ``sync()`` that takes longer counts as blocking.
    :param scale: how much slower this machine is than an ordinary idle one.
    :param fork_s: what a fork costs on this machine.
    :param interpreter_s: what a new interpreter costs on this machine.
    """

    arrival_s: float
    quiet_s: float
    call_s: float
    stop_s: float
    block_s: float
    scale: float = 1.0
    fork_s: float = _FORK_S
    interpreter_s: float = _INTERPRETER_S
    worker_s: float = 0.0

    @classmethod
    def of(
        cls,
        calibration: Calibration,
        *,
        construct_s: float = 0.0,
        start_s: float = 0.0,
        first_task_s: float = 0.0,
    ) -> Budgets:
        """Budgets for this machine and this executor, as it was seen to be.

        :param construct_s: seconds for the constructor.
        :param start_s: seconds for ``start()`` with two workers.
        :param first_task_s: seconds from the submission of the very first task to its event.
        """
        scale = calibration.scale
        ready_s = construct_s + start_s
        return cls(
            # a worker that has died is replaced in the time that start() takes for two
            arrival_s=4.0 * scale + 5.0 * first_task_s + 2.0 * start_s,
            quiet_s=0.06 * scale,
            call_s=5.0 * scale + 3.0 * first_task_s + start_s,
            stop_s=6.0 * scale + 6.0 * first_task_s + 3.0 * ready_s,
            block_s=min(0.25 * scale, _LONGEST_BLOCK_S),
            scale=scale,
            fork_s=calibration.fork_s,
            interpreter_s=calibration.interpreter_s,
            worker_s=1.5 * ready_s / 2 if ready_s > _NOTABLE_S else 0.0,
        )

    @classmethod
    def of_the_first(cls, calibration: Calibration) -> Budgets:
        """Budgets for the first executor and its first task: a minute for each step, on any machine."""
        return replace(cls.of(calibration), arrival_s=FIRST_S, call_s=FIRST_S, stop_s=FIRST_S)

    def ready_s(self, parallelism: object) -> float:
        """Seconds for the constructor or ``start()`` of an executor with this parallelism."""
        workers = parallelism if isinstance(parallelism, int) else _USUAL_DEFAULT
        return self.stop_s + min(max(workers - 2, 0) * self.worker_s, _LONGEST_FOR_WORKERS_S)
