"""What the suite does not judge of the async reference: what it offers beyond the contract."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from executor_reference import AsyncExecutor, Limit, TaskKey, delay

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
