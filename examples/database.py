"""Runs many transactions over a few database connections, one task per transaction.

    python -m examples.database [--tasks 1000] [--connections 4]

A task moves money from one account to another.  If the balance is too low, it fails and is rolled back.  The
concurrency limit of the queue is the number of connections, so a task that waits for a connection holds no
slot, and a running task always finds a free one.  The exit status is 1 if the database does not match the
events.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiosqlite

from executor_reference import AsyncExecutor, Limit, TaskKey

_ACCOUNTS = 20
_OPENING = 100
_TABLES = f"""
    PRAGMA journal_mode = WAL;
    CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0));
    CREATE TABLE transfers (task TEXT PRIMARY KEY, amount INTEGER NOT NULL);
    WITH RECURSIVE ids(id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM ids WHERE id < {_ACCOUNTS - 1})
    INSERT INTO accounts SELECT id, {_OPENING} FROM ids;
"""


class Pool:
    """A fixed number of connections.  No task waits here, because the queue has the same limit."""

    def __init__(self, path: Path, connections: int) -> None:
        self._path = path
        self._connections = connections
        self._free: list[aiosqlite.Connection] = []
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Pool:
        for _ in range(self._connections):
            self._free.append(
                await self._open.enter_async_context(
                    aiosqlite.connect(self._path, isolation_level=None, timeout=30.0)
                )
            )
        await self._free[0].executescript(_TABLES)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        """Run a transaction.  It is rolled back after any exception, including a cancellation."""
        connection = self._free.pop()
        try:
            await connection.execute("BEGIN IMMEDIATE")
            yield connection
            await connection.commit()
        except BaseException:
            await connection.rollback()
            raise
        finally:
            self._free.append(connection)


async def transfer(pool: Pool, task: str, source: int, target: int, amount: int) -> None:
    """Move an amount from one account to another.

    :raises sqlite3.IntegrityError: the balance of the source is too low.
    """
    async with pool.transaction() as db:
        await db.execute("INSERT INTO transfers VALUES (?, ?)", (task, amount))
        await db.execute("UPDATE accounts SET balance = balance + ? WHERE id = ?", (amount, target))
        await db.execute("UPDATE accounts SET balance = balance - ? WHERE id = ?", (amount, source))


async def run(path: Path, tasks: int, connections: int) -> tuple[Counter[str], bool]:
    """Run all transfers.

    :returns: the number of tasks with each outcome, and whether the database matches the events.
    """
    rng = random.Random(1)
    limits = {"database": Limit(concurrency=connections)}
    async with Pool(path, connections) as pool, AsyncExecutor(limits=limits) as executor:
        for number in range(tasks):
            key = TaskKey("bank", f"transfer_{number}", "once")
            source, target = rng.sample(range(_ACCOUNTS), 2)
            work = functools.partial(
                transfer, pool, key.task_id, source, target, rng.randint(1, _OPENING // 2)
            )
            executor.execute_async(key, work, queue="database")
        await executor.aclose()
        events = executor.get_event_buffer()
        async with pool.transaction() as db:
            rows = await db.execute_fetchall("SELECT task FROM transfers")
            ((total,),) = await db.execute_fetchall("SELECT sum(balance) FROM accounts")
    succeeded = {key.task_id for key, (state, _) in events.items() if state == "success"}
    agree = {task for (task,) in rows} == succeeded and total == _ACCOUNTS * _OPENING
    return Counter(state for state, _ in events.values()), agree and len(events) == tasks


def main() -> int:
    """Run, print the result, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.database",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tasks", type=int, default=1000, help="number of transactions (default: 1000)")
    parser.add_argument("--connections", type=int, default=4, help="size of the pool (default: 4)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        counts, agree = asyncio.run(run(Path(folder, "bank.db"), options.tasks, options.connections))
        seconds = time.monotonic() - began
    print(f"{counts['success']:,} succeeded, {counts['failed']:,} failed and were rolled back")
    print(f"{seconds:.2f} s, {options.tasks / seconds:,.0f} transactions per second")
    print("the database matches the events" if agree else "ERROR: the database does not match the events")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
