"""Tests of the whole command: the reference passes, a violation fails, a mistake is a usage error."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator

import pytest
from conftest import Command

#: Only the default start method runs all random programs and all tasks.
FEW = ("--conformance-programs=8", "-p", "fixtures.few")


@pytest.mark.parametrize(
    "executor",
    [
        pytest.param(("LocalExecutor",), id="snapshot"),
        pytest.param(("LocalExecutor", "--executor-option=start_method=fork", *FEW), id="fork"),
        pytest.param(("LocalExecutor", "--executor-option=start_method=spawn", *FEW), id="spawn"),
        pytest.param(("AsyncExecutor", *FEW), id="async"),
    ],
)
def test_reference_passes_every_rule(judge: Command, executor: tuple[str, ...]) -> None:
    name, *options = executor
    arguments = (
        f"--executor=executor_reference:{name}",
        *options,
        "--conformance-level=should",
        "--conformance-time-limit=900",
    )
    judged = judge(*arguments)
    assert judged.rules("failed", "blocked") == {}, judged.output
    if undecided := judged.rules("inconclusive"):  # the machine was too busy to tell
        judged = judge(*arguments, "-k", " or ".join(undecided), alone=True)
    assert judged.rules("failed", "inconclusive", "blocked") == {}, judged.output
    assert judged.report["conformant"]
    assert judged.status == 0, judged.output


@contextlib.contextmanager
def another_program_creating_shared_memory() -> Iterator[None]:
    over, left = threading.Event(), []

    def create_files() -> None:
        while not over.wait(0.02):
            left.append(tempfile.NamedTemporaryFile(prefix="other-", dir="/dev/shm"))  # noqa: SIM115

    creator = threading.Thread(target=create_files)
    creator.start()
    try:
        yield
    finally:
        over.set()
        creator.join()
        for file in left:
            file.close()


LEAKS_OF_SHARED_MEMORY = (
    "-k",
    "shutdown.no-leak-across-start-end-cycles or memory.no-resource-leak-per-task",
)


def test_shared_memory_of_other_programs_is_no_leak(judge: Command) -> None:
    with another_program_creating_shared_memory():
        judged = judge("--executor=executor_reference:LocalExecutor", *LEAKS_OF_SHARED_MEMORY)
    assert judged.status == 0, judged.output


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up a capability of root")
def test_shared_memory_of_other_programs_is_no_leak_where_nothing_can_be_mounted(judge: Command) -> None:
    with another_program_creating_shared_memory():
        judged = judge(
            "--executor=executor_reference:LocalExecutor",
            *LEAKS_OF_SHARED_MEMORY,
            wrapper=("setpriv", "--bounding-set=-sys_admin"),
        )
    assert judged.rules("failed") == {}
    assert judged.rules("inconclusive"), judged.output
    assert all("other programs create some" in reason for reason in judged.rules("inconclusive").values())


#: Like Airflow 3, it freezes its objects while it forks.  A later collection in the host also visits objects
#: of which the suite's own processes have copies.
UNFREEZES = """
    import gc
    from fixtures.plain import LocalExecutor

    LIBRARY = [[None] for _ in range(1_000_000)]  # 88 MB that each host inherits

    class Unfreezes(LocalExecutor):
        def __init__(self, parallelism=4):
            super().__init__(parallelism, start_method="snapshot")

        def start(self):
            gc.freeze()
            super().start()
            gc.unfreeze()

        def end(self):
            super().end()
            gc.collect()
"""


def test_memory_of_the_suite_is_not_that_of_the_executor(judge: Command, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(unfreezes=UNFREEZES)
    judged = judge("--executor=unfreezes:Unfreezes", "-k", "memory.copy-on-write")
    assert judged.status == 0, judged.output


def test_failed_rule_sets_the_exit_status(judge: Command) -> None:
    judged = judge("--executor=concurrent.futures:ThreadPoolExecutor", "-k", "parallelism.nan-is-rejected")
    assert list(judged.rules("failed")) == ["parallelism.nan-is-rejected"]
    assert judged.status == 1


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--executor=executor_reference:LocalExecuter"], "did you mean 'LocalExecutor'"),
        (["--executor=executor_refrence:LocalExecutor"], "executor_refrence"),
        (["--explain", "lifecycle.runs-a-taks"], "did you mean 'lifecycle.runs-a-task'"),
    ],
)
def test_mistyped_names_are_usage_errors(judge: Command, arguments: list[str], hint: str) -> None:
    process = judge.start(*arguments)
    stdout, stderr = process.communicate()
    assert process.returncode == 4, stdout + stderr
    assert hint in stdout + stderr
