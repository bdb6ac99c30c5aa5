"""The command as its users type it: the reference conforms, a lie does not, a mistake is told."""

from __future__ import annotations

import tempfile
import threading

import pytest
from conftest import Command

#: What the default mode is tried with in full, the others are with some of.
SOME_PROGRAMS = "--conformance-programs=20"


@pytest.mark.parametrize(
    "executor",
    [
        pytest.param(("LocalExecutor", "--executor-option=start_method=fork"), id="fork"),
        pytest.param(("LocalExecutor", "--executor-option=start_method=spawn", SOME_PROGRAMS), id="spawn"),
        pytest.param(
            ("LocalExecutor", "--executor-option=start_method=snapshot", SOME_PROGRAMS), id="snapshot"
        ),
        pytest.param(("AsyncExecutor", SOME_PROGRAMS), id="async"),
    ],
)
def test_the_reference_keeps_every_promise(judge: Command, executor: tuple[str, ...]) -> None:
    name, *options = executor
    judged = judge(
        f"--executor=executor_reference:{name}",
        *options,
        "--conformance-level=should",
        "--conformance-time-limit=900",
    )
    assert judged.rules("failed", "inconclusive", "blocked") == {}, judged.output
    assert judged.report["conformant"]
    assert judged.status == 0, judged.output


def test_what_other_programs_leave_in_shared_memory_accuses_nobody(judge: Command) -> None:
    over, left = threading.Event(), []

    def leave_one_after_another() -> None:
        while not over.wait(0.02):
            left.append(tempfile.NamedTemporaryFile(prefix="somebody-", dir="/dev/shm"))  # noqa: SIM115

    leaver = threading.Thread(target=leave_one_after_another)
    leaver.start()
    try:
        judged = judge(
            "--executor=executor_reference:LocalExecutor",
            "-k",
            "shutdown.nothing-accumulates or memory.nothing-piles-up",
        )
    finally:
        over.set()
        leaver.join()
        for name in left:
            name.close()
    assert judged.status == 0, judged.output


def test_a_broken_promise_is_an_exit_status(judge: Command) -> None:
    judged = judge("--executor=concurrent.futures:ThreadPoolExecutor", "-k", "parallelism.nan-is-refused")
    assert list(judged.rules("failed")) == ["parallelism.nan-is-refused"]
    assert judged.status == 1


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--executor=executor_reference:LocalExecuter"], "did you mean 'LocalExecutor'"),
        (["--executor=executor_refrence:LocalExecutor"], "executor_refrence"),
        (["--explain", "lifecycle.runs-a-taks"], "did you mean 'lifecycle.runs-a-task'"),
    ],
)
def test_a_mistake_is_a_usage_error(judge: Command, arguments: list[str], hint: str) -> None:
    process = judge.start(*arguments)
    stdout, stderr = process.communicate()
    assert process.returncode == 4, stdout + stderr
    assert hint in stdout + stderr
