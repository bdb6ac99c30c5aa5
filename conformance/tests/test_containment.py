"""Hostile executors: each ends as a named failure, the run goes on, and nothing is left alive."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

import pytest
from conftest import Command, Judged

from executor_conformance.rules import catalogue

Eventually = Callable[[Callable[[], object], float], bool]

BUILDS = "interface.builds-with-parallelism"
RUNS = "lifecycle.runs-a-task"

#: How many rules may name one and the same fault; the others must be blocked by one of these.
MOST_FAILURES = 4

#: Of the rules that take longest, none is about what these executors do.
WHERE_IT_SHOWS = ("-n2", "-k", "not (queued_time. or memory. or model.)")

PAIRS = "interface.events-are-pairs-by-key"
WORDS = "interface.states-are-the-agreed-words"

#: target -> what the message of the first task's rule must say.
TOLD_BY_THE_FIRST_TASK = {
    "dying:ByExit": "the host process exited with status 0 in start()",
    "dying:BySystemExit": "start() to return; seen: it raised SystemExit: 0",
    "dying:BySystemExitInSync": "it raised SystemExit: 0",
    "dying:ByKeyboardInterrupt": "start() to return; seen: it raised KeyboardInterrupt",
    "dying:BySegmentationFault": "the host process died of SIGSEGV in start()",
    "dying:WithItsParent": "SIGKILL",
    "dying:WithItsGroup": "the host process died of SIGKILL in start()",
    "dying:AsAShortProgram": "the host process exited with status 0 in start()",
    "dying:AsAnotherProgram": "no return in start()",
    "hanging:InStart": "no return in start()",
    "hanging:InSync": "no return in",
    "hanging:SpinningInSync": "no return in",
    "hanging:DeafInStart": "no return in start()",
    "hanging:StoppedInStart": "no return in start()",
    "flooding:Output": "MiB of output in start()",
    "flooding:Descriptors": "'success' for task",
    "lying:AboutTheSize": "a terminal event for 1 task",
    "lying:InErrors": "it raised Unspeakable",
    "breeding:Bomb": "processes in start()",
}
TOLD_BY_THE_FIRST_EVENT = {
    "lying:AboutKeys": (PAIRS, "events for ("),
    "lying:AboutTupleKeys": (PAIRS, "events for ("),
    "lying:AboutStates": (WORDS, "states out of queued, running, success, failed"),
    "lying:AboutEvents": (PAIRS, "each event to be a tuple (state, info)"),
    "lying:AboutTheEnd": (PAIRS, "get_event_buffer() to return a dict"),
}


def contained(judge: Command, target: str, *arguments: str) -> Judged:
    """Judge a hostile executor, and hold everything that is true of all of them."""
    judged = judge(f"--executor=hostile.{target}", *arguments)
    assert judge.left_alive() == []
    assert judge.left_in_tmp() == []
    assert judged.seconds < 240
    assert judged.report["executor"]["target"] == f"hostile.{target}"
    assert "INTERNALERROR" not in judged.output
    assert "the suite itself failed" not in judged.output
    return judged


def named(judged: Judged) -> dict[str, str]:
    """The failures, which must be few and each say something."""
    assert judged.status == 1, judged.status
    assert judged.report["conformant"] is False
    failures = judged.rules("failed")
    assert 1 <= len(failures) <= MOST_FAILURES, failures
    for rule, message in failures.items():
        assert message.startswith("awaited "), message
        assert f"FAILED {rule}" in judged.stdout
        assert message.partition("; seen: ")[2].split(" (after ")[0] in judged.stdout
    return failures


@pytest.mark.parametrize(
    ("target", "rule", "seen"),
    [
        *((target, RUNS, seen) for target, seen in TOLD_BY_THE_FIRST_TASK.items()),
        *((target, rule, seen) for target, (rule, seen) in TOLD_BY_THE_FIRST_EVENT.items()),
    ],
)
def test_what_spoils_every_rule_is_told_by_one(judge: Command, target: str, rule: str, seen: str) -> None:
    failures = named(contained(judge, target))
    assert list(failures) == [rule]
    assert seen in failures[rule]


def test_every_rule_gets_a_verdict_whatever_happens(judge: Command) -> None:
    judged = contained(judge, "dying:ByExit")
    ids = list(judged.rules())
    assert ids == list(catalogue())
    assert judged.rules("inconclusive") == {}


def test_hanging_constructor(judge: Command) -> None:
    judged = contained(judge, "hanging:InConstructor")
    assert list(named(judged)) == [BUILDS]
    assert judged.rules("passed") == {}
    assert 'hanging.py", line ' in judged.stdout, "the stack of the hang"


def test_hanging_end(judge: Command) -> None:
    judged = contained(judge, "hanging:InEnd", *WHERE_IT_SHOWS)
    failures = named(judged)
    assert "no return in end()" in failures["shutdown.every-worker-exits"]
    assert 'hanging.py", line ' in judged.stdout, "the stack of the hang"
    assert judged.rules("passed"), "the rules that need no end() are judged"


def test_hanging_terminate(judge: Command) -> None:
    failures = named(contained(judge, "hanging:InTerminate", *WHERE_IT_SHOWS))
    assert "no return in terminate()" in failures["shutdown.terminate-stops-what-runs"]


@pytest.mark.parametrize("processes", ["0", "2"])
def test_hangs_that_point_at_each_other(judge: Command, processes: str) -> None:
    judged = contained(judge, "hanging:InTurns", "-n", processes)
    assert any("no return in" in message for message in named(judged).values())


def test_lasting_thread(judge: Command) -> None:
    failures = named(contained(judge, "hanging:WithThread", *WHERE_IT_SHOWS))
    assert "thread" in failures["shutdown.nothing-accumulates"]
    assert "shutdown.interpreter-exit-does-not-hang" in failures


def test_stopped_clocks_stop_nothing_else(judge: Command) -> None:
    judged = contained(judge, "lying:AboutTime", "-n2", "-k", "not (memory. or model.)")
    assert judged.rules("inconclusive") == {}


def test_daemon_is_named_and_dies(judge: Command) -> None:
    failures = named(contained(judge, "breeding:Daemon", *WHERE_IT_SHOWS))
    assert "1 still there" in failures["shutdown.every-worker-exits"]


def test_daemon_of_ever_new_processes_dies(judge: Command) -> None:
    named(contained(judge, "breeding:Hydra", "-k", "lifecycle or shutdown.every-worker-exits"))


def test_moderate_output_is_no_fault(judge: Command) -> None:
    judged = contained(judge, "flooding:OutputForAWhile", "-k", "lifecycle")
    assert judged.status == 0
    assert judged.rules("failed") == {}


# -- the import ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "story"),
    [
        ("import_exits", "importing it ended the process with status 3"),
        ("import_raises", "SystemExit: usage: import_raises FILE"),
        ("import_hangs", "importing it did not end within"),
    ],
)
def test_import_that_fails(judge: Command, module: str, story: str) -> None:
    judged = judge(f"--executor=hostile.{module}:Executor")
    assert judged.status == 4
    assert judge.left_alive() == []
    assert judge.left_in_tmp() == []
    first, *others = judged.stderr.strip().splitlines()
    assert first.startswith(f"ERROR: --executor='hostile.{module}:Executor'")
    assert story in first
    if module != "import_hangs":
        assert not any("executor_conformance" in line for line in others), "frames of the suite's own"


# -- pytest itself is ended ----------------------------------------------------------------------------------

GATED = """
    import os
    from hostile.breeding import Daemon

    class Executor(Daemon):
        def execute_async(self, *arguments, **options):
            with open("running", "a") as file:
                file.write(f"{os.getpid()}\\n")
            super().execute_async(*arguments, **options)

        def sync(self):
            # The first task, with which the suite gets acquainted, ends; all others stay where they are.
            if len(open("running").readlines()) == 1:
                super().sync()
"""


def in_the_middle(
    judge: Command, pytester: pytest.Pytester, eventually: Eventually, *arguments: str
) -> subprocess.Popen[str]:
    """A run in whose rules tasks are running and daemons are loose."""
    pytester.makepyfile(gated=GATED)
    process = judge.start("--executor=gated:Executor", "-k", "interface.builds or lifecycle", *arguments)
    running = pytester.path / "running"
    # The first is from getting acquainted.
    assert eventually(lambda: running.exists() and len(set(running.read_text().split())) > 1, 60)
    assert eventually(lambda: len(judge.left_alive()) >= 4, 20)
    return process


@pytest.mark.parametrize("processes", ["0", "2"])
def test_nothing_outlives_a_killed_pytest(
    judge: Command, pytester: pytest.Pytester, eventually: Eventually, processes: str
) -> None:
    process = in_the_middle(judge, pytester, eventually, "-n", processes)
    process.kill()
    process.communicate()
    assert eventually(lambda: not judge.left_alive(), 5), judge.left_alive()


@pytest.mark.parametrize("processes", ["0", "2"])
def test_ctrl_c_ends_the_run_and_tells_what_was_found(
    judge: Command, pytester: pytest.Pytester, eventually: Eventually, processes: str
) -> None:
    process = in_the_middle(judge, pytester, eventually, "-n", processes, "--conformance-report=x.json")
    os.kill(process.pid, signal.SIGINT)
    stdout, _ = process.communicate(timeout=20)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert judge.left_alive() == []
    assert judge.left_in_tmp() == []
    assert " is conformant" not in stdout
    assert '"conformant": false' in (pytester.path / "x.json").read_text()


def test_terminated_pytest_leaves_nothing(
    judge: Command, pytester: pytest.Pytester, eventually: Eventually
) -> None:
    process = in_the_middle(judge, pytester, eventually)
    process.terminate()
    process.communicate()
    assert eventually(lambda: not judge.left_alive(), 5), judge.left_alive()
