"""Runs a few long rules beside the others, in a process of its own.

These are the rules of turn ``"early"``: most of them wait, and the rest are about no time.  Run in their
place, they would leave a processor idle.  A pytest process forks this process as soon as the executor is
known to work beside another one, which an executor with a fixed port may not.  It runs one early rule after
the other and stores the findings.  Under pytest-xdist, the workers share them.

A rule is run by whoever *claims* it first, by creating a file with its own pid.  A process that gets to a
rule of which another is the owner waits for the finding; should the owner be killed, it runs the rule itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Sequence
from typing import NoReturn

from executor_conformance.harness import processes
from executor_conformance.harness.linux import die_with_parent, fork, monotonic, sleep
from executor_conformance.rules.catalogue import Rule
from executor_conformance.verdicts import Finding


class _Stop(BaseException):
    """The run ends before the rule has."""


class Beside:
    """The process that runs early rules, seen from a pytest process.

    :param run: runs one rule.
    :param directory: of the run.
    """

    def __init__(self, run: Callable[[Rule], Finding], directory: str) -> None:
        self._run = run
        self._folder = os.path.join(directory, "beside")
        self._process = 0
        self._taken: set[str] = set()
        os.makedirs(self._folder, exist_ok=True)

    @property
    def may_start(self) -> bool:
        """Whether no process of this run has started one, and there is a processor for it."""
        return len(os.sched_getaffinity(0)) > 1 and not os.path.exists(self._path("started"))

    def start(self, rules: Sequence[Rule], is_over: Callable[[], bool]) -> None:
        """Start on these rules, unless another pytest process has started first.

        :param is_over: whether there is no time left for another rule.
        """
        if not self._creates("started"):
            return
        pytest_pid = os.getpid()
        self._process = fork()
        if self._process == 0:
            self._run_all(rules, is_over, pytest_pid)

    def run(self, rule: Rule) -> Finding:
        """What was found beside, once; otherwise run the rule now."""
        if rule.turn == "alone":
            self._await_process()
        if rule.turn != "early" or rule.id in self._taken:
            return self._run(rule)
        self._taken.add(rule.id)
        if self._creates(rule.id):
            return self._run(rule)
        finding = self._await_finding(rule)
        return self._run(rule) if finding is None else finding

    def stop(self) -> None:
        """End the process, and what it runs."""
        if self._process:
            processes.kill(self._process, signal.SIGTERM)
            self._await_process()

    def _await_process(self) -> None:
        if self._process:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._process, 0)
            self._process = 0

    def _await_finding(self, rule: Rule) -> Finding | None:
        """The owner's finding; ``None``: it was killed."""
        while True:
            is_alive = self._owner_is_alive(rule)  # looked up first: it may store the finding and exit
            try:
                with open(self._path(f"{rule.id}.json")) as file:
                    return Finding.from_dict(json.load(file))
            except FileNotFoundError:
                if not is_alive:
                    return None
            sleep(0.02)

    def _owner_is_alive(self, rule: Rule) -> bool:
        with open(self._path(rule.id)) as file:
            owner = file.read()
        return not owner or processes.is_alive(int(owner))  # empty: it has just been created

    def _creates(self, name: str) -> bool:
        """Create a file with the pid of this process; ``False`` if there is one already."""
        try:
            with open(self._path(name), "x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            return False
        return True

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)

    # -- in the process --------------------------------------------------------------------------------------

    def _run_all(self, rules: Sequence[Rule], is_over: Callable[[], bool], pytest_pid: int) -> NoReturn:
        status = 1
        try:
            signal.signal(signal.SIGTERM, _stop)
            os.setsid()  # Ctrl-C is for pytest, which then stops this process
            die_with_parent(signal.SIGKILL, pytest_pid)
            for rule in rules:
                if not is_over() and self._creates(rule.id):
                    self._store(rule)
            status = 0
        except _Stop:
            pass
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
