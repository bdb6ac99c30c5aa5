"""The verdicts of a run so far, shared by every process that takes part.

Files in the run's directory, because under pytest-xdist the rules of one run are judged by several processes
in no fixed order.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator

from executor_conformance.harness import host_process
from executor_conformance.verdicts import Finding, Verdict

#: Findings that nothing learned later can change; blame may still turn a failure into something else.
_FINAL = frozenset({Verdict.PASSED, Verdict.NOT_APPLICABLE})


class VerdictStore:
    """Findings by rule, the hangs that were met, and what waiting has shown."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._final: dict[str, Finding] = {}
        os.makedirs(self._path("findings"), exist_ok=True)
        os.makedirs(self._path("hangs"), exist_ok=True)
        os.makedirs(self._path("in-vain"), exist_ok=True)

    def save(self, rule_id: str, finding: Finding) -> None:
        """Store a finding; readers see all of it or nothing."""
        path = self._path("findings", rule_id)
        with open(f"{path}.{os.getpid()}", "w") as file:
            json.dump(finding.as_dict(), file)
        os.replace(file.name, path)

    def load(self, rule_id: str) -> Finding | None:
        """The finding on a rule, or ``None`` if it has not been judged yet."""
        if rule_id not in self._final:
            try:
                with open(self._path("findings", rule_id)) as file:
                    finding = Finding.from_dict(json.load(file))
            except FileNotFoundError:
                return None
            if finding.verdict not in _FINAL:
                return finding
            self._final[rule_id] = finding
        return self._final[rule_id]

    def all(self) -> dict[str, Finding]:
        """Every finding so far."""
        names = [name for name in os.listdir(self._path("findings")) if not name.rpartition(".")[2].isdigit()]
        return {name: finding for name in names if (finding := self.load(name)) is not None}

    def failed(self) -> frozenset[str]:
        """The rules that have failed so far."""
        return frozenset(name for name, finding in self.all().items() if finding.verdict is Verdict.FAILED)

    @contextlib.contextmanager
    def locked(self, rule_id: str) -> Iterator[None]:
        """Only one process at a time judges a rule; the others wait for its verdict."""
        with self._lock(f"{rule_id}.0"):
            yield

    @contextlib.contextmanager
    def settling(self, rule_id: str) -> Iterator[None]:
        """Only one process at a time finds the rule to blame for a failure; the others wait for its answer.

        The kernel releases the lock of a process that was killed.
        """
        with self._lock(f"{rule_id}.1"):
            yield

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        descriptor = os.open(self._path("findings", name), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        # so that a process that the executor leaves behind does not hold the lock
        host_process.private_descriptors.add(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            # explicitly, because wardens inherit the descriptor
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            host_process.private_descriptors.discard(descriptor)
            os.close(descriptor)

    def add_hang(self, call: str, rule_id: str, backlog: float = 0.0) -> None:
        """A call of the executor did not return.

        :param backlog: tasks in flight per slot when it was made.
        """
        name = f"{call}@{rule_id}".replace("/", "_")
        with open(self._path("hangs", name), "w") as file:
            file.write(str(backlog))

    def forget_hang(self, rule_id: str) -> None:
        """The call that hung in this rule does return, though not always."""
        for name in os.listdir(self._path("hangs")):
            if name.endswith(f"@{rule_id}"):
                os.unlink(self._path("hangs", name))

    def add_lost_time(self, seconds: float) -> None:
        """Add the duration of a rule that hung or was cut off."""
        with open(self._path("lost-time"), "a") as file:
            file.write(f"{seconds:.3f}\n")

    def lost_s(self) -> float:
        """Total seconds of the rules so far that hung or were cut off."""
        return sum(self._numbers("lost-time"))

    def add_wait_in_vain(self, rule_id: str) -> None:
        """A second wait for an event was in vain in this rule."""
        open(self._path("in-vain", rule_id), "w").close()

    def waits_in_vain(self) -> int:
        """The number of rules in which a second wait for an event was in vain."""
        return len(os.listdir(self._path("in-vain")))

    def add_late(self, seconds: float) -> None:
        """Add a wait that ended during a second wait."""
        with open(self._path("late"), "a") as file:
            file.write(f"{seconds:.3f}\n")

    def late_s(self) -> float:
        """The longest wait, in seconds, that ended during a second wait; 0: none did."""
        return max(self._numbers("late"), default=0.0)

    def hangs(self) -> dict[str, dict[str, float]]:
        """Call -> id of each rule in which it hung -> tasks in flight per slot at that time."""
        by_call: dict[str, dict[str, float]] = {}
        for name in sorted(os.listdir(self._path("hangs"))):
            call, _, rule_id = name.rpartition("@")
            backlog = max(self._numbers("hangs", name), default=0.0)  # empty while another process writes it
            by_call.setdefault(call, {})[rule_id] = backlog
        return by_call

    def _numbers(self, *names: str) -> list[float]:
        try:
            with open(self._path(*names)) as file:
                return list(map(float, file))
        except FileNotFoundError:
            return []

    def _path(self, *names: str) -> str:
        return os.path.join(self._directory, *names)
