"""What the suite does not judge of the async reference: what it offers beyond the contract."""

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

from executor_reference import AsyncExecutor, Limit, TaskKey, delay, watchdog

SUCCESS = ("success", None)
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE")


def key(number: int) -> TaskKey:
    return TaskKey("dag", f"task-{number}", "run")


async def nothing() -> None:
    await asyncio.sleep(0)


async def for_ever() -> None:
    await asyncio.Event().wait()


async def heedless(let_go: threading.Event) -> None:
    while not let_go.is_set():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            pass


def until(executor: AsyncExecutor, count: int) -> dict[Any, Any]:
    """Pump until so many events have come."""
    events: dict[Any, Any] = {}
    deadline = time.monotonic() + 60
    pause = threading.Event()
    while len(events) < count:
        assert time.monotonic() < deadline, events
        executor.sync()
        events |= executor.get_event_buffer()
        pause.wait(0.001)
    return events


def until_true(condition: Callable[[], object]) -> None:
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


# -- values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallelism", [-1, True, 1.5, "4", None])
def test_a_parallelism_that_is_none_is_refused(parallelism: Any) -> None:
    with pytest.raises(ValueError, match="parallelism must be"):
        AsyncExecutor(parallelism)


@pytest.mark.parametrize("threads", [0, -1, True, "4"])
def test_no_threads_are_refused(threads: Any) -> None:
    with pytest.raises(ValueError, match="threads must be"):
        AsyncExecutor(threads=threads)


@pytest.mark.parametrize(
    "options",
    [{"concurrency": 0}, {"concurrency": True}, {"rate": 0.5}, {"rate": float("nan")}, {"per_s": 0}],
)
def test_a_limit_that_lets_nothing_pass_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Limit(**options)


# -- ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        pytest.param(["false"], "exit status 1", id="exit-status"),
        pytest.param(["sh", "-c", "kill -9 $$"], "killed by SIGKILL", id="signal"),
        pytest.param(["not-there"], "it could not be started: ", id="no-program"),
        pytest.param(functools.partial(int, "x"), "ValueError: invalid literal", id="exception"),
        pytest.param(functools.partial(asyncio.sleep, "x"), "TypeError: ", id="exception-of-a-coroutine"),
    ],
)
def test_a_failure_has_its_reason(build: Any, command: Any, reason: str) -> None:
    executor = build(2)
    executor.execute_async(key(1), command)
    state, info = until(executor, 1)[key(1)]
    assert state == "failed"
    assert info.startswith(reason)


class _Unspeakable(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class _UnspeakableCode:
    def __eq__(self, other: object) -> bool:
        raise OSError

    def __str__(self) -> str:
        raise OSError


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(_Unspeakable(), "_Unspeakable: its text cannot be had", id="error"),
        pytest.param(SystemExit(_UnspeakableCode()), "SystemExit: its text cannot be had", id="exit"),
        pytest.param(SystemExit(256), None, id="exit-status-of-a-byte"),
    ],
)
def test_an_error_that_cannot_be_told_is_a_failure_like_any(
    build: Any, error: BaseException, reason: str | None
) -> None:
    executor = build(2)

    async def fail() -> None:
        raise error

    executor.execute_async(key(1), fail)
    executor.execute_async(key(2), nothing)
    assert until(executor, 2) == {key(1): ("failed", reason) if reason else SUCCESS, key(2): SUCCESS}
    executor.end()


def test_a_call_that_returns_a_coroutine_is_awaited(build: Any) -> None:
    executor = build(2)
    ran = []

    async def run() -> None:
        ran.append(threading.current_thread().name)

    executor.execute_async(key(1), lambda: run())
    assert until(executor, 1) == {key(1): SUCCESS}
    assert ran == ["executor-loop"]


def test_a_task_that_takes_too_long_is_cancelled(build: Any) -> None:
    executor = build(2, timeout_s=0.01)
    executor.execute_async(key(1), for_ever)
    executor.execute_async(key(2), ["sleep", "3600"])
    assert until(executor, 2) == {
        key(number): ("failed", "it was cancelled after 0.01 s") for number in (1, 2)
    }


def test_a_task_that_does_not_heed_its_timeout_is_reported_and_keeps_its_slot(build: Any) -> None:
    executor = build(1, timeout_s=0.01, patience_s=0.01)
    let_go = threading.Event()
    executor.execute_async(key(1), functools.partial(heedless, let_go))
    with pytest.warns(RuntimeWarning, match="did not heed cancellation"):
        events = until(executor, 1)
    assert events[key(1)][0] == "failed"
    executor.execute_async(key(2), nothing)
    executor.sync()
    assert key(2) in executor.queued_tasks
    let_go.set()
    assert until(executor, 1) == {key(2): SUCCESS}


def test_what_swallows_its_cancellation_is_left_behind_with_a_warning(build: Any) -> None:
    executor = build(2, patience_s=0.05)
    let_go = threading.Event()
    executor.execute_async(key(1), functools.partial(heedless, let_go))
    while key(1) not in executor.running:
        executor.sync()
    with pytest.warns(RuntimeWarning, match=r"task-1.* left behind"):
        executor.terminate()
    assert executor.get_event_buffer() == {key(1): ("failed", "terminated")}


def test_a_blocked_loop_does_not_hold_up_the_termination(build: Any) -> None:
    executor = build(2, patience_s=0.05)
    let_go = threading.Event()

    async def block() -> None:
        let_go.wait()

    executor.execute_async(key(1), block)
    executor.execute_async(key(2), nothing)
    while key(1) not in executor.running:
        executor.sync()
    with pytest.warns(RuntimeWarning, match="left behind"):
        executor.terminate()
    events = executor.get_event_buffer()
    assert {event[0] for event in events.values()} == {"failed"}
    assert set(events) == {key(1), key(2)}
    let_go.set()


def test_no_program_outlives_a_termination_beside_a_blocked_loop(build: Any, tmp_path: Path) -> None:
    executor = build(2, patience_s=0.05)
    let_go = threading.Event()
    pid_file = tmp_path / "pid"

    async def block() -> None:
        while not pid_file.exists():
            await asyncio.sleep(0)
        let_go.wait()

    script = 'echo $$ > "$0.new"; mv "$0.new" "$0"; sleep 3600'
    executor.execute_async(key(1), ["sh", "-c", script, str(pid_file)])
    executor.execute_async(key(2), block)
    executor.execute_async(key(3), nothing)
    while not pid_file.exists():
        executor.sync()
    pid = int(pid_file.read_text())
    with pytest.warns(RuntimeWarning, match="left behind"):
        executor.terminate()
    assert {event[0] for event in executor.get_event_buffer().values()} == {"failed"}
    until_true(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    let_go.set()
    until_true(lambda: not psutil.pid_exists(pid))
    executor.sync()
    assert executor.get_event_buffer() == {}


def test_a_loop_that_is_only_busy_is_not_given_up(build: Any) -> None:
    executor = build(0, patience_s=0.2)
    started = []
    count = 5_000

    async def wait() -> None:
        started.append(True)
        try:
            await for_ever()
        finally:
            math.factorial(1_000)  # so that all of them together take longer than the patience

    for number in range(count):
        executor.execute_async(key(number), wait)
    until_true(lambda: len(started) == count)
    executor.terminate()
    assert set(executor.get_event_buffer().values()) == {("failed", "terminated")}


def test_programs_are_not_started_by_the_loops_thread(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = build(2)
    threads = []
    popen = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> Any:
        threads.append(threading.current_thread().name)
        return popen(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", start)
    executor.execute_async(key(1), ["true"])
    assert until(executor, 1) == {key(1): SUCCESS}
    assert threads == ["program-starter"]


def test_a_program_whose_end_is_lost_is_no_success(build: Any) -> None:
    previous = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        executor = build(1)
        executor.execute_async(key(1), ["true"])
        state, reason = until(executor, 1)[key(1)]
    finally:
        signal.signal(signal.SIGCHLD, previous)
    assert state == "failed"
    assert "SIGCHLD" in reason


def test_its_tasks_may_submit_others_while_the_scheduler_does(build: Any) -> None:
    executor = build(0)
    numbers = itertools.count(1_000_000)

    async def submit() -> None:
        for _ in range(50):
            executor.execute_async(key(next(numbers)), nothing)
            await asyncio.sleep(0)

    for number in range(200):
        executor.execute_async(key(number), submit if number % 10 == 0 else nothing)
    assert set(until(executor, 200 + 20 * 50).values()) == {SUCCESS}
    assert executor.slots_occupied == 0


def test_a_refused_submission_leaves_nothing_behind(build: Any) -> None:
    executor = build(2)
    with pytest.raises(TypeError):
        executor.queue_command(key(1), nothing, priority=None)
    executor.queue_command(key(1), nothing)
    assert until(executor, 1) == {key(1): SUCCESS}


def test_a_task_cannot_wait_for_the_end_of_its_executor() -> None:
    async def main() -> None:
        async with AsyncExecutor(2) as executor:
            executor.execute_async(key(1), executor.aclose)
            state, reason = await executor.wait(key(1))
            assert (state, reason) == (
                "failed",
                "RuntimeError: a task cannot wait for the end of the executor that runs it",
            )

    asyncio.run(main())


def test_without_a_thread_for_the_watchdog_tasks_go_on_unwatched(
    build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = build(2)
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "loop-watchdog":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    executor.execute_async(key(1), nothing)
    assert until(executor, 1) == {key(1): SUCCESS}


@pytest.mark.parametrize("name", ["timeout_s", "patience_s", "watchdog_s"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "1"])
def test_seconds_that_are_none_are_refused(name: str, seconds: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be seconds above 0.*{seconds!r}"):
        AsyncExecutor(**{name: seconds})


def test_a_loop_that_its_owner_has_closed_fails_what_was_on_it() -> None:
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


def test_between_two_runs_of_its_owner_the_end_runs_the_loop_itself() -> None:
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


# -- for callers on a loop -----------------------------------------------------------------------------------


def watchdogs() -> int:
    return sum(thread.name == "loop-watchdog" for thread in threading.enumerate())


@pytest.mark.parametrize("busy", [True, False])
def test_nothing_watches_the_callers_loop_after_the_end(busy: bool) -> None:
    async def main() -> None:
        before = watchdogs()
        executor = AsyncExecutor(2)
        executor.start()
        executor.execute_async(key(1), functools.partial(asyncio.sleep, 0.01))
        await asyncio.sleep(0)
        assert watchdogs() == before + 1
        if not busy:
            assert await executor.wait(key(1)) == SUCCESS
        executor.end()
        while executor.slots_occupied:
            await asyncio.sleep(0)
            executor.sync()
        assert watchdogs() == before

    asyncio.run(main())


@pytest.mark.parametrize("command", [nothing, for_ever])
def test_nothing_watches_for_an_executor_that_was_forgotten(
    command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "_REST_S", 0.02)
    before = watchdogs()

    async def main() -> None:
        executor = AsyncExecutor(2)
        executor.start()
        executor.execute_async(key(1), command)
        await asyncio.sleep(0.01)

    asyncio.run(main())
    until_true(lambda: watchdogs() == before)


def test_the_next_task_is_watched_after_a_rest(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_REST_S", 0.02)
    before = watchdogs()
    executor = build(2)
    for number in range(3):
        executor.execute_async(key(number), functools.partial(asyncio.sleep, 0.05))
        until_true(lambda: watchdogs() == before + 1)
        until(executor, 1)
        until_true(lambda: watchdogs() == before)


def on_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test inside a running event loop, which has to be empty in the end."""

    async def main() -> None:
        await test()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def run() -> None:
        asyncio.run(main())

    run.__name__ = test.__name__
    return run


@on_a_loop
async def test_a_task_can_be_awaited() -> None:
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
async def test_an_event_that_is_in_the_buffer_can_be_awaited_too() -> None:
    async with AsyncExecutor(2) as executor:
        executor.execute_async(key(1), nothing)
        while executor.slots_occupied:
            await asyncio.sleep(0)
            executor.sync()
        assert await executor.wait(key(1)) == SUCCESS


@on_a_loop
async def test_leaving_the_context_finishes_what_was_accepted() -> None:
    async with AsyncExecutor(1) as executor:
        for number in range(5):
            executor.execute_async(key(number), functools.partial(asyncio.sleep, 0.001))
    assert executor.get_event_buffer() == {key(number): SUCCESS for number in range(5)}


@on_a_loop
async def test_an_exception_that_leaves_the_context_cancels() -> None:
    executor = AsyncExecutor(1)

    async def use_it() -> None:
        async with executor:
            executor.execute_async(key(1), for_ever)
            raise LookupError

    with pytest.raises(LookupError):
        await use_it()
    assert executor.get_event_buffer()[key(1)][0] == "failed"


@on_a_loop
async def test_leaving_the_context_waits_for_what_was_cancelled() -> None:
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
async def test_it_runs_on_the_callers_loop() -> None:
    found = []

    async def look() -> None:
        found.append(asyncio.get_running_loop())

    async with AsyncExecutor(1) as executor:
        executor.execute_async(key(1), look)
        await executor.wait(key(1))
    assert found == [asyncio.get_running_loop()]


@on_a_loop
async def test_nothing_is_kept_of_those_who_no_longer_wait() -> None:
    async with AsyncExecutor(1) as executor:
        executor.execute_async(key(1), for_ever)
        waiting = [asyncio.create_task(executor.wait(key(1))) for _ in range(50)]
        await asyncio.sleep(0)
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)
        assert executor._in_flight[key(1)].watchers == []
        executor.terminate()


def test_one_that_has_its_own_loop_can_be_awaited_from_another(build: Any) -> None:
    executor = build(2)

    async def main() -> None:
        executor.execute_async(key(1), functools.partial(asyncio.sleep, 0.01))
        assert await executor.wait(key(1)) == SUCCESS
        executor.execute_async(key(2), nothing)
        await executor.aclose()
        assert executor.get_event_buffer() == {key(2): SUCCESS}

    asyncio.run(main())


# -- what tasks share ----------------------------------------------------------------------------------------


def test_a_task_sees_the_context_of_its_submission(build: Any) -> None:
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
    until(executor, 4)
    assert sorted(seen) == ["one", "one", "two", "two"]
    assert VARIABLE.get("unset") == "unset"


def test_blocking_calls_are_bounded_and_hold_up_no_coroutine(build: Any) -> None:
    executor = build(10, threads=2)
    go_on = threading.Event()
    for number in range(4):
        executor.execute_async(key(number), go_on.wait)
    executor.execute_async(key(9), nothing)
    assert until(executor, 1) == {key(9): SUCCESS}
    assert sum(thread.name == "blocking-call" for thread in threading.enumerate()) == 2
    go_on.set()
    until(executor, 4)


def test_a_priority_counts_among_what_was_queued_together(build: Any) -> None:
    executor = build(1)
    order = []

    async def note(number: int) -> None:
        order.append(number)

    for number in (1, 3, 2):
        executor.queue_command(key(number), functools.partial(note, number), priority=number)
    until(executor, 3)
    assert order == [3, 2, 1]


# -- limits --------------------------------------------------------------------------------------------------


def test_a_queue_has_no_more_under_way_than_it_is_allowed(build: Any) -> None:
    executor = build(10, limits={"api": Limit(concurrency=2)})
    under_way, most = 0, 0

    async def call() -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.005)
        under_way -= 1

    for number in range(8):
        executor.execute_async(key(number), call, queue="api")
    executor.execute_async(key(99), nothing, queue="another")
    events = until(executor, 9)
    assert set(events.values()) == {SUCCESS}
    assert most == 2


def test_a_queue_starts_no_faster_than_it_is_allowed(build: Any) -> None:
    executor = build(100, limits={"api": Limit(rate=5, per_s=0.1)})
    starts = []

    async def call() -> None:
        starts.append(time.monotonic())

    for number in range(15):
        executor.execute_async(key(number), call, queue="api")
    until(executor, 15)
    # A burst of 5, and then one every 20 ms, at the earliest.
    assert starts[-1] - starts[0] >= 0.19


def test_what_does_not_heed_its_timeout_keeps_its_place_in_the_queue(build: Any) -> None:
    executor = build(4, timeout_s=0.01, patience_s=0.01, limits={"api": Limit(concurrency=1)})
    let_go = threading.Event()
    executor.execute_async(key(1), functools.partial(heedless, let_go), queue="api")
    executor.execute_async(key(2), nothing, queue="api")
    with pytest.warns(RuntimeWarning, match="did not heed cancellation"):
        events = until(executor, 1)
    assert list(events) == [key(1)]
    assert key(2) in executor.queued_tasks
    let_go.set()
    assert until(executor, 1) == {key(2): SUCCESS}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has eager tasks since Python 3.12")
@on_a_loop
async def test_a_limit_holds_on_a_loop_that_runs_new_tasks_at_once() -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    async with AsyncExecutor(4, limits={"api": Limit(concurrency=1)}) as executor:
        for number in range(4):
            executor.execute_async(key(number), nothing, queue="api")
            assert await executor.wait(key(number)) == SUCCESS


def test_what_waits_for_a_limit_holds_no_slot(build: Any) -> None:
    executor = build(2, limits={"api": Limit(concurrency=1)})
    for number in range(5):
        executor.execute_async(key(number), for_ever, queue="api")
    executor.execute_async(key(9), nothing)
    assert until(executor, 1) == {key(9): SUCCESS}
    executor.terminate()
    assert len(executor.get_event_buffer()) == 5


# -- the watchdog --------------------------------------------------------------------------------------------


def of_the_watchdog(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "executor_reference"]


def test_a_task_that_blocks_the_loop_is_named_with_its_stack(
    build: Any, caplog: pytest.LogCaptureFixture
) -> None:
    executor = build(5)
    let_go = threading.Event()

    async def block_the_loop() -> None:
        let_go.wait()

    with caplog.at_level(logging.WARNING, "executor_reference"):
        for number in range(3):
            executor.execute_async(key(number), nothing)
        executor.execute_async(key(77), block_the_loop)
        deadline = time.monotonic() + 60
        while not of_the_watchdog(caplog):
            assert time.monotonic() < deadline
            executor.sync()
        let_go.set()
        executor.end()
    (message,) = of_the_watchdog(caplog)
    assert "task-77" in message
    assert "block_the_loop" in message


def test_many_short_turns_are_nobodys_fault(build: Any, caplog: pytest.LogCaptureFixture) -> None:
    executor = build(0, watchdog_s=0.2)

    async def compute() -> None:
        began = time.thread_time()
        while time.thread_time() - began < 0.005:
            pass

    for number in range(100):
        executor.execute_async(key(number), compute)
    until(executor, 100)
    executor.end()
    assert not of_the_watchdog(caplog)


# -- sleeping ------------------------------------------------------------------------------------------------


def test_delay_has_slept_where_no_loop_runs() -> None:
    began = time.monotonic()
    delay(0.01)
    assert time.monotonic() - began >= 0.01


def test_delay_holds_up_nobody_on_a_loop() -> None:
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


def test_delay_may_be_awaited_where_no_loop_runs() -> None:
    with pytest.raises(StopIteration):
        delay(0).__await__().__next__()  # type: ignore[attr-defined]
