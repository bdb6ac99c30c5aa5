"""The warden of one rule: watches its host, and in the end kills and reaps everything below itself."""

from __future__ import annotations

import json
import os
import select
import signal
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import NoReturn

from executor_conformance.contract import LIFECYCLE_CALLS
from executor_conformance.harness import processes
from executor_conformance.harness.blackboard import Blackboard, CallInProgress
from executor_conformance.harness.containment_result import ContainmentResult, End, Limits
from executor_conformance.harness.host_process import become_host
from executor_conformance.harness.linux import SignalMask, adopt_orphans, fork, monotonic, set_signal_mask

#: Seconds that resource trackers have to remove the names in /dev/shm that they know.
_TRACKERS_S = 1.0
_TICK_S = 0.02
_KEPT_OUTPUT = 8 << 10
_LISTED_LEFT, _LISTED_TREE = 20, 30


@dataclass(frozen=True)
class Assignment:
    """What a warden has to watch.

    :param body: what the host runs.
    :param scratch: a directory for the temporary files of the executor.
    :param show_output: let the executor print to pytest's own standard output.
    :param pytest_pid: of the parent; the warden ends everything when it is gone.
    :param signal_mask: of the parent, in which signals wait until the warden ignores them.
    """

    body: Callable[[Blackboard], None]
    blackboard: Blackboard
    limits: Limits
    scratch: str
    show_output: bool
    pytest_pid: int
    signal_mask: SignalMask


def keep_watch(assignment: Assignment, writer: int) -> NoReturn:
    """Fork the host, watch it to its end, and write the result to the descriptor ``writer``."""
    status = 1
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        set_signal_mask(assignment.signal_mask)
        signal.setitimer(signal.ITIMER_REAL, 0)
        adopt_orphans()
        result = _watch(assignment, writer)
        text = json.dumps(asdict(result)).encode()
        while text:
            text = text[os.write(writer, text) :]
        status = 0
    except BrokenPipeError:
        pass  # pytest is gone; everything below is killed all the same
    except BaseException:
        traceback.print_exc()
    finally:
        processes.sweep()
        os._exit(status)


def _watch(assignment: Assignment, writer: int) -> ContainmentResult:
    blackboard = assignment.blackboard
    stacks = os.memfd_create("stacks")
    output_read, output_write = os.pipe()
    warden = os.getpid()
    host = fork()
    if host == 0:
        os.close(output_read)
        os.close(writer)
        become_host(
            assignment.body,
            blackboard,
            assignment.scratch,
            None if assignment.show_output else output_write,
            stacks,
            warden,
        )
    os.close(output_write)
    watch = _Watch(assignment, host, output_read)
    end, detail, call = watch.until_the_end()
    left = [process for process in processes.descendants(warden) if process.pid != host]
    result = ContainmentResult(
        end,
        detail=detail,
        result=blackboard.result(),
        left_behind=tuple(map(str, left[:_LISTED_LEFT])),
    )
    if call is not None:
        result = replace(
            result,
            call_kind=call.kind,
            call_backlog=call.backlog,
            call_name=call.name,
            call_history=call.history,
            call_s=round(monotonic() - call.entered, 3),
        )
    if end is not End.FINISHED:
        tree = processes.descendants(warden)[:_LISTED_TREE]
        result = replace(
            result, tree=tuple(map(str, tree)), stacks=_stacks_of(watch, end, call, host, stacks)
        )
    shared = {name for pid in [host, *(p.pid for p in left)] for name in processes.mapped_shared_memory(pid)}
    processes.let_trackers_finish(left, _TRACKERS_S)
    survivors = tuple(map(str, processes.sweep()))
    for name in shared:
        if os.path.basename(name).startswith(("sem.", "psm_")) and os.path.exists(name):
            os.unlink(name)
    watch.read_output()
    return replace(result, survivors=survivors, output=watch.output())


def _stacks_of(watch: _Watch, end: End, call: CallInProgress | None, host: int, stacks: int) -> str:
    if end in (End.HANG, End.TIMEOUT, End.OUTPUT, End.PROCESSES):
        # the caller may be a process of its own, a host within the host: its stacks are the useful ones
        watch.ask_for_stacks(call.pid if call is not None else host)
    text = _text_of(stacks)
    if not text and end in (End.HANG, End.TIMEOUT):
        return _kernel_view(host)
    return text


class _Watch:
    """The warden's loop: until the host ends, a limit is passed, or pytest is gone."""

    def __init__(self, assignment: Assignment, host: int, output: int) -> None:
        self.blackboard = assignment.blackboard
        self.limits = assignment.limits
        self.pytest_pid = assignment.pytest_pid
        self.host = host
        self.output_descriptor = output
        os.set_blocking(output, False)
        self.printed = 0
        self.head = b""
        self.tail = b""

    def until_the_end(self) -> tuple[End, str, CallInProgress | None]:
        poll = select.poll()
        try:
            host = os.pidfd_open(self.host)
            poll.register(host, select.POLLIN)
        except OSError:  # it may have ended already; the loop below sees that
            host = -1
        poll.register(self.output_descriptor, select.POLLIN)
        began = looked = monotonic()
        ticks = call_ticks = 0
        call_number = -1
        next_count = began + 0.2
        lifecycle_s = 0.0  # in calls that have a limit of their own, and that a rule makes a few times
        while True:
            poll.poll(_TICK_S * 1000)
            if not self.read_output():
                poll.unregister(self.output_descriptor)
                self.output_descriptor = -1
            pid, status = os.waitpid(self.host, os.WNOHANG)
            if pid:
                return (*self._ended(status), self.blackboard.call())
            now = monotonic()
            ticks += 1
            call = self.blackboard.call()
            if call is not None and call.kind in LIFECYCLE_CALLS:
                lifecycle_s += now - looked
            looked = now
            if call is None or call.number != call_number:
                call_number, call_ticks = (call.number if call else -1), 0
            call_ticks += 1
            if self.blackboard.abandoned or os.getppid() != self.pytest_pid:
                return End.INTERRUPTED, "", call
            if self.printed > self.limits.output_bytes:
                return End.OUTPUT, f"{self.printed >> 20} MiB", call
            if call is not None and _is_over(now - call.entered, call.allowance_s, call_ticks):
                return End.HANG, f"{now - call.entered:.1f} s", call
            if _is_over(now - began - lifecycle_s, self.limits.rule_s, ticks):
                return End.TIMEOUT, f"{now - began:.1f} s", call
            if now > next_count:
                count = len(processes.descendant_pids(os.getpid()))
                if count > self.limits.processes:
                    return End.PROCESSES, str(count), call
                processes.reap(spare=self.host)
                next_count = now + 0.1

    def _ended(self, status: int) -> tuple[End, str]:
        if os.WIFSIGNALED(status):
            return End.SIGNAL, signal.Signals(os.WTERMSIG(status)).name
        code = os.WEXITSTATUS(status)
        if code == 0 and self.blackboard.result() is not None:
            return End.FINISHED, ""
        return End.EXIT, str(code)

    def read_output(self) -> bool:
        """Read what was printed; ``False`` once every writer has closed the pipe."""
        if self.output_descriptor < 0:
            return True
        for _ in range(64):
            try:
                chunk = os.read(self.output_descriptor, 1 << 16)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            self.printed += len(chunk)
            room = _KEPT_OUTPUT - len(self.head)
            self.head += chunk[:room]
            self.tail = (self.tail + chunk[room:])[-_KEPT_OUTPUT:]
        return True

    def output(self) -> str:
        """The first and the last of what was printed."""
        cut = self.printed - len(self.head) - len(self.tail)
        middle = f"\n[... {cut} bytes ...]\n".encode() if cut > 0 else b""
        return (self.head + middle + self.tail).decode("utf-8", "replace")

    def ask_for_stacks(self, pid: int) -> None:
        """Have faulthandler write the stacks of all threads: it needs neither the GIL nor Python code."""
        processes.kill(pid, signal.SIGCONT)
        processes.kill(pid, signal.SIGABRT)
        until = monotonic() + 0.5
        while monotonic() < until and processes.is_alive(pid):
            select.select([], [], [], 0.005)


def _is_over(elapsed: float, allowance: float, ticks: int) -> bool:
    # On a starved machine the warden gets few ticks, and so does the executor: both the clock and the ticks
    # must be used up before it is called a hang.
    return elapsed > allowance and ticks * _TICK_S * 2 > allowance


def _text_of(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, min(size, 64 << 10), 0).decode("utf-8", "replace")


def _kernel_view(pid: int) -> str:
    """What the kernel knows about a process that ignores the request for its stacks."""
    lines = ["the process ignores SIGABRT, so there are no Python stacks; from the kernel:"]
    try:
        for thread in sorted(os.listdir(f"/proc/{pid}/task"), key=int)[:50]:
            with open(f"/proc/{pid}/task/{thread}/stat") as file:
                state = file.read().rpartition(")")[2].split()[0]
            with open(f"/proc/{pid}/task/{thread}/wchan") as file:
                waits = file.read() or "0"
            lines.append(f"  thread {thread}: state {state}, waiting in {waits}")
    except OSError as error:
        lines.append(f"  {error}")
    return "\n".join(lines)
