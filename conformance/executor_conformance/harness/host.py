"""The host: the process that holds the executor, seen from within, and the processes around it."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable
from multiprocessing import Pipe
from typing import TypeVar

from executor_conformance.harness import processes
from executor_conformance.harness.blackboard import Blackboard
from executor_conformance.harness.linux import die_with_parent, monotonic, private_disk, sleep
from executor_conformance.harness.processes import Process
from executor_conformance.harness.waiting import SHORTEST_NAP_S
from executor_conformance.verdicts import Broken, Inconclusive, Judgement

Result = TypeVar("Result")

#: What :meth:`Host.resource_counts` calls POSIX semaphores and shared memory; other programs have some, too.
SHARED_NAMES = "name in /dev/shm"
#: Bytes of a private /dev/shm: more than any rule fills.
_PRIVATE_BYTES = 1 << 28
#: Seconds for which the names that other programs create are counted.
_OTHERS_S = 3.0
#: Seconds over which the processor time of an idle executor is taken.
_IDLE_S = 0.4


def isolate_shared_names() -> bool:
    """Mount a private /dev/shm, which no other program uses; whether that was possible.

    A count of :data:`SHARED_NAMES` that grew is repeated there: other programs use the shared one, too.
    """
    return private_disk("/dev/shm", _PRIVATE_BYTES)


def refuse_names_of_others() -> None:
    """Check that no other program creates :data:`SHARED_NAMES` now, while the executor does nothing.

    :raises Inconclusive: one does.
    """
    before = processes.shared_memory_names()
    sleep(_OTHERS_S)
    if processes.shared_memory_names() - before:
        raise Inconclusive(
            "the number of names in /dev/shm grew, but other programs create some, too, and a private one "
            "cannot be mounted here; allow mounts (CAP_SYS_ADMIN), or run the suite without these programs"
        )


class Host:
    """This process, and everything below its warden.

    :param warden: pid of the process below which everything that the executor makes can be found.
    """

    def __init__(self, warden: int, blackboard: Blackboard) -> None:
        self.pid = os.getpid()
        self.warden = warden
        self._blackboard = blackboard
        self._own_processes: set[int] = set()

    def processes(self) -> list[Process]:
        """Every process that the executor made and that is still there, zombies included, wherever it was
        reparented to.
        """
        found = []
        for process in processes.descendants(self.warden):
            if process.pid == self.pid or process.pid in self._own_processes:
                continue
            if process.is_interpreter_helper and (
                process.parent == self.pid or process.parent in self._own_processes
            ):
                continue
            found.append(process)
        return found

    def relatives(self) -> list[int]:
        """The pids of all that may share memory with the host or its executor, from the pytest process on."""
        warden = processes.look(self.warden)
        return [*([warden.parent] if warden else []), self.warden, *processes.descendant_pids(self.warden)]

    def resource_counts(self) -> dict[str, int]:
        """How many there are of each kind of resource that an executor may leave behind."""
        shared_before = processes.shared_memory_names()
        return {
            "process": len(self.processes()),
            "thread": processes.thread_count(),
            "descriptor": len(processes.open_descriptors()),
            "temporary file": sum(len(files) for _, _, files in os.walk(tempfile.gettempdir())),
            # Only names that last longer than the counts before: other programs create some for a moment.
            SHARED_NAMES: len(shared_before & processes.shared_memory_names()),
            "mapped shared memory": len(processes.mapped_shared_memory()),
        }

    def waited_for_processors_s(self) -> float:
        """How long the threads of this process and of the executor's could have run but had no processor, so
        far, in seconds.
        """
        pids = [self.pid, *(process.pid for process in self.processes())]
        return sum(map(processes.waited_for_processors_s, pids))

    def idle_cpu_share(self, little: float) -> float:
        """Processor seconds per second that the host and the executor's processes use while nobody calls the
        executor.

        :param little: if it is more, it is measured again: what has just ended may still be cleaning up.
        """
        for _ in range(3):
            share = self._cpu_share()
            if share < little:
                break
        return share

    def _cpu_share(self) -> float:
        pids = [self.pid, *(process.pid for process in self.processes())]
        before, began = sum(map(processes.cpu_s, pids)), monotonic()
        sleep(_IDLE_S)
        return (sum(map(processes.cpu_s, pids)) - before) / (monotonic() - began)

    def in_another_host(self, body: Callable[[], Result]) -> tuple[int, Result]:
        """Run ``body`` in a forked host within this one, which then stays as it is until it is killed.

        :returns: the pid of that host, and what ``body`` returned there.
        """
        reader, writer = Pipe(duplex=False)
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            try:
                reader.close()
                die_with_parent(signal.SIGKILL, parent)
                self.pid = os.getpid()
                try:
                    writer.send(("result", body()))
                except Judgement as judgement:
                    writer.send(("judgement", judgement))
                while True:
                    signal.pause()
            finally:
                os._exit(1)
        self._own_processes.add(child)
        writer.close()
        try:
            # One message, not the end of the file: workers may have inherited the other end.
            kind, value = reader.recv()
        except EOFError:
            raise Broken(
                expected="the process that holds the executor to stay alive", actual="it ended"
            ) from None
        if kind == "judgement":
            raise value
        return child, value

    def meanwhile(self, body: Callable[[], object]) -> int:
        """Run ``body`` in a process of the suite's own, while this one is in a call of the executor.

        :returns: its pid, for :meth:`kill_own`.
        """
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            try:
                die_with_parent(signal.SIGKILL, parent)
                self._own_processes.add(os.getpid())
                body()
            finally:
                os._exit(1)
        self._own_processes.add(child)
        return child

    def await_call(self, kind: str, or_next: bool = False) -> None:
        """In a process made by :meth:`meanwhile`: wait until the host is in this call.

        :param or_next: the call is the host's next one; if it returns at once, a later call will do.
        """
        made = self._blackboard.calls
        while True:
            call = self._blackboard.call()
            if call is not None and (call.kind == kind or (or_next and call.number > made)):
                return
            sleep(SHORTEST_NAP_S)

    def exit_status(self, pid: int) -> int | None:
        """Reap a process made by :meth:`meanwhile`.

        :returns: its exit status; ``None``: the executor has reaped it.
        """
        try:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            return None

    def kill_own(self, pid: int) -> None:
        """Kill and reap a process made by :meth:`in_another_host` or :meth:`meanwhile`."""
        processes.kill(pid)
        self.exit_status(pid)
