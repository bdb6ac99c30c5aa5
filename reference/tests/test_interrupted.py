"""Tests of calls that a signal handler of the host interrupts by raising an exception.

The interpreter runs signal handlers after each call, among others.  So these tests raise at each such moment
in turn, from a trace function: in the call under test, and in all that it calls.  Then they carry on, and
each task must have run at most once and have exactly one terminal event.
"""

from __future__ import annotations

import dis
import functools
import gc
import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import tasks
from executor_reference import AsyncExecutor, LocalExecutor

_METHODS = ["fork", "snapshot", "forkserver", "spawn"]


class Raised(TimeoutError):
    """Raised by the signal handler.  It is an ``OSError``, as of many handlers of ``SIGALRM``."""


class _Interruption:
    """Raises once, before a bytecode at which a signal handler can run.

    :param moment: the number of that bytecode among all such ones in this thread, counted from 0.
    """

    def __init__(self, moment: int) -> None:
        self._left = moment
        self._host = os.getpid()
        self._thread = threading.get_ident()
        self.has_raised = False

    def __enter__(self) -> None:
        if sys.version_info >= (3, 12):  # a trace function misses bytecodes there
            sys.monitoring.use_tool_id(_TOOL, "interruption")
            sys.monitoring.register_callback(_TOOL, sys.monitoring.events.INSTRUCTION, self._count)
            sys.monitoring.set_events(_TOOL, sys.monitoring.events.INSTRUCTION)
        else:
            self._previous = sys.gettrace()
            sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        if sys.version_info >= (3, 12):
            sys.monitoring.set_events(_TOOL, 0)
            sys.monitoring.free_tool_id(_TOOL)
        else:
            sys.settrace(self._previous)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode":
            self._count(frame.f_code, frame.f_lasti)
        return self._trace

    def _count(self, code: CodeType, offset: int) -> None:
        if code.co_filename in _NOT_OF_THE_EXECUTOR:
            return
        if offset not in _moments(code):
            return
        if code in _DRAINS and dis.opname[code.co_code[offset]].startswith("RETURN"):
            return  # the one moment at which a result can be lost, as the docstrings say
        if os.getpid() != self._host or threading.get_ident() != self._thread:
            return
        if signal.SIGALRM in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
            return  # it waits
        self._left -= 1
        if self._left < 0 and not self.has_raised:
            self.has_raised = True
            raise Raised(f"at {offset} in {code.co_name}()")


@functools.cache
def _moments(code: CodeType) -> frozenset[int]:
    """Return the offsets of the bytecodes before which the interpreter runs signal handlers.

    It does so on entry to a function, after a call, and after a jump backward.  An exception elsewhere could
    never happen, and would do harm: before the end of a ``with`` block it would leave a lock locked.
    """
    moments: set[int] = set()
    after_a_call = True  # a function is entered
    for instruction in dis.get_instructions(code):
        name = instruction.opname
        if after_a_call and not name.startswith("SETUP_"):  # there, Python 3.10 waits for the next one
            moments.add(instruction.offset)
        after_a_call = name.startswith(("CALL", "RESUME"))
        is_jump = "JUMP" in name and not name.endswith("NO_INTERRUPT")
        if is_jump and isinstance(instruction.argval, int) and instruction.argval < instruction.offset:
            moments.add(instruction.argval)
    return frozenset(moments)


_DRAINS = {LocalExecutor.get_event_buffer.__code__, AsyncExecutor.get_event_buffer.__code__}
#: This module; logging, whose hooks os.fork() calls, printing their exceptions; and threading, whose own
#: objects can stay locked for ever if a signal handler raises in them.
_NOT_OF_THE_EXECUTOR = {__file__, logging.__file__, threading.__file__}
_TOOL = 3  # of the ids that the interpreter leaves to others


def was_interrupted(call: Callable[[], object], moment: int) -> bool:
    """Call it, and raise at the given moment; return whether the call lasted that long."""
    interruption = _Interruption(moment)
    try:
        with interruption:
            call()
    except Raised:
        pass
    return interruption.has_raised


class Host:
    """Uses an executor, and counts what its tasks and the executor report."""

    def __init__(self, executor: Any, folder: Path, step: int = 1) -> None:
        self._step = step
        self.executor = executor
        self.events: dict[Any, list[Any]] = {}
        self._folder = folder
        executor.start()

    def moments(self) -> Iterator[int]:
        """Return the moments to try."""
        return itertools.count(0, self._step)

    def submit(self, key: str) -> None:
        self.executor.execute_async(("dag", key), self._command(key))

    def _command(self, key: str) -> Any:
        return functools.partial(tasks.append, str(self._folder / key), "ran")

    def runs(self, key: str) -> int:
        path = self._folder / key
        return len(path.read_text().splitlines()) if path.exists() else 0

    def read_events(self) -> None:
        for (_, key), event in self.executor.get_event_buffer().items():
            self.events.setdefault(key, []).append(event)

    def finish(self) -> None:
        """Read events before and after each round, until no task is left."""
        self.read_events()
        while self.executor.slots_occupied:
            self.executor.wait(PATIENCE_S)
            self.read_events()

    def assert_exactly_once(self, *keys: str) -> None:
        self.finish()
        for key in keys:
            assert (self.events.pop(key, []), self.runs(key)) == ([SUCCESS], 1), key
        assert self.events == {}

    def await_news(self) -> None:
        """Wait until a running task has ended, without noticing it."""
        assert self.executor._launcher._poll.poll(PATIENCE_S * 1e3)


#: If an exception is raised before a file is stored, the garbage collector closes the file.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SUCCESS = ("success", None)
PATIENCE_S = 30.0


@pytest.fixture(autouse=True)
def garbage() -> Iterator[None]:
    """Collect what was left unclosed, so that it warns in no later test."""
    yield
    gc.collect()


@pytest.fixture(params=_METHODS)
def method(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def host(method: str, tmp_path: Path) -> Iterator[Host]:
    host = Host(LocalExecutor(1, method), tmp_path, _STEPS[method])
    yield host
    host.executor.terminate()


#: Every how-manieth moment is tried.  1 tries each; the others are prime, so that loops are interrupted at
#: different bytecodes.
_STEPS = {"fork": 1, "snapshot": 1, "forkserver": 3, "spawn": 7}
#: The same where each moment needs a new executor.
_STEPS_AT_THE_END = {"fork": 3, "snapshot": 5, "forkserver": 11, "spawn": 17}


def test_interrupted_submission_is_accepted_or_leaves_nothing_behind(host: Host) -> None:
    for moment in host.moments():
        key = str(moment)
        interrupted = was_interrupted(functools.partial(host.submit, key), moment)
        accepted = [key] if host.executor.slots_occupied else []
        host.assert_exactly_once(*accepted)
        assert host.runs(key) == len(accepted)
        if not interrupted:
            return


def test_interrupted_submission_of_a_queued_task(host: Host) -> None:
    for moment in host.moments():
        running, key, later = f"{moment}-running", str(moment), f"{moment}-later"
        host.submit(running)
        interrupted = was_interrupted(functools.partial(host.submit, key), moment)
        accepted = [key] if host.executor.slots_occupied == 2 else []
        host.submit(later)
        host.assert_exactly_once(running, *accepted, later)
        if not interrupted:
            return


def test_interrupted_sync(host: Host) -> None:
    for moment in host.moments():
        keys = f"{moment}-running", f"{moment}-queued"
        for key in keys:
            host.submit(key)
        host.await_news()
        interrupted = was_interrupted(host.executor.sync, moment)
        host.assert_exactly_once(*keys)
        if not interrupted:
            return


@pytest.mark.parametrize("dag_ids", [None, ["dag"]], ids=["all", "filtered"])
def test_interrupted_get_event_buffer(tmp_path: Path, dag_ids: Any) -> None:
    host = Host(LocalExecutor(1, "fork"), tmp_path)
    found: dict[Any, Any] = {}

    def read() -> None:
        found.update(host.executor.get_event_buffer(dag_ids))

    for moment in itertools.count():
        key = str(moment)
        host.executor.execute_async(("dag", key), ["true"])
        while host.executor.running:
            host.executor.wait()
        interrupted = was_interrupted(read, moment)
        if not found:
            found = host.executor.get_event_buffer()
        assert found == {("dag", key): SUCCESS}
        found.clear()
        if not interrupted:
            break
    host.executor.end()


@pytest.mark.parametrize("call", ["end", "terminate"])
def test_interrupted_end(method: str, call: str, tmp_path: Path) -> None:
    for moment in itertools.count(0, _STEPS_AT_THE_END[method]):
        folder = tmp_path / str(moment)
        folder.mkdir()
        host = Host(LocalExecutor(1, method), folder)
        for key in ("running", "queued"):
            host.submit(key)
        end = getattr(host.executor, call)
        interrupted = was_interrupted(end, moment)
        host.read_events()
        end()
        host.read_events()
        assert {key: len(events) for key, events in host.events.items()} == {"running": 1, "queued": 1}
        assert all(host.runs(key) <= 1 for key in host.events)
        if call == "end":
            host.assert_exactly_once("running", "queued")
        if not interrupted:
            return


# -- the async executor --------------------------------------------------------------------------------------


class AsyncHost(Host):
    """The same for an async executor, whose tasks are coroutine functions and programs."""

    def _command(self, key: str) -> Any:
        async def run() -> None:
            tasks.append(str(self._folder / key), "ran")

        return run

    def finish(self) -> None:
        self.read_events()
        pause = threading.Event()
        while self.executor.slots_occupied:
            self.executor.sync()
            self.read_events()
            pause.wait(0.0005)


@pytest.mark.parametrize("call", ["submit", "sync", "end", "terminate"])
def test_interrupted_async_executor(call: str, tmp_path: Path) -> None:
    for moment in itertools.count(0, 1 if call in ("submit", "sync") else 5):
        folder = tmp_path / str(moment)
        folder.mkdir()
        host = AsyncHost(AsyncExecutor(1), folder)
        keys = ["running", "queued"]
        for key in keys:
            host.submit(key)
        interruptible = getattr(host.executor, call, functools.partial(host.submit, "interrupted"))
        interrupted = was_interrupted(interruptible, moment)
        if call == "submit" and "interrupted" in {key for _, key in host.executor._in_flight}:
            keys.append("interrupted")
        if call in ("end", "terminate"):
            getattr(host.executor, call)()
            host.read_events()
        host.finish()
        host.executor.end()
        host.read_events()
        assert {key: len(events) for key, events in host.events.items()} == dict.fromkeys(keys, 1)
        if call != "terminate":
            host.assert_exactly_once(*keys)
        if not interrupted:
            return


_INTERRUPTED_FORK = """
import logging, os, signal, sys, threading
from executor_reference import LocalExecutor

def handler(*_):
    raise TimeoutError

def interrupt():
    if is_armed:
        os.kill(os.getpid(), signal.SIGALRM)

is_armed = False
signal.signal(signal.SIGALRM, handler)
os.register_at_fork(before=interrupt)
executor = LocalExecutor(parallelism=1, start_method=sys.argv[1])
is_armed = True
try:
    executor.start()
    executor.execute_async(("dag", "task", "run", 1, -1), [sys.executable, "-c", "pass"])
    executor.sync()
except TimeoutError:
    print("interrupted")
is_armed = False
thread = threading.Thread(target=logging.getLogger, args=("new",), daemon=True)
thread.start()
thread.join(10)
print("logging is locked:", thread.is_alive())
executor.end()
"""


@pytest.mark.parametrize("method", ["fork", "snapshot"])
def test_an_interrupt_during_a_fork_is_not_lost(method: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED_FORK, method], capture_output=True, text=True, timeout=60
    )
    assert run.stdout.splitlines() == ["interrupted", "logging is locked: False"]
    assert run.stderr == ""
