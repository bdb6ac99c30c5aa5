"""Runs a few long rules in the background, while pytest runs the others.

These are the rules of turn ``"background"``: most of them wait, and the rest do not depend on timing.  Run in
order, they would leave a processor idle.  A pytest process forks the background process once two executors
have been seen to work at the same time, both in one process and in two.  Executors with a fixed port, or with
a name that is the same in two forks of one process, do not.  The background process runs one rule after the
other and stores the findings.  Under pytest-xdist, all workers use them.

The first process to *claim* a rule runs it.  A claim is a symbolic link to the pid of its owner.  A process
that comes to a rule claimed by another waits for the finding.  If the owner was killed, it runs the rule
itself.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import traceback
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from executor_conformance.contract import SUCCESS
from executor_conformance.harness import processes
from executor_conformance.harness.linux import (
    SignalMask,
    die_with_parent,
    fork,
    monotonic,
    set_signal_mask,
    signals_blocked,
    sleep,
)
from executor_conformance.harness.trial import Trial
from executor_conformance.rules.catalogue import Rule, catalogue
from executor_conformance.verdicts import Finding, Verdict

#: Seconds that the process has to clean up after its rule.
_STOP_S = 10.0


class _Stop(BaseException):
    """The run is over, and a rule is still running."""


class Background:
    """The background process, as a pytest process sees it.

    :param run: runs one rule.
    :param directory: of the run.
    """

    def __init__(self, run: Callable[[Rule], Finding], directory: str) -> None:
        self._run = run
        self._folder = os.path.join(directory, "background")
        self._process = 0
        self._taken: set[str] = set()
        os.makedirs(self._folder, exist_ok=True)

    def start(self, rules: Iterable[Rule], is_still_to_run: Callable[[Rule], bool]) -> None:
        """Start the background process, unless another pytest process of this run has done so.

        :param rules: those of turn ``"background"`` run in it.
        :param is_still_to_run: whether a rule has to be run, and there is time for that.
        """
        if os.path.lexists(self._path("started")):
            return
        mine = [rule for rule in rules if rule.turn == "background" and is_still_to_run(rule)]
        if not has_spare_processor():
            mine = [rule for rule in mine if rule.budget != "programs"]  # the others mostly wait
        if not self._creates("started") or not mine:
            return
        if self._run(_check()).verdict is not Verdict.PASSED:
            return
        pytest_pid = os.getpid()
        with signals_blocked() as mask:
            self._process = fork()
            if self._process == 0:
                self._run_all(mine, is_still_to_run, pytest_pid, mask)

    def run(self, rule: Rule) -> Finding:
        """The background process's finding on a rule, unless it was used before; or that of a run now."""
        if rule.turn == "alone":
            self._await_process()
        if rule.turn != "background" or rule.id in self._taken:
            return self._run(rule)
        self._taken.add(rule.id)
        if self._creates(rule.id):
            return self._run(rule)
        finding = self._await_finding(rule)
        return self._run(rule) if finding is None else finding

    def stop(self) -> None:
        """Stop the process and the rule that it runs."""
        if not self._process:
            return
        processes.kill(self._process, signal.SIGTERM)
        latest = monotonic() + _STOP_S
        while processes.is_alive(self._process):
            if monotonic() > latest:  # the exception of the signal was swallowed; the warden cleans up
                processes.kill(self._process)
            sleep(0.01)
        self._await_process()

    def _await_process(self) -> None:
        if self._process:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._process, 0)
            self._process = 0

    def _await_finding(self, rule: Rule) -> Finding | None:
        """The owner's finding; ``None``: it was killed."""
        owner = int(os.readlink(self._path(rule.id)))
        while True:
            is_alive = processes.is_alive(owner)  # looked up first: it may store the finding and exit
            try:
                with open(self._path(f"{rule.id}.json")) as file:
                    return Finding.from_dict(json.load(file))
            except FileNotFoundError:
                if not is_alive:
                    return None
            sleep(0.02)

    def _creates(self, name: str) -> bool:
        """Create a link to the pid of this process; ``False`` if the link exists."""
        try:
            os.symlink(str(os.getpid()), self._path(name))
        except FileExistsError:
            return False
        return True

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)

    # -- in the process --------------------------------------------------------------------------------------

    def _run_all(
        self,
        rules: Iterable[Rule],
        is_still_to_run: Callable[[Rule], bool],
        pytest_pid: int,
        mask: SignalMask,
    ) -> NoReturn:
        status = 1
        try:
            os.setsid()  # Ctrl-C is for pytest, which then stops this process
            signal.signal(signal.SIGTERM, _stop)
            set_signal_mask(mask)
            die_with_parent(signal.SIGKILL, pytest_pid)
            for rule in rules:
                if is_still_to_run(rule) and self._creates(rule.id):
                    self._store(rule)
            status = 0
        except _Stop:
            pass
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def _store(self, rule: Rule) -> None:
        began = monotonic()
        finding = self._run(rule)
        path = self._path(f"{rule.id}.json")
        with open(f"{path}.new", "w") as file:
            json.dump({**finding.as_dict(), "duration_s": round(monotonic() - began, 4)}, file)
        os.replace(file.name, path)


def _stop(*_: object) -> None:
    raise _Stop


# -- whether two hosts can work at once ----------------------------------------------------------------------


@functools.cache
def _check() -> Rule:
    """:func:`two_hosts_work_at_once`, as a rule that is in no chapter."""
    first = next(iter(catalogue().values()))
    return replace(
        first,
        id="background.two-hosts-work-at-once",
        needs=(),
        module=__name__,
        function=two_hosts_work_at_once.__name__,
    )


def two_hosts_work_at_once(trial: Trial) -> None:
    """Executors in two forks of one process work at the same time."""
    there, here = trial.probe(), trial.probe()

    def run_there() -> None:
        subject = trial.started(slots=1)
        subject.run(there)
        subject.expect_outcome(there, SUCCESS, "a task")

    trial.host.in_another_host(run_there)  # which keeps its executor
    subject = trial.started(slots=1)
    subject.run(here)
    subject.expect_outcome(here, SUCCESS, "a task while another host has an executor")
    subject.end()


# -- processors ----------------------------------------------------------------------------------------------


def has_spare_processor(cgroup: Path = Path("/sys/fs/cgroup")) -> bool:
    """Whether pytest may use more processors than there are pytest processes."""
    count = float(len(os.sched_getaffinity(0)))
    with contextlib.suppress(OSError, ValueError):  # no cgroups v2, or no limit
        quota, period = (cgroup / "cpu.max").read_text().split()
        count = min(count, int(quota) / int(period))
    return count > int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
