"""The tasks that a rule submits, and the gates that they wait at."""

from __future__ import annotations

import functools
import itertools
import os
import sys
from dataclasses import dataclass

from executor_conformance.adapters.api import Work
from executor_conformance.contract import TaskKey
from executor_conformance.harness.journal import Journal, Run
from executor_conformance.probes import coroutine, task

_MODULE = task.__name__
#: If a Python task takes longer, in seconds, rules that need hundreds of tasks run most of them by a shell.
SLOW_TASK_S = 0.012


@dataclass(frozen=True)
class Probe:
    """One task of the suite: its key, its work, and what it recorded."""

    name: str
    key: TaskKey
    work: Work
    journal: Journal
    gates: tuple[Gate, ...] = ()

    @property
    def runs(self) -> list[Run]:
        """Every run of it so far; more than one means that the task ran twice."""
        return self.journal.runs(self.name)

    @property
    def started(self) -> bool:
        return bool(self.runs)

    @property
    def finished(self) -> bool:
        return any(run.finished_ns is not None for run in self.runs)

    def __str__(self) -> str:
        return f"task {self.name}"


class Gate:
    """Probes wait here until the rule opens it, so no rule sleeps.

    A FIFO: opening it for reading blocks until it is open for writing.  Probes blocked in the kernel cost
    nothing, and a gate whose host died never opens.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        os.mkfifo(path, 0o666)
        self._descriptor = -1

    @property
    def step(self) -> str:
        """The step of a probe that waits here."""
        return f"gate={self.path}"

    @property
    def waiting_step(self) -> str:
        """The same; the probe notes that it waits, and needs neither a file nor a module from then on."""
        return f"wait={self.path}"

    @property
    def is_open(self) -> bool:
        return self._descriptor >= 0

    def open(self) -> None:
        """Let every probe pass, now and later."""
        if not self.is_open:
            self._descriptor = os.open(self.path, os.O_RDWR)
            os.write(self._descriptor, b".")  # never read: coroutines check whether it is there


def _key(number: int) -> TaskKey:
    # Scrambled, so that an executor that sorts by key does not happen to sort by time.
    return TaskKey("dag", f"task-{number * 419_327 % 1_000_003:06}", "run", 1, -1)


class ProbeFactory:
    """Numbers the probes and gates of one trial."""

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch
        self._numbers = itertools.count(1)
        self._gate_numbers = itertools.count(1)
        self._gates: dict[str, Gate] = {}
        self.journal = Journal(os.path.join(scratch, "journal"))

    def gate(self) -> Gate:
        """A closed gate."""
        gate = Gate(os.path.join(self._scratch, f"gate-{next(self._gate_numbers)}"))
        self._gates[gate.step] = self._gates[gate.waiting_step] = gate
        return gate

    def probe(self, *steps: str, key: TaskKey | None = None) -> Probe:
        """A task that runs ``steps``; see :mod:`executor_conformance.probes.steps`.

        :param key: its key; by default one of its own.
        """
        number = next(self._numbers)
        name = f"p{number}"
        path = self.journal.path
        return Probe(
            name=name,
            key=key if key is not None else _key(number),
            work=Work(
                argv=[sys.executable, "-m", _MODULE, path, name, *steps],
                function=functools.partial(task.run, path, name, steps),
                coroutine=functools.partial(coroutine.run, path, name, steps),
                reference=(f"{_MODULE}.run", {"journal": path, "probe": name, "steps": list(steps)}),
            ),
            journal=self.journal,
            gates=tuple(self._gates[step] for step in steps if step in self._gates),
        )

    def program(self, *argv: str, key: TaskKey | None = None) -> Probe:
        """A task that is any other program, with the command ``argv``."""
        number = next(self._numbers)
        return Probe(
            name=f"p{number}",
            key=key if key is not None else _key(number),
            work=Work(argv=list(argv)),
            journal=self.journal,
        )

    def shell_probe(self, exit_status: int, key: TaskKey | None = None) -> Probe:
        """A probe in shell: it records that it started and finished, but not when."""
        number = next(self._numbers)
        name = f"p{number}"
        script = (
            """printf 'start\\t%s\\t%s\\t0\\t%s\\t%s\\t0\\t0\\t0\\nfinish\\t%s\\t%s\\t0\\n' """
            """"$1" "$$" "$$" "$PPID" "$1" "$$" >> "$0"; exit "$2\""""
        )
        return Probe(
            name=name,
            key=key if key is not None else _key(number),
            work=Work(argv=["/bin/sh", "-c", script, self.journal.path, name, str(exit_status)]),
            journal=self.journal,
        )
