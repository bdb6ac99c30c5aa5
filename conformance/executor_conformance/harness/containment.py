"""Runs one rule in a process of its own, and ends it whatever the executor does.

Three processes take part:

- the *pytest* process forks a warden and waits for its account;
- the *warden* leads a session of its own, adopts every orphan below it, forks the host, watches the clock,
  the number of processes and the output, and in the end kills everything below it.  It outlives pytest
  when pytest is killed with SIGKILL, and then does the same;
- the *host* runs the rule and the executor under test.  The kernel kills it when its warden dies.

Should the executor kill the warden, its orphans come to the pytest process, which adopts them for as long as
a rule runs.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import select
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from typing import Any, NoReturn

from executor_conformance import probe
from executor_conformance.harness import processes
from executor_conformance.harness.blackboard import Blackboard, Call
from executor_conformance.harness.linux import adopt_orphans, die_with_parent, monotonic

_TICK_S = 0.02
_KEPT_OUTPUT = 8 << 10


@dataclass(frozen=True)
class Limits:
    """What a contained rule may use.

    :param rule_s: seconds for the whole rule.
    :param processes: how many processes it may have at once.
    :param output_bytes: how much it may print.
    """

    rule_s: float = 60.0
    processes: int = 250
    output_bytes: int = 64 << 20


@dataclass(frozen=True)
class Account:
    """What the warden saw.

    :param result: what the rule's process put on the blackboard, if it got so far.
    :param end: ``"finished"``, or how it came to an end: ``"hang"``, ``"timeout"``, ``"exit"``, ``"signal"``,
        ``"processes"``, ``"output"``, ``"interrupted"``.
    :param detail: the exit status, the signal's name, the number of processes or bytes.
    :param call: the executor's call that was under way.
    """

    end: str
    result: dict[str, Any] | None = None
    detail: str = ""
    call: str = ""
    call_s: float = 0.0
    stacks: str = ""
    tree: list[str] = field(default_factory=list)
    output: str = ""
    left_behind: list[str] = field(default_factory=list)
    survivors: list[str] = field(default_factory=list)


def contain(
    body: Callable[[Blackboard], None], *, limits: Limits, scratch: str, show_output: bool = False
) -> Account:
    """Run ``body`` in a contained process and return the warden's account of it.

    :param scratch: a directory for the temporary files of the executor; the caller removes it.
    :param show_output: let the executor print to this process's own standard output (``pytest -s``).
    """
    blackboard = Blackboard()
    account_read, account_write = os.pipe()
    mine = set(processes.children(os.getpid()))
    adopt_orphans()
    try:
        pytest_pid = os.getpid()
        warden = fork()
        if warden == 0:
            os.close(account_read)
            _keep_watch(body, blackboard, limits, scratch, show_output, account_write, pytest_pid)
        os.close(account_write)
        account_write = -1
        return _await_account(warden, account_read, blackboard)
    finally:
        os.close(account_read)
        if account_write >= 0:
            os.close(account_write)
        while strays := set(processes.children(os.getpid())) - mine:  # only if the warden was killed
            for stray in strays:
                processes.kill_all([stray, *processes.descendant_pids(stray)])
            for stray in strays:
                os.waitpid(stray, 0)
        adopt_orphans(False)
        blackboard.close()


def fork() -> int:
    """``os.fork`` without the warning of Python 3.12 about threads: under pytest-xdist there is one, and
    the child runs nothing that it could have locked.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return os.fork()


def _await_account(warden: int, descriptor: int, blackboard: Blackboard) -> Account:
    chunks = []
    try:
        while chunk := os.read(descriptor, 1 << 16):
            chunks.append(chunk)
        os.waitpid(warden, 0)
    except BaseException:
        # Ctrl-C, or a test timeout: the warden cleans up before the exception goes on.
        blackboard.abandon()
        os.waitpid(warden, 0)
        raise
    if not chunks:
        call = blackboard.call()
        return Account(
            "signal",
            detail="SIGKILL to the suite's own processes",
            call=call.name if call else "",
            result=blackboard.result(),
        )
    account: dict[str, Any] = json.loads(b"".join(chunks))
    return Account(**account)


# -- the warden ----------------------------------------------------------------------------------------------


def _keep_watch(
    body: Callable[[Blackboard], None],
    blackboard: Blackboard,
    limits: Limits,
    scratch: str,
    show_output: bool,
    account_descriptor: int,
    pytest_pid: int,
) -> NoReturn:
    status = 1
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        adopt_orphans()
        account = _watch(body, blackboard, limits, scratch, show_output, account_descriptor, pytest_pid)
        text = json.dumps(account).encode()
        while text:
            text = text[os.write(account_descriptor, text) :]
        status = 0
    except BrokenPipeError:
        pass  # pytest is gone; everything below is killed all the same
    except BaseException:
        traceback.print_exc()
    finally:
        processes.sweep()
        os._exit(status)


def _watch(
    body: Callable[[Blackboard], None],
    blackboard: Blackboard,
    limits: Limits,
    scratch: str,
    show_output: bool,
    account_descriptor: int,
    pytest_pid: int,
) -> dict[str, Any]:
    stacks = os.memfd_create("stacks")
    output_read, output_write = os.pipe()
    warden = os.getpid()
    host = fork()
    if host == 0:
        os.close(output_read)
        os.close(account_descriptor)
        _become_host(body, blackboard, scratch, None if show_output else output_write, stacks, warden)
    os.close(output_write)
    watch = _Watch(blackboard, limits, host, output_read, pytest_pid)
    end, detail, call = watch.until_the_end()
    left = [process for process in processes.descendants(warden) if process.pid != host]
    account: dict[str, Any] = {
        "end": end,
        "detail": detail,
        "result": blackboard.result(),
        "left_behind": [str(process) for process in left[:20]],
    }
    if call is not None:
        account["call"] = call.name
        account["call_s"] = round(monotonic() - call.entered, 3)
    if end != "finished":
        account["tree"] = [str(process) for process in processes.descendants(warden)[:30]]
        if end in ("hang", "timeout", "output", "processes"):
            # a caller in a process of its own (a host within the host) is the one whose stacks are wanted
            watch.ask_for_stacks(call.pid if call is not None else host, stacks)
        account["stacks"] = _text_of(stacks)
        if not account["stacks"] and end in ("hang", "timeout"):
            account["stacks"] = _kernel_view(host)
    shared = {name for pid in [host, *(p.pid for p in left)] for name in processes.mapped_shared_memory(pid)}
    account["survivors"] = [str(process) for process in processes.sweep()]
    for name in shared:
        if os.path.basename(name).startswith(("sem.", "psm_")) and os.path.exists(name):
            os.unlink(name)
    watch.read_output()
    account["output"] = watch.output()
    return account


class _Watch:
    """The warden's loop: until the host ends, a limit is passed, or pytest is gone."""

    def __init__(
        self, blackboard: Blackboard, limits: Limits, host: int, output: int, pytest_pid: int
    ) -> None:
        self.blackboard = blackboard
        self.limits = limits
        self.host = host
        self.output_descriptor = output
        os.set_blocking(output, False)
        self.pytest_pid = pytest_pid
        self.printed = 0
        self.head = b""
        self.tail = b""

    def until_the_end(self) -> tuple[str, str, Call | None]:
        poll = select.poll()
        try:
            host = os.pidfd_open(self.host)
            poll.register(host, select.POLLIN)
        except OSError:  # it may have ended already; the loop below sees that
            host = -1
        poll.register(self.output_descriptor, select.POLLIN)
        began = monotonic()
        ticks = call_ticks = 0
        call_number = -1
        next_count = began + 0.2
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
            if call is None or call.number != call_number:
                call_number, call_ticks = (call.number if call else -1), 0
            call_ticks += 1
            if self.blackboard.abandoned or os.getppid() != self.pytest_pid:
                return "interrupted", "", call
            if self.printed > self.limits.output_bytes:
                return "output", f"{self.printed >> 20} MiB", call
            if call is not None and _is_over(now - call.entered, call.allowance_s, call_ticks):
                return "hang", f"{now - call.entered:.1f} s", call
            if _is_over(now - began, self.limits.rule_s, ticks):
                return "timeout", f"{now - began:.1f} s", call
            if now > next_count:
                count = len(processes.descendant_pids(os.getpid()))
                if count > self.limits.processes:
                    return "processes", str(count), call
                processes.reap(spare=self.host)
                next_count = now + 0.1

    def _ended(self, status: int) -> tuple[str, str]:
        if os.WIFSIGNALED(status):
            return "signal", signal.Signals(os.WTERMSIG(status)).name
        code = os.WEXITSTATUS(status)
        if code == 0 and self.blackboard.result() is not None:
            return "finished", ""
        return "exit", str(code)

    def read_output(self) -> bool:
        """Take what was printed; ``False`` once nobody can print any more."""
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

    def ask_for_stacks(self, pid: int, stacks: int) -> None:
        """Have faulthandler write the stacks of all threads: it needs neither the GIL nor Python code."""
        processes.kill(pid, signal.SIGCONT)
        processes.kill(pid, signal.SIGABRT)
        until = monotonic() + 0.5
        while monotonic() < until and processes.is_alive(pid):
            select.select([], [], [], 0.005)


def _is_over(elapsed: float, allowance: float, ticks: int) -> bool:
    # On a starved machine the warden itself gets few ticks, and so did the executor: both must have had
    # their time before it is called a hang.
    return elapsed > allowance and ticks * _TICK_S * 2 > allowance


def _text_of(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, min(size, 64 << 10), 0).decode("utf-8", "replace")


def _kernel_view(pid: int) -> str:
    """What the kernel says of a process that ignores the request for its stacks."""
    lines = ["the process ignores SIGABRT, so its Python stacks cannot be had; the kernel says:"]
    try:
        for thread in sorted(os.listdir(f"/proc/{pid}/task"), key=int)[:50]:
            with open(f"/proc/{pid}/task/{thread}/stat") as file:
                state = file.read().rpartition(")")[2].split()[0]
            with open(f"/proc/{pid}/task/{thread}/wchan") as file:
                waits = file.read() or "0"
            lines.append(f"  thread {thread}: state {state}, waits in {waits}")
    except OSError as error:
        lines.append(f"  {error}")
    return "\n".join(lines)


# -- the host ------------------------------------------------------------------------------------------------


def _become_host(
    body: Callable[[Blackboard], None],
    blackboard: Blackboard,
    scratch: str,
    output: int | None,
    stacks: int,
    warden: int,
) -> NoReturn:
    status = 1
    try:
        os.setsid()
        die_with_parent(signal.SIGKILL, warden)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        setattr(sys, "__stdin__", open(0, closefd=False))  # noqa: B010, SIM115 - final to type checkers
        sys.stdin = sys.__stdin__
        if output is not None:
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.close(output)
        # New streams in any case: those of pytest may hold what it has yet to write.
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            stream = open(descriptor, "w", buffering=1, closefd=False)  # noqa: SIM115 - lives as long as this
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        hide_pytest()
        faulthandler.enable(file=stacks, all_threads=True)
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        # The user's own ``filterwarnings = error`` is about the user's tests: the executor is judged as
        # it would run.
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        os.environ["TMPDIR"] = tempfile.tempdir = os.path.join(scratch, "tmp")
        os.makedirs(tempfile.tempdir, exist_ok=True)
        coverage = _follow_coverage()
        body(blackboard)
        if coverage is not None:
            coverage.stop()
            coverage.save()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        # Not a normal exit: what pytest left to be done at exit is not this process's to do, and an
        # executor's threads must not keep it.
        os._exit(status)


def hide_pytest() -> list[Any]:
    """Take pytest's import hook, which knows nothing of runpy, out of this process: a scheduler has none.

    :returns: ``sys.meta_path`` as it was.
    """
    before = list(sys.meta_path)
    sys.meta_path[:] = [finder for finder in before if not _is_pytests(finder)]
    # Tasks run this one, by runpy too, and it was imported by way of that hook.
    spec = probe.__spec__
    if spec is not None and spec.origin is not None and _is_pytests(spec.loader):
        probe.__loader__ = spec.loader = SourceFileLoader(spec.name, spec.origin)
    return before


def _is_pytests(thing: object) -> bool:
    return type(thing).__module__.startswith("_pytest.")


def _follow_coverage() -> Any:
    """Go on measuring coverage, into a data file of this process's own."""
    if "coverage" not in sys.modules:
        return None
    import coverage

    current = coverage.Coverage.current()
    if current is None:
        return None
    current.stop()
    options = current.config
    follower = coverage.Coverage(
        data_file=options.data_file,
        data_suffix=True,
        config_file=options.config_file or False,
        branch=options.branch,
        source=options.source,
        source_pkgs=options.source_pkgs,
        omit=options.run_omit,
        include=options.run_include,
    )
    follower.start()
    return follower
