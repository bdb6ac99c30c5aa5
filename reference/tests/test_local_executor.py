"""Tests of the reference executor, with each of its start methods.

No test sleeps.  A task reports through one FIFO that it runs, and ends when the test opens another.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tasks
from executor_reference import LocalExecutor, TaskKey
from executor_reference.spares import SnapshotLauncher, SpareLauncher

#: The longest wait for something, in seconds.  Only a broken executor takes this long.
PATIENCE_S = 30.0


class Fixture:
    """Starts executors and terminates them after the test; makes the FIFOs that their tasks use."""

    def __init__(self, method: str, folder: Path) -> None:
        self.method = method
        self.folder = folder
        self._executors: list[LocalExecutor] = []
        self._gates: list[int] = []

    def started(self, parallelism: int = 2) -> LocalExecutor:
        executor = LocalExecutor(parallelism, self.method)
        self._executors.append(executor)
        executor.start()
        return executor

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def fifo(self, name: str) -> str:
        os.mkfifo(self.path(name))
        return self.path(name)

    def open_gate(self, path: str) -> None:
        self._gates.append(os.open(path, os.O_RDWR))

    def close(self) -> None:
        for executor in self._executors:
            executor.terminate()
        for gate in self._gates:
            os.close(gate)


_WITH_A_ZYGOTE = ["snapshot", "forkserver", "spawn"]


@pytest.fixture(params=["fork", *_WITH_A_ZYGOTE])
def local(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fixture]:
    fixture = Fixture(request.param, tmp_path)
    yield fixture
    fixture.close()


class Ready:
    """The FIFO through which tasks report that they run."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDWR)
        self._text = ""

    def pids(self, count: int) -> list[int]:
        """Wait for the next ``count`` tasks and return the pids that they report."""
        while self._text.count("\n") < count:
            assert select.select([self._descriptor], [], [], PATIENCE_S)[0], (
                f"expected {count} tasks to run, got {self._text!r}"
            )
            self._text += os.read(self._descriptor, 1 << 12).decode()
        lines = self._text.split("\n")
        self._text = "\n".join(lines[count:])
        return [int(pid) for line in lines[:count] for pid in line.split()]

    def is_silent(self) -> bool:
        return not self._text and not select.select([self._descriptor], [], [], 0)[0]

    def close(self) -> None:
        os.close(self._descriptor)


@pytest.fixture
def ready(local: Fixture) -> Iterator[Ready]:
    ready = Ready(local.fifo("ready"))
    yield ready
    ready.close()


def module(name: str, *arguments: str) -> list[str]:
    """Return the argv of a task that can run as a module in a forked child."""
    return [sys.executable, "-m", "tasks", name, *arguments]


def key(number: int = 1, **fields: Any) -> TaskKey:
    return TaskKey("dag", f"task-{number}", "run")._replace(**fields)


def outcome_of(executor: LocalExecutor, command: Any) -> tuple[str, str | None]:
    """Run one task, end the executor, and return the event."""
    executor.execute_async(key(), command)
    executor.end()
    (event,) = executor.get_event_buffer().values()
    return event


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def await_death(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], PATIENCE_S)[0], f"process {pid} is still alive"
    finally:
        os.close(descriptor)


@pytest.fixture(autouse=True)
def nothing_hangs() -> Iterator[None]:
    """Make a call that never returns fail its test, so it does not stop the test run."""

    def time_out(number: int, frame: object) -> None:
        raise TimeoutError(f"not finished after {2 * PATIENCE_S:.0f} s")

    previous = signal.signal(signal.SIGALRM, time_out)
    signal.setitimer(signal.ITIMER_REAL, 2 * PATIENCE_S, PATIENCE_S)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture(autouse=True)
def tasks_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(tasks.__file__))


# -- commands and outcomes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(module("nothing"), id="module"),
        pytest.param(tuple(module("nothing")), id="tuple"),
        pytest.param(["/bin/sh", "-c", "exit 0"], id="program"),
        pytest.param(["true"], id="program-on-the-path"),
        pytest.param([sys.executable, "-c", "pass"], id="interpreter"),
        pytest.param(tasks.nothing, id="callable"),
        pytest.param(functools.partial(tasks.exit_with, "0"), id="callable-that-exits-with-0"),
        pytest.param(module("exit_with", "0"), id="module-that-exits-with-0"),
    ],
)
def test_success(local: Fixture, command: Any) -> None:
    assert outcome_of(local.started(), command) == ("success", None)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        pytest.param(module("exit_with", "3"), "exit status 3", id="module-exits"),
        pytest.param(module("exit_with", "255"), "exit status 255", id="exit-status-255"),
        pytest.param(module("exit_with", "-1"), "exit status 255", id="exit-status-below-0"),
        pytest.param(module("exit_with", "a text"), "exit status 1", id="exits-with-a-string"),
        pytest.param(module("os_exit", "7"), "exit status 7", id="os-exit"),
        pytest.param(["/bin/sh", "-c", "exit 9"], "exit status 9", id="program-exits"),
        pytest.param(functools.partial(tasks.exit_with, "4"), "exit status 4", id="callable-exits"),
        pytest.param(module("kill_itself", "9"), "killed by SIGKILL", id="killed"),
        pytest.param(module("kill_itself", "15"), "killed by SIGTERM", id="terminated"),
        pytest.param(
            module("kill_itself", str(signal.SIGRTMIN + 3)),
            f"killed by signal {signal.SIGRTMIN + 3}",
            id="realtime",
        ),
        pytest.param(functools.partial(tasks.kill_itself, "11"), "killed by SIGSEGV", id="callable-crashes"),
    ],
)
def test_failure_has_a_reason(local: Fixture, command: Any, reason: str) -> None:
    assert outcome_of(local.started(), command) == ("failed", reason)


@pytest.mark.parametrize("command", [module("fail"), tasks.fail], ids=["module", "callable"])
def test_exception_of_a_forked_task_is_the_reason(local: Fixture, command: Any) -> None:
    reason = "exit status 1" if local.method == "spawn" else "RuntimeError: on purpose"
    assert outcome_of(local.started(), command) == ("failed", reason)


def test_program_that_cannot_be_executed_fails(local: Fixture) -> None:
    plain = Path(local.path("plain"))
    plain.write_text("#!/bin/sh\n")
    executor = local.started()
    executor.execute_async(key(1), ["/nonexistent/program"])
    executor.execute_async(key(2), ["no-such-program-on-the-path"])
    executor.execute_async(key(3), [str(plain)])
    executor.execute_async(key(4), [str(local.folder)])
    executor.end()
    events = executor.get_event_buffer()
    for number, error in (
        (1, "FileNotFoundError"),
        (2, "FileNotFoundError"),
        (3, "PermissionError"),
        (4, "PermissionError"),
    ):
        state, reason = events[key(number)]
        assert state == "failed"
        assert reason is not None
        assert reason.startswith(error)


def test_missing_module_fails(local: Fixture) -> None:
    state, reason = outcome_of(local.started(), [sys.executable, "-m", "no_such_module_at_all"])
    assert state == "failed"
    assert reason
    if local.method != "spawn":
        assert "no_such_module_at_all" in reason


def test_long_reason_is_truncated(local: Fixture) -> None:
    state, reason = outcome_of(local.started(), ["/" + "x" * 100_000])
    assert state == "failed"
    assert reason is not None
    assert len(reason) <= 4096


def test_arguments_are_passed_unchanged(local: Fixture) -> None:
    words = ["", " two words ", "$HOME `id` *", "line\nbreak", "ünïcode ☃"]
    path = local.path("description")
    executor = local.started()
    executor.execute_async(key(), [*module("describe", path), *words])
    executor.end()
    # describe() takes one argument, so with these words the task fails.
    assert executor.get_event_buffer()[key()][0] == "failed"
    executor = local.started()
    script = f"import json, sys; json.dump(sys.argv[1:], open({path!r}, 'w'))"
    assert outcome_of(executor, [sys.executable, "-c", script, *words]) == ("success", None)
    assert json.loads(Path(path).read_text()) == words


def test_large_callable_runs(local: Fixture) -> None:
    path = local.path("size")
    call = functools.partial(tasks.measure, b"x" * (3 << 20), path)
    assert outcome_of(local.started(), call) == ("success", None)
    assert Path(path).read_text() == f"{3 << 20}\n"


def test_many_tasks_are_all_reported(local: Fixture) -> None:
    executor = local.started(parallelism=8)
    for number in range(60):
        executor.execute_async(key(number), ["true" if number % 3 else "false"])
    executor.end()
    events = executor.get_event_buffer()
    assert {k: state for k, (state, _) in events.items()} == {
        key(number): "success" if number % 3 else "failed" for number in range(60)
    }


# -- slots and priorities ------------------------------------------------------------------------------------


def test_slots_running_and_queued_tasks(local: Fixture, ready: Ready) -> None:
    gate = local.fifo("gate")
    executor = local.started(parallelism=2)
    assert (executor.slots_occupied, executor.slots_available) == (0, 2)
    for number in (1, 2, 3):
        executor.execute_async(key(number), module("wait_at", local.path("ready"), gate))
    ready.pids(2)
    executor.sync()
    assert executor.running == {key(1), key(2)}
    assert set(executor.queued_tasks) == {key(3)}
    assert (executor.slots_occupied, executor.slots_available) == (3, -1)
    assert ready.is_silent()
    assert executor.get_event_buffer() == {}
    local.open_gate(gate)
    executor.end()
    assert executor.running == set()
    assert not executor.queued_tasks
    assert (executor.slots_occupied, executor.slots_available) == (0, 2)
    assert executor.get_event_buffer() == dict.fromkeys([key(1), key(2), key(3)], ("success", None))


def test_parallelism_0_runs_all_at_once(local: Fixture, ready: Ready) -> None:
    gate = local.fifo("gate")
    executor = local.started(parallelism=0)
    for number in range(12):
        executor.execute_async(key(number), module("wait_at", local.path("ready"), gate))
    assert len(set(ready.pids(12))) == 12
    assert executor.slots_available > 10**6
    local.open_gate(gate)
    executor.end()
    assert len(executor.get_event_buffer()) == 12


def test_higher_priority_runs_first_then_earlier_submission(local: Fixture) -> None:
    path = local.path("order")
    executor = local.started(parallelism=1)
    for number, priority in enumerate([2, 10, 2, -1, 5, 10]):
        executor.queue_command(key(number), module("append", path, f"{priority}:{number}"), priority=priority)
    assert executor.running == set(), "queue_command() must not start a task"
    executor.heartbeat()
    assert executor.running == {key(1)}
    executor.end()
    assert Path(path).read_text().split() == ["10:1", "10:5", "5:4", "2:0", "2:2", "-1:3"]


def test_sync_does_not_wait_for_tasks(local: Fixture, ready: Ready) -> None:
    executor = local.started()
    executor.execute_async(key(), module("wait_at", local.path("ready"), local.fifo("gate")))
    ready.pids(1)
    for _ in range(3):
        executor.sync()
        executor.heartbeat()
    assert executor.get_event_buffer() == {}


# -- the event buffer ----------------------------------------------------------------------------------------


def test_event_is_returned_once_and_filter_keeps_the_others(local: Fixture) -> None:
    executor = local.started()
    wanted, other = key(1, dag_id="wanted"), key(1, dag_id="other")
    plain, text = ("wanted", 7), "not a tuple"
    for one in (wanted, other, plain, text):
        executor.execute_async(one, ["true"])
    executor.end()
    assert set(executor.get_event_buffer(["wanted"])) == {wanted, plain}
    assert set(executor.get_event_buffer(["wanted"])) == set()
    assert set(executor.get_event_buffer()) == {other, text}
    assert executor.get_event_buffer() == {}


def test_next_try_and_reused_key(local: Fixture) -> None:
    executor = local.started()
    second = key(1, try_number=2)
    executor.execute_async(key(1), ["false"])
    executor.execute_async(second, ["true"])
    executor.end()
    assert executor.get_event_buffer() == {key(1): ("failed", "exit status 1"), second: ("success", None)}
    executor = local.started()
    for command, state in ((["false"], "failed"), (["true"], "success")):
        executor.execute_async(key(1), command)
        while executor.running:
            executor._collect(None)
        assert executor.get_event_buffer()[key(1)][0] == state


# -- rejections ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallelism", [-1, True, 1.5, "4", None, float("nan")], ids=repr)
def test_invalid_parallelism_is_rejected(parallelism: Any) -> None:
    with pytest.raises(ValueError, match="parallelism") as raised:
        LocalExecutor(parallelism)
    assert repr(parallelism) in str(raised.value)


def test_unknown_start_method_is_rejected() -> None:
    with pytest.raises(ValueError, match="one of snapshot, fork, forkserver, spawn, got 'threads'"):
        LocalExecutor(start_method="threads")


@pytest.mark.parametrize(
    ("command", "error"),
    [
        pytest.param(None, TypeError, id="none"),
        pytest.param("echo hello", TypeError, id="string"),
        pytest.param(["echo", 1], TypeError, id="number-in-it"),
        pytest.param([], ValueError, id="empty"),
        pytest.param([""], ValueError, id="empty-word"),
        pytest.param(["echo", "a\0b"], ValueError, id="null-character"),
        pytest.param(tasks.coroutine, TypeError, id="coroutine-function"),
        pytest.param(functools.partial(tasks.coroutine), TypeError, id="partial-of-one"),
        pytest.param(tasks.CallsACoroutine(), TypeError, id="object-of-one"),
    ],
)
def test_invalid_command_is_rejected_and_leaves_nothing_behind(
    local: Fixture, command: Any, error: type[Exception]
) -> None:
    executor = local.started()
    with pytest.raises(error):
        executor.execute_async(key(), command)
    assert executor.slots_occupied == 0
    assert outcome_of(executor, ["true"]) == ("success", None)


def test_unpicklable_callable_is_rejected(local: Fixture) -> None:
    executor = local.started()
    if local.method == "fork":
        assert outcome_of(executor, lambda: None) == ("success", None)
        return
    with pytest.raises(Exception, match="lambda"):
        executor.execute_async(key(), lambda: None)
    assert executor.slots_occupied == 0


def test_key_in_flight_is_rejected(local: Fixture, ready: Ready) -> None:
    gate = local.fifo("gate")
    executor = local.started(parallelism=1)
    for number in (1, 2):
        executor.execute_async(key(number), module("wait_at", local.path("ready"), gate))
    ready.pids(1)
    for number in (1, 2):
        with pytest.raises(ValueError, match="in flight"):
            executor.execute_async(key(number), ["true"])
    assert executor.slots_occupied == 2


def test_submit_before_start_and_after_end_is_rejected(local: Fixture) -> None:
    executor = LocalExecutor(2, local.method)
    with pytest.raises(RuntimeError, match="not running"):
        executor.execute_async(key(), ["true"])
    executor.start()
    with pytest.raises(RuntimeError, match="before"):
        executor.start()
    executor.end()
    with pytest.raises(RuntimeError, match="not running"):
        executor.queue_command(key(), ["true"])
    assert executor.get_event_buffer() == {}


# -- end and terminate ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [LocalExecutor.end, LocalExecutor.terminate], ids=["end", "terminate"])
def test_end_and_terminate_at_any_time_and_repeatedly(
    local: Fixture, call: Callable[[LocalExecutor], None]
) -> None:
    never_started = LocalExecutor(2, local.method)
    call(never_started)
    executor = local.started()
    executor.execute_async(key(), ["true"])
    call(executor)
    events = executor.get_event_buffer()
    assert list(events) == [key()]
    for again in (call, LocalExecutor.end, LocalExecutor.terminate):
        again(executor)
    assert executor.get_event_buffer() == {}


def test_end_finishes_queued_tasks(local: Fixture) -> None:
    path = local.path("done")
    executor = local.started(parallelism=1)
    for number in range(5):
        executor.execute_async(key(number), module("append", path, str(number)))
    executor.end()
    assert Path(path).read_text().split() == ["0", "1", "2", "3", "4"]
    assert len(executor.get_event_buffer()) == 5


def test_terminate_kills_tasks_that_ignore_signals_and_their_children(local: Fixture, ready: Ready) -> None:
    executor = local.started(parallelism=1)
    executor.execute_async(key(1), module("ignore_signals_at", local.path("ready"), local.fifo("gate")))
    executor.execute_async(key(2), module("nothing"))
    task, child = ready.pids(1)
    executor.terminate()
    await_death(task)
    await_death(child)
    assert executor.get_event_buffer() == {
        key(1): ("failed", "killed by SIGKILL"),
        key(2): ("failed", "terminated before it started"),
    }
    assert executor.slots_occupied == 0


def test_terminate_kills_tasks_without_a_pump_since_submission(local: Fixture, ready: Ready) -> None:
    gate = local.fifo("gate")
    executor = local.started(parallelism=2)
    for number in (1, 2):
        executor.execute_async(key(number), module("wait_at", local.path("ready"), gate))
    pids = ready.pids(2)
    executor.terminate()
    for pid in pids:
        await_death(pid)
    assert executor.get_event_buffer() == dict.fromkeys([key(1), key(2)], ("failed", "killed by SIGKILL"))


def test_terminate_keeps_the_outcome_of_an_ended_task(local: Fixture, ready: Ready) -> None:
    gate = local.fifo("gate")
    executor = local.started()
    executor.execute_async(key(), module("wait_at", local.path("ready"), gate))
    (task,) = ready.pids(1)
    executor.sync()
    local.open_gate(gate)
    await_death(task)
    executor.terminate()
    assert executor.get_event_buffer() == {key(): ("success", None)}


def test_cycles_leave_nothing_in_the_host(local: Fixture) -> None:
    def cycle() -> None:
        executor = LocalExecutor(2, local.method)
        executor.start()
        executor.execute_async(key(1), module("nothing"))
        executor.execute_async(key(2), tasks.fail)
        executor.end()
        assert len(executor.get_event_buffer()) == 2

    def resource_counts() -> dict[str, object]:
        gc.collect()
        return {
            "descriptors": sorted(os.listdir("/proc/self/fd")),
            "children": Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split(),
            "threads": threading.active_count(),
            "frozen": gc.get_freeze_count(),
        }

    cycle()
    after_one = resource_counts()
    for _ in range(3):
        cycle()
    assert resource_counts() == after_one


def test_two_executors_are_independent(local: Fixture, ready: Ready) -> None:
    gate = local.fifo("gate")
    one, other = local.started(), local.started()
    other.execute_async(key(1), module("wait_at", local.path("ready"), gate))
    ready.pids(1)
    one.execute_async(key(2), ["true"])
    one.end()
    assert list(one.get_event_buffer()) == [key(2)]
    assert other.running == {key(1)}
    local.open_gate(gate)
    other.end()
    assert other.get_event_buffer() == {key(1): ("success", None)}


def test_tasks_die_with_the_host(local: Fixture, ready: Ready) -> None:
    gate = local.fifo("gate")
    host = os.fork()
    if host == 0:
        try:
            executor = LocalExecutor(2, local.method)
            executor.start()
            executor.execute_async(key(), module("wait_at", local.path("ready"), gate))
            signal.pause()
        finally:
            os._exit(1)
    (task,) = ready.pids(1)
    os.kill(host, signal.SIGKILL)
    os.waitpid(host, 0)
    await_death(task)


# -- the environment of a task -------------------------------------------------------------------------------


@pytest.fixture
def description(local: Fixture, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a task finds after the host has changed its signals, descriptors and memory."""
    monkeypatch.setattr(tasks, "SET_IN_THE_HOST", True)
    path = local.path("description")
    inheritable = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(inheritable, True)
    private = os.open(__file__, os.O_RDONLY)
    previous = [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGUSR1)]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        executor = local.started()
        call = functools.partial(tasks.describe, path)
        assert outcome_of(executor, call) == ("success", None)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        for number, handler in zip((signal.SIGTERM, signal.SIGUSR1), previous, strict=True):
            signal.signal(number, handler)
        os.close(private)
        os.close(inheritable)
    found: dict[str, Any] = json.loads(Path(path).read_text())
    return {**found, "inheritable": str(inheritable), "method": local.method}


def test_task_leads_its_own_session(description: dict[str, Any]) -> None:
    assert description["session"] == description["group"] == description["pid"] != os.getpid()


def test_task_dies_with_the_process_that_forked_it(description: dict[str, Any]) -> None:
    assert description["death_signal"] == signal.SIGKILL
    assert (description["parent"] == os.getpid()) is (description["method"] == "fork")


def test_task_has_the_signals_of_a_new_interpreter(description: dict[str, Any]) -> None:
    python_ignores = {signal.SIGPIPE, signal.SIGXFSZ}
    ignored = {number for number in signal.valid_signals() if description["ignored"] >> (number - 1) & 1}
    assert ignored <= python_ignores
    assert signal.SIGPIPE in ignored
    assert description["interrupt"]
    assert description["blocked"] == 0


def test_wait_blocks_until_a_task_ends(local: Fixture, ready: Ready) -> None:
    executor = local.started()
    executor.wait()  # nothing runs, so there is nothing to wait for
    gate = local.fifo("gate")
    executor.execute_async(key(1), module("wait_at", local.path("ready"), gate))
    ready.pids(1)
    executor.wait(0.01)
    assert executor.running == {key(1)}
    local.open_gate(gate)
    while executor.running:
        executor.wait()
    assert executor.get_event_buffer() == {key(1): ("success", None)}


def test_program_does_not_ignore_sigpipe(local: Fixture) -> None:
    path = local.path("status")
    assert outcome_of(local.started(), ["cp", "/proc/self/status", path]) == ("success", None)
    fields = dict(line.split(":", 1) for line in Path(path).read_text().splitlines())
    ignored, blocked = (int(fields[name], 16) for name in ("SigIgn", "SigBlk"))
    assert not ignored >> (signal.SIGPIPE - 1) & 1
    assert not ignored >> (signal.SIGXFSZ - 1) & 1
    assert blocked == 0


def test_task_has_empty_stdin_and_only_inheritable_descriptors(description: dict[str, Any]) -> None:
    assert description["input"] == ""
    others = {number: name for number, name in description["descriptors"].items() if int(number) > 2}
    assert description["inheritable"] in others
    assert not [name for name in others.values() if name == __file__]
    assert not [name for name in others.values() if name.startswith(("socket:", "anon_inode:"))]


def test_forked_task_has_the_memory_of_the_host(description: dict[str, Any]) -> None:
    assert description["forked"] is (description["method"] in ("fork", "snapshot"))
    assert description["directory"] == os.getcwd()


def test_task_has_the_environment_and_the_directory_at_its_start(
    local: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = local.started()
    path = local.path("output")
    for number in (1, 2):
        directory = local.path(f"directory-{number}")
        os.mkdir(directory)
        monkeypatch.setenv("SET_AFTER_THE_START", str(number))
        monkeypatch.chdir(directory)
        executor.execute_async(key(number), ["/bin/sh", "-c", f"echo $SET_AFTER_THE_START $PWD >> {path}"])
        while executor.running:
            executor.wait()
    executor.end()
    assert Path(path).read_text().splitlines() == [f"{n} {local.path(f'directory-{n}')}" for n in (1, 2)]


def test_default_start_method_is_the_fast_one() -> None:
    assert isinstance(LocalExecutor()._launcher, SnapshotLauncher)


def test_function_that_came_after_start_fails_in_a_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = LocalExecutor(1)
    executor.start()
    monkeypatch.setattr(tasks, "later", later, raising=False)
    monkeypatch.setattr(later, "__module__", "tasks")
    state, reason = outcome_of(executor, later)
    assert state == "failed"
    assert reason == "AttributeError: module 'tasks' has no attribute 'later'"


def later() -> None:
    """A function that a test adds to another module."""


def test_buffered_output_of_a_task_is_flushed(local: Fixture) -> None:
    path = local.path("output")
    assert outcome_of(local.started(), module("print_without_a_newline", path)) == ("success", None)
    assert Path(path).read_text() == "buffered"


def test_task_joins_threads_and_runs_exit_functions(local: Fixture) -> None:
    path = local.path("order")
    assert outcome_of(local.started(), module("end_in_a_thread", path)) == ("success", None)
    assert Path(path).read_text().split("\n")[:2] == ["thread", "at exit"]


def test_task_does_not_run_exit_functions_of_the_host(
    local: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import atexit

    path = local.path("exit-of-the-host")
    atexit.register(tasks.append, path, str(os.getpid()))
    try:
        executor = local.started()
        assert outcome_of(executor, tasks.nothing) == ("success", None)
    finally:
        atexit.unregister(tasks.append)
    assert not os.path.exists(path)


# -- shortages and deaths ------------------------------------------------------------------------------------


def test_task_without_descriptors_fails_and_the_next_one_runs(local: Fixture) -> None:
    executor = local.started()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/proc/self/fd"))
    fillers = [os.open(os.devnull, os.O_RDONLY)]
    while fillers[-1] < used:
        fillers.append(os.open(os.devnull, os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (fillers[-1] + 1, hard))
    try:
        executor.execute_async(key(1), ["true"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)
    executor.execute_async(key(2), ["true"])
    executor.end()
    events = executor.get_event_buffer()
    if local.method in ("snapshot", "forkserver"):  # a spare was ready
        assert events[key(1)] == ("success", None)
    else:
        assert events[key(1)] == ("failed", "could not be started: [Errno 24] Too many open files")
    assert events[key(2)] == ("success", None)


def test_killed_task_does_not_affect_others(local: Fixture, ready: Ready) -> None:
    gate = local.fifo("gate")
    executor = local.started()
    for number in (1, 2):
        executor.execute_async(key(number), module("wait_at", local.path("ready"), gate))
    first, second = ready.pids(2)
    os.kill(first, signal.SIGKILL)
    await_death(first)
    local.open_gate(gate)
    executor.end()
    assert not is_alive(second)
    events = executor.get_event_buffer()
    assert sorted(event for event, _ in events.values()) == ["failed", "success"]
    assert ("failed", "killed by SIGKILL") in events.values()


@pytest.fixture
def leave_descriptors() -> Iterator[Callable[[int], None]]:
    """Return a function that uses up all descriptors but the given number."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]

    def leave(count: int) -> None:
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        while taken[-1] < highest:
            taken.append(os.open(os.devnull, os.O_RDONLY))
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1 + count, limits[1]))

    yield leave
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for descriptor in taken:
        os.close(descriptor)


@pytest.mark.parametrize("count", range(7))
def test_short_of_descriptors_a_task_either_runs_or_fails(
    local: Fixture, leave_descriptors: Callable[[int], None], count: int
) -> None:
    executor = local.started()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    leave_descriptors(count)
    executor.execute_async(key(), ["touch", local.path("ran")])
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    executor.end()
    (event,) = executor.get_event_buffer().values()
    ran = os.path.exists(local.path("ran"))
    assert (event, ran) in [
        (("success", None), True),
        (("failed", "could not be started: [Errno 24] Too many open files"), False),
    ]


@pytest.fixture(params=_WITH_A_ZYGOTE)
def with_zygote(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fixture]:
    fixture = Fixture(request.param, tmp_path)
    yield fixture
    fixture.close()


def zygote_pid(executor: LocalExecutor) -> int:
    assert isinstance(executor._launcher, SpareLauncher)
    return executor._launcher._pid


def test_killed_zygote_fails_its_tasks_and_is_replaced(with_zygote: Fixture) -> None:
    ready = Ready(with_zygote.fifo("ready"))
    executor = with_zygote.started()
    executor.execute_async(key(1), module("wait_at", with_zygote.path("ready"), with_zygote.fifo("gate")))
    (task,) = ready.pids(1)
    killed = zygote_pid(executor)
    os.kill(killed, signal.SIGKILL)
    await_death(task)
    executor.execute_async(key(2), ["true"])
    assert zygote_pid(executor) != killed
    executor.end()
    ready.close()
    assert executor.get_event_buffer() == {
        key(1): ("failed", "the process that forked it died"),
        key(2): ("success", None),
    }


@pytest.mark.parametrize("call", [LocalExecutor.end, LocalExecutor.terminate], ids=["end", "terminate"])
def test_end_and_terminate_after_the_death_of_the_zygote(
    with_zygote: Fixture, call: Callable[[LocalExecutor], None]
) -> None:
    executor = with_zygote.started()
    os.kill(zygote_pid(executor), signal.SIGKILL)
    call(executor)
    call(executor)
    assert executor.get_event_buffer() == {}


def test_host_with_default_sigpipe_survives_the_death_of_its_zygote(with_zygote: Fixture) -> None:
    host = os.fork()
    if host == 0:
        try:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            executor = LocalExecutor(2, with_zygote.method)
            executor.start()
            zygote = zygote_pid(executor)
            os.kill(zygote, signal.SIGKILL)
            os.waitid(os.P_PID, zygote, os.WEXITED | os.WNOWAIT)
            executor.terminate()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(host, 0)[1] == 0


def test_zygote_dies_with_the_host(with_zygote: Fixture) -> None:
    read, write = os.pipe()
    host = os.fork()
    if host == 0:
        try:
            executor = LocalExecutor(2, with_zygote.method)
            executor.start()
            os.write(write, f"{zygote_pid(executor)}\n".encode())
            signal.pause()
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as pipe:
        zygote = int(pipe.readline())
    os.kill(host, signal.SIGKILL)
    os.waitpid(host, 0)
    await_death(zygote)


_SCRIPT = """\
import sys
from executor_reference import LocalExecutor, TaskKey

def work():
    with open(sys.argv[1], "a") as file:
        file.write("done")

if __name__ == "__main__":
    executor = LocalExecutor(1, sys.argv[2])
    executor.start()
    executor.execute_async(TaskKey("dag", "task", "run"), work)
    executor.end()
    print(executor.get_event_buffer())
"""


@pytest.mark.parametrize("method", ["fork", *_WITH_A_ZYGOTE])
def test_function_of_the_main_script_runs(tmp_path: Path, method: str) -> None:
    script, path = tmp_path / "script.py", tmp_path / "output"
    script.write_text(_SCRIPT)
    done = subprocess.run(
        [sys.executable, script, path, method], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    assert "('success', None)" in done.stdout, done.stderr
    assert path.read_text() == "done"


# -- preload -------------------------------------------------------------------------------------------------


def modules_found(tmp_path: Path, preload: list[str]) -> str:
    """Return which of three modules a task finds imported."""
    executor = LocalExecutor(1, "forkserver", preload)
    executor.start()
    output = tmp_path / "output"
    names = ("xml.dom.minidom", "wave", "no_such_module")
    executor.execute_async(key(), functools.partial(tasks.write_imported_modules, str(output), *names))
    executor.end()
    assert executor.get_event_buffer() == {key(): ("success", None)}
    return output.read_text().strip()


def test_preloaded_module_is_imported(tmp_path: Path) -> None:
    assert modules_found(tmp_path, ["xml.dom.minidom"]) == "xml.dom.minidom"


def test_missing_preload_module_is_printed_and_fails_no_task(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert modules_found(tmp_path, ["no_such_module", "wave"]) == "wave"
    assert "No module named 'no_such_module'" in capfd.readouterr().err


def test_preload_is_rejected_for_other_start_methods() -> None:
    with pytest.raises(ValueError, match="preload needs start_method='forkserver', got 'spawn'"):
        LocalExecutor(1, "spawn", ["wave"])


# -- importing -----------------------------------------------------------------------------------------------


def test_zygote_imports_no_heavy_modules() -> None:
    code = "import sys, executor_reference.zygote; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    heavy = {"dataclasses", "inspect", "multiprocessing", "threading", "traceback", "typing"}
    assert not heavy & set(found.stdout.split())


def test_dir_and_attribute_error_of_the_package() -> None:
    import executor_reference

    assert {"LocalExecutor", "TaskKey"} <= set(dir(executor_reference))
    with pytest.raises(AttributeError, match="no attribute 'LocalExecuter'"):
        executor_reference.LocalExecuter  # noqa: B018
