"""Tests of the async reference executor: what it offers beyond the contract, which the suite checks."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import itertools
import logging
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from executor_reference import AsyncExecutor, Limit, TaskKey, awaiting, delay, watchdog

SUCCESS = ("success", None)
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE")


def key(number: int) -> TaskKey:
    return TaskKey("dag", f"task-{number}", "run")


async def nothing() -> None:
    await asyncio.sleep(0)


async def for_ever() -> None:
    await asyncio.Event().wait()


async def ignore_cancellation(release: threading.Event) -> None:
    while not release.is_set():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            pass


def collect(executor: AsyncExecutor, count: int) -> dict[Any, Any]:
    """Call ``sync()`` until there are ``count`` events, and return them."""
    events: dict[Any, Any] = {}
    deadline = time.monotonic() + 60
    pause = threading.Event()
    while len(events) < count:
        assert time.monotonic() < deadline, events
        executor.sync()
        events |= executor.get_event_buffer()
        pause.wait(0.001)
    return events


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.001)


@pytest.fixture
def build() -> Iterator[Callable[..., AsyncExecutor]]:
    built = []

    def start(*arguments: Any, **options: Any) -> AsyncExecutor:
        executor = AsyncExecutor(*arguments, **options)
        executor.start()
        built.append(executor)
        return executor

    yield start
    for executor in built:
        executor.terminate()


# -- parameters ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallelism", [-1, True, 1.5, "4", None])
def test_invalid_parallelism_is_rejected(parallelism: Any) -> None:
    with pytest.raises(ValueError, match="parallelism must be"):
        AsyncExecutor(parallelism)


@pytest.mark.parametrize("threads", [0, -1, True, "4"])
def test_invalid_threads_are_rejected(threads: Any) -> None:
    with pytest.raises(ValueError, match="threads must be"):
        AsyncExecutor(threads=threads)


@pytest.mark.parametrize(
    "options",
    [{"concurrency": 0}, {"concurrency": True}, {"rate": 0.5}, {"rate": float("nan")}, {"per_s": 0}],
)
def test_invalid_limit_is_rejected(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Limit(**options)


# -- outcomes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        pytest.param(["false"], "exit status 1", id="exit-status"),
        pytest.param(["sh", "-c", "kill -9 $$"], "killed by SIGKILL", id="signal"),
        pytest.param(["not-there"], "could not be started: ", id="no-program"),
        pytest.param(functools.partial(int, "x"), "ValueError: invalid literal", id="exception"),
        pytest.param(functools.partial(asyncio.sleep, "x"), "TypeError: ", id="exception-of-a-coroutine"),
    ],
)
def test_failure_has_a_reason(build: Any, command: Any, reason: str) -> None:
    executor = build(2)
    executor.execute_async(key(1), command)
    state, info = collect(executor, 1)[key(1)]
    assert state == "failed"
    assert info.startswith(reason)


class _StrRaises(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class _CodeRaises:
    def __eq__(self, other: object) -> bool:
        raise OSError

    def __str__(self) -> str:
        raise OSError


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(_StrRaises(), "_StrRaises: its __str__() raised an exception", id="error"),
        pytest.param(SystemExit(_CodeRaises()), "SystemExit: its __str__() raised an exception", id="exit"),
        pytest.param(SystemExit(256), None, id="exit-status-of-a-byte"),
    ],
)
def test_exception_whose_str_raises_is_a_failure(
    build: Any, error: BaseException, reason: str | None
) -> None:
    executor = build(2)

    async def fail() -> None:
        raise error

    executor.execute_async(key(1), fail)
    executor.execute_async(key(2), nothing)
    assert collect(executor, 2) == {key(1): ("failed", reason) if reason else SUCCESS, key(2): SUCCESS}
    executor.end()


def test_coroutine_returned_by_a_callable_is_awaited(build: Any) -> None:
    executor = build(2)
    ran = []

    async def run() -> None:
        ran.append(threading.current_thread().name)

    executor.execute_async(key(1), lambda: run())
    assert collect(executor, 1) == {key(1): SUCCESS}
    assert ran == ["executor-loop"]


def test_timeout_cancels_a_task(build: Any) -> None:
    executor = build(2, timeout_s=0.01)
    executor.execute_async(key(1), for_ever)
    executor.execute_async(key(2), ["sleep", "3600"])
    assert collect(executor, 2) == {key(number): ("failed", "timed out after 0.01 s") for number in (1, 2)}


def test_task_that_ignores_its_timeout_is_reported_and_keeps_its_slot(build: Any) -> None:
    executor = build(1, timeout_s=0.01, patience_s=0.01)
    release = threading.Event()
    executor.execute_async(key(1), functools.partial(ignore_cancellation, release))
    with pytest.warns(RuntimeWarning, match="ignored cancellation"):
        events = collect(executor, 1)
    assert events[key(1)][0] == "failed"
    executor.execute_async(key(2), nothing)
    executor.sync()
    assert key(2) in executor.queued_tasks
    release.set()
    assert collect(executor, 1) == {key(2): SUCCESS}


def test_terminate_warns_of_a_task_that_ignores_cancellation(build: Any) -> None:
    executor = build(2, patience_s=0.05)
    release = threading.Event()
    executor.execute_async(key(1), functools.partial(ignore_cancellation, release))
    while key(1) not in executor.running:
        executor.sync()
    with pytest.warns(RuntimeWarning, match=r"task-1.* may still be running"):
        executor.terminate()
    assert executor.get_event_buffer() == {key(1): ("failed", "terminated")}


def test_terminate_returns_while_the_loop_is_blocked(build: Any) -> None:
    executor = build(2, patience_s=0.05)
    release = threading.Event()

    async def block() -> None:
        release.wait()

    executor.execute_async(key(1), block)
    executor.execute_async(key(2), nothing)
    while key(1) not in executor.running:
        executor.sync()
    with pytest.warns(RuntimeWarning, match="may still be running"):
        executor.terminate()
    events = executor.get_event_buffer()
    assert {event[0] for event in events.values()} == {"failed"}
    assert set(events) == {key(1), key(2)}
    release.set()


def test_terminate_kills_programs_while_the_loop_is_blocked(build: Any, tmp_path: Path) -> None:
    executor = build(2, patience_s=0.05)
    release = threading.Event()
    pid_file = tmp_path / "pid"

    async def block() -> None:
        while not pid_file.exists():
            await asyncio.sleep(0)
        release.wait()

    script = 'echo $$ > "$0.new"; mv "$0.new" "$0"; sleep 3600'
    executor.execute_async(key(1), ["sh", "-c", script, str(pid_file)])
    executor.execute_async(key(2), block)
    executor.execute_async(key(3), nothing)
    while not pid_file.exists():
        executor.sync()
    pid = int(pid_file.read_text())
    with pytest.warns(RuntimeWarning, match="may still be running"):
        executor.terminate()
    assert {event[0] for event in executor.get_event_buffer().values()} == {"failed"}
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    release.set()
    wait_until(lambda: not psutil.pid_exists(pid))
    executor.sync()
    assert executor.get_event_buffer() == {}


def test_terminate_waits_for_a_busy_loop(build: Any) -> None:
    executor = build(0, patience_s=0.2)
    started = []
    count = 5_000

    async def wait() -> None:
        started.append(True)
        try:
            await for_ever()
        finally:
            math.factorial(1_000)  # all tasks together take longer than patience_s

    for number in range(count):
        executor.execute_async(key(number), wait)
    wait_until(lambda: len(started) == count)
    executor.terminate()
    assert set(executor.get_event_buffer().values()) == {("failed", "terminated")}


def test_programs_are_not_started_in_the_thread_of_the_loop(
    build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = build(2)
    threads = []
    popen = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> Any:
        threads.append(threading.current_thread().name)
        return popen(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", start)
    executor.execute_async(key(1), ["true"])
    assert collect(executor, 1) == {key(1): SUCCESS}
    assert threads == ["program-starter"]


def test_program_whose_exit_status_is_lost_fails(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awaiting, "statuses_are_discarded", lambda: False)  # so there is no keeper
    monkeypatch.setattr(awaiting, "status_of_reaped", lambda pidfd: None)
    previous = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        executor = build(1)
        executor.execute_async(key(1), ["true"])
        state, reason = collect(executor, 1)[key(1)]
    finally:
        signal.signal(signal.SIGCHLD, previous)
    assert state == "failed"
    assert "SIGCHLD" in reason


def test_tasks_and_scheduler_submit_concurrently(build: Any) -> None:
    executor = build(0)
    numbers = itertools.count(1_000_000)

    async def submit() -> None:
        for _ in range(50):
            executor.execute_async(key(next(numbers)), nothing)
            await asyncio.sleep(0)

    for number in range(200):
        executor.execute_async(key(number), submit if number % 10 == 0 else nothing)
    assert set(collect(executor, 200 + 20 * 50).values()) == {SUCCESS}
    assert executor.slots_occupied == 0


def test_rejected_task_leaves_nothing_behind(build: Any) -> None:
    executor = build(2)
    with pytest.raises(TypeError):
        executor.queue_command(key(1), nothing, priority=None)
    executor.queue_command(key(1), nothing)
    assert collect(executor, 1) == {key(1): SUCCESS}


def test_aclose_in_a_task_of_the_executor_raises() -> None:
    async def main() -> None:
        async with AsyncExecutor(2) as executor:
            executor.execute_async(key(1), executor.aclose)
            state, reason = await executor.wait(key(1))
            assert (state, reason) == (
                "failed",
                "RuntimeError: a task cannot wait for the end of its own executor",
            )

    asyncio.run(main())


def test_tasks_run_without_a_watchdog_thread(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = build(2)
    start = threading.Thread.start

    def fail_to_start(thread: threading.Thread) -> None:
        if thread.name == "loop-watchdog":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail_to_start)
    executor.execute_async(key(1), nothing)
    assert collect(executor, 1) == {key(1): SUCCESS}


@pytest.mark.parametrize("name", ["timeout_s", "patience_s", "watchdog_s"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "1"])
def test_invalid_seconds_are_rejected(name: str, seconds: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be > 0 seconds.*{seconds!r}"):
        AsyncExecutor(**{name: seconds})


def test_tasks_on_a_closed_loop_fail() -> None:
    executor = AsyncExecutor(1)

    async def main() -> None:
        executor.start()
        executor.execute_async(key(1), for_ever)
        executor.execute_async(key(2), for_ever)
        await asyncio.sleep(0.01)

    asyncio.run(main())
    executor.sync()
    assert {event[0] for event in executor.get_event_buffer().values()} == {"failed"}
    with pytest.raises(RuntimeError, match="was closed"):
        executor.execute_async(key(3), nothing)
    executor.end()


def test_end_runs_the_loop_while_its_owner_does_not() -> None:
    loop = asyncio.new_event_loop()
    executor = AsyncExecutor(1)

    async def main() -> None:
        executor.start()
        executor.execute_async(key(1), functools.partial(asyncio.sleep, 0.01))

    loop.run_until_complete(main())
    executor.end()
    assert executor.get_event_buffer() == {key(1): SUCCESS}
    assert not loop.is_closed()
    loop.close()


# -- callers on a loop ---------------------------------------------------------------------------------------


def watchdog_threads() -> int:
    return sum(thread.name == "loop-watchdog" for thread in threading.enumerate())


@pytest.mark.parametrize("busy", [True, False])
def test_watchdog_thread_ends_with_the_executor(busy: bool) -> None:
    async def main() -> None:
        before = watchdog_threads()
        executor = AsyncExecutor(2)
        executor.start()
        executor.execute_async(key(1), functools.partial(asyncio.sleep, 0.01))
        await asyncio.sleep(0)
        assert watchdog_threads() == before + 1
        if not busy:
            assert await executor.wait(key(1)) == SUCCESS
        executor.end()
        while executor.slots_occupied:
            await asyncio.sleep(0)
            executor.sync()
        assert watchdog_threads() == before

    asyncio.run(main())


@pytest.mark.parametrize("command", [nothing, for_ever])
def test_watchdog_thread_of_a_dropped_executor_ends(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_IDLE_TIMEOUT_S", 0.02)
    before = watchdog_threads()

    async def main() -> None:
        executor = AsyncExecutor(2)
        executor.start()
        executor.execute_async(key(1), command)
        await asyncio.sleep(0.01)

    asyncio.run(main())
    wait_until(lambda: watchdog_threads() == before)


def test_watchdog_restarts_after_its_idle_timeout(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_IDLE_TIMEOUT_S", 0.02)
    before = watchdog_threads()
    executor = build(2)
    for number in range(3):
        executor.execute_async(key(number), functools.partial(asyncio.sleep, 0.05))
        wait_until(lambda: watchdog_threads() == before + 1)
        collect(executor, 1)
        wait_until(lambda: watchdog_threads() == before)


def on_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test inside an event loop, and require that it leaves no task on the loop."""

    async def main() -> None:
        await test()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def run() -> None:
        asyncio.run(main())

    run.__name__ = test.__name__
    return run


@on_a_loop
async def test_wait_returns_the_event_of_a_task() -> None:
    async with AsyncExecutor(2) as executor:
        executor.execute_async(key(1), nothing)
        assert await executor.wait(key(1)) == SUCCESS
        executor.execute_async(key(2), functools.partial(int, "x"))
        both = await asyncio.gather(executor.wait(key(2)), executor.wait(key(2)))
        assert [state for state, _ in both] == ["failed", "failed"]
        assert executor.get_event_buffer() == {}
        with pytest.raises(KeyError):
            await executor.wait(key(1))


@on_a_loop
async def test_wait_takes_an_event_from_the_buffer() -> None:
    async with AsyncExecutor(2) as executor:
        executor.execute_async(key(1), nothing)
        while executor.slots_occupied:
            await asyncio.sleep(0)
            executor.sync()
        assert await executor.wait(key(1)) == SUCCESS


@on_a_loop
async def test_context_manager_finishes_accepted_tasks() -> None:
    async with AsyncExecutor(1) as executor:
        for number in range(5):
            executor.execute_async(key(number), functools.partial(asyncio.sleep, 0.001))
    assert executor.get_event_buffer() == {key(number): SUCCESS for number in range(5)}


@on_a_loop
async def test_context_manager_cancels_tasks_after_an_exception() -> None:
    executor = AsyncExecutor(1)

    async def fail() -> None:
        async with executor:
            executor.execute_async(key(1), for_ever)
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert executor.get_event_buffer()[key(1)][0] == "failed"


@on_a_loop
async def test_context_manager_waits_for_cancelled_tasks() -> None:
    cleaned_up = []

    async def clean_up() -> None:
        try:
            await for_ever()
        finally:
            await asyncio.sleep(0.01)
            cleaned_up.append(True)

    async with AsyncExecutor(1) as executor:
        executor.execute_async(key(1), clean_up)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        executor.terminate()
    assert cleaned_up == [True]


@on_a_loop
async def test_tasks_run_on_the_callers_loop() -> None:
    found = []

    async def look() -> None:
        found.append(asyncio.get_running_loop())

    async with AsyncExecutor(1) as executor:
        executor.execute_async(key(1), look)
        await executor.wait(key(1))
    assert found == [asyncio.get_running_loop()]


@on_a_loop
async def test_cancelled_waits_leave_no_watchers() -> None:
    async with AsyncExecutor(1) as executor:
        executor.execute_async(key(1), for_ever)
        waiting = [asyncio.create_task(executor.wait(key(1))) for _ in range(50)]
        await asyncio.sleep(0)
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)
        assert executor._in_flight[key(1)].watchers == []
        executor.terminate()


def test_wait_and_aclose_work_from_another_loop(build: Any) -> None:
    executor = build(2)

    async def main() -> None:
        executor.execute_async(key(1), functools.partial(asyncio.sleep, 0.01))
        assert await executor.wait(key(1)) == SUCCESS
        executor.execute_async(key(2), nothing)
        await executor.aclose()
        assert executor.get_event_buffer() == {key(2): SUCCESS}

    asyncio.run(main())


# -- context variables, calls, priorities --------------------------------------------------------------------


def test_task_sees_the_context_variables_of_its_submitter(build: Any) -> None:
    executor = build(2)
    seen = []

    async def look() -> None:
        seen.append(VARIABLE.get())
        VARIABLE.set("the task's own")

    for name in ("one", "two"):
        token = VARIABLE.set(name)
        executor.execute_async(("dag", name), look)
        executor.execute_async(("dag", name, "call"), functools.partial(seen.append, name))
        VARIABLE.reset(token)
    collect(executor, 4)
    assert sorted(seen) == ["one", "one", "two", "two"]
    assert VARIABLE.get("unset") == "unset"


def test_blocking_calls_are_bounded_and_do_not_block_coroutines(build: Any) -> None:
    executor = build(10, threads=2)
    release = threading.Event()
    for number in range(4):
        executor.execute_async(key(number), release.wait)
    executor.execute_async(key(9), nothing)
    assert collect(executor, 1) == {key(9): SUCCESS}
    assert sum(thread.name == "blocking-call" for thread in threading.enumerate()) == 2
    release.set()
    collect(executor, 4)


def test_higher_priority_runs_first(build: Any) -> None:
    executor = build(1)
    order = []

    async def note(number: int) -> None:
        order.append(number)

    for number in (1, 3, 2):
        executor.queue_command(key(number), functools.partial(note, number), priority=number)
    collect(executor, 3)
    assert order == [3, 2, 1]


# -- limits --------------------------------------------------------------------------------------------------


def test_concurrency_limit_of_a_queue(build: Any) -> None:
    executor = build(10, limits={"api": Limit(concurrency=2)})
    running, most = 0, 0

    async def call() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1

    for number in range(8):
        executor.execute_async(key(number), call, queue="api")
    executor.execute_async(key(99), nothing, queue="another")
    events = collect(executor, 9)
    assert set(events.values()) == {SUCCESS}
    assert most == 2


def test_rate_limit_of_a_queue(build: Any) -> None:
    executor = build(100, limits={"api": Limit(rate=5, per_s=0.1)})
    starts = []

    async def call() -> None:
        starts.append(time.monotonic())

    for number in range(15):
        executor.execute_async(key(number), call, queue="api")
    collect(executor, 15)
    # After a burst of 5, one task starts every 20 ms at the earliest.
    assert starts[-1] - starts[0] >= 0.19


def test_task_that_ignores_its_timeout_still_counts_for_the_limit(build: Any) -> None:
    executor = build(4, timeout_s=0.01, patience_s=0.01, limits={"api": Limit(concurrency=1)})
    release = threading.Event()
    executor.execute_async(key(1), functools.partial(ignore_cancellation, release), queue="api")
    executor.execute_async(key(2), nothing, queue="api")
    with pytest.warns(RuntimeWarning, match="ignored cancellation"):
        events = collect(executor, 1)
    assert list(events) == [key(1)]
    assert key(2) in executor.queued_tasks
    release.set()
    assert collect(executor, 1) == {key(2): SUCCESS}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has eager tasks since Python 3.12")
@on_a_loop
async def test_limit_holds_with_eager_tasks() -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    async with AsyncExecutor(4, limits={"api": Limit(concurrency=1)}) as executor:
        for number in range(4):
            executor.execute_async(key(number), nothing, queue="api")
            assert await executor.wait(key(number)) == SUCCESS


def test_task_that_waits_for_a_limit_holds_no_slot(build: Any) -> None:
    executor = build(2, limits={"api": Limit(concurrency=1)})
    for number in range(5):
        executor.execute_async(key(number), for_ever, queue="api")
    executor.execute_async(key(9), nothing)
    assert collect(executor, 1) == {key(9): SUCCESS}
    executor.terminate()
    assert len(executor.get_event_buffer()) == 5


# -- the watchdog --------------------------------------------------------------------------------------------


def watchdog_messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "executor_reference"]


def test_watchdog_logs_the_task_that_blocks_the_loop(build: Any, caplog: pytest.LogCaptureFixture) -> None:
    executor = build(5)
    release = threading.Event()

    async def block_the_loop() -> None:
        release.wait()

    with caplog.at_level(logging.WARNING, "executor_reference"):
        for number in range(3):
            executor.execute_async(key(number), nothing)
        executor.execute_async(key(77), block_the_loop)
        deadline = time.monotonic() + 60
        while not watchdog_messages(caplog):
            assert time.monotonic() < deadline
            executor.sync()
        release.set()
        executor.end()
    (message,) = watchdog_messages(caplog)
    assert "task-77" in message
    assert "block_the_loop" in message


def test_watchdog_ignores_many_short_steps(build: Any, caplog: pytest.LogCaptureFixture) -> None:
    executor = build(0, watchdog_s=0.2)

    async def compute() -> None:
        began = time.thread_time()
        while time.thread_time() - began < 0.005:
            pass

    for number in range(100):
        executor.execute_async(key(number), compute)
    collect(executor, 100)
    executor.end()
    assert not watchdog_messages(caplog)


# -- delay ---------------------------------------------------------------------------------------------------


def test_delay_blocks_without_a_loop() -> None:
    began = time.monotonic()
    delay(0.01)
    assert time.monotonic() - began >= 0.01


def test_delay_does_not_block_a_loop() -> None:
    async def main() -> None:
        order = []

        async def short() -> None:
            await asyncio.sleep(0)
            order.append("short")

        other = asyncio.ensure_future(short())
        await delay(0.01)
        order.append("delay")
        await other
        assert order == ["short", "delay"]

    asyncio.run(main())


def test_delay_without_a_loop_can_be_awaited() -> None:
    with pytest.raises(StopIteration):
        delay(0).__await__().__next__()  # type: ignore[attr-defined]
