"""Tests of hostile executors: each fails a rule, the run continues, and no process is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import pytest
from conftest import Command, Judged, Mailbox

from executor_conformance.harness.blackboard import Blackboard
from executor_conformance.harness.calibration import Budgets, Calibration
from executor_conformance.harness.containment import Limits, contain
from executor_conformance.judging.runner import usual_time_limit_s
from executor_conformance.rules import catalogue

NewMailbox = Callable[[Path], Mailbox]

CONSTRUCTOR = "interface.constructor-accepts-parallelism"
FIRST_TASK = "lifecycle.runs-a-task"

#: How many rules may fail because of one fault.  All others must be blocked.
MOST_FAILURES = 4

#: Without the slowest chapters, which do not depend on what these executors do.
FAST_CHAPTERS = ("-n2", "-k", "not (queued_time. or memory. or model.)")

EVENTS = "interface.event-buffer-maps-keys-to-state-and-info"
STATES = "interface.only-known-states-are-reported"

#: A target that fails with the first task -> a part of the message of FIRST_TASK.
FAILS_WITH_THE_FIRST_TASK = {
    "dying:ByExit": "the scheduler process exited with status 0 in start()",
    "dying:BySystemExit": "start() to return; actual: it raised SystemExit: 0",
    "dying:BySystemExitInSync": "it raised SystemExit: 0",
    "dying:ByKeyboardInterrupt": "start() to return; actual: it raised KeyboardInterrupt",
    "dying:BySegmentationFault": "the scheduler process was killed by SIGSEGV in start()",
    "dying:WithItsParent": "SIGKILL",
    "dying:WithItsGroup": "the scheduler process was killed by SIGKILL in start()",
    "dying:AsAShortProgram": "the scheduler process exited with status 0 in start()",
    "dying:AsAnotherProgram": "start() to return; actual: it had not after",
    "hanging:InStart": "start() to return; actual: it had not after",
    "hanging:InSync": "to return; actual: it had not after",
    "hanging:SpinningInSync": "to return; actual: it had not after",
    "hanging:DeafInStart": "start() to return; actual: it had not after",
    "hanging:StoppedInStart": "start() to return; actual: it had not after",
    "flooding:Output": "MiB of output in start()",
    "flooding:Descriptors": "'success' for task",
    "lying:AboutTheSize": "a terminal event for the task",
    "lying:InErrors": "it raised Unspeakable",
    "breeding:Bomb": "processes in start()",
}
#: A target that fails with the first event -> the rule that fails, and a part of its message.
FAILS_WITH_THE_FIRST_EVENT = {
    "lying:AboutKeys": (EVENTS, "events for ("),
    "lying:AboutTupleKeys": (EVENTS, "events for ("),
    "lying:AboutStates": (STATES, "one of the states queued, running, success, failed"),
    "lying:AboutEvents": (EVENTS, "each event to be a tuple (state, info)"),
    "lying:AboutTheEnd": (EVENTS, "get_event_buffer() to return a dict"),
}


#: A minute for the first look, and eight minutes for rules that do not hang: while other tests run, some of
#: them wait twice for half a minute.  The time limit for hangs comes on top.
LONGEST_WITHOUT_HANGS_S = 540
#: When the test gives up on a run: that, and 25 minutes of hangs, the default limit on the slowest machine.
TIMEOUT_S = LONGEST_WITHOUT_HANGS_S + 1500


def contained(judge: Command, target: str, *arguments: str, limit_s: int | None = 240) -> Judged:
    """Run the suite on a hostile executor, and check what has to hold for all of them.

    :param limit_s: the time limit for hangs; ``None``: the default, which is longer on a slow machine.
    """
    limit = () if limit_s is None else (f"--conformance-time-limit={limit_s}",)
    judged = judge(f"--executor=hostile.{target}", *limit, *arguments, timeout=TIMEOUT_S)
    assert judge.left_alive() == []
    assert judge.left_in_tmp() == []
    usual_s = usual_time_limit_s(Budgets.of(Calibration(**judged.report["machine"]["calibration"])))
    assert judged.seconds < LONGEST_WITHOUT_HANGS_S + (limit_s or usual_s)
    assert judged.report["executor"]["target"] == f"hostile.{target}"
    assert "INTERNALERROR" not in judged.output
    assert "internal error in executor-conformance" not in judged.output
    return judged


def failures_of(judged: Judged) -> dict[str, str]:
    """Return the failures.  They must be few, and each must have a message that is printed."""
    assert judged.status == 1, judged.status
    assert judged.report["conformant"] is False
    failures = judged.rules("failed")
    assert 1 <= len(failures) <= MOST_FAILURES, failures
    for rule, message in failures.items():
        assert message.startswith("expected "), message
        assert f"FAILED {rule}" in judged.stdout
        assert message.partition("; actual: ")[2].split(" (calls: ")[0] in judged.stdout
    return failures


@pytest.mark.parametrize(
    ("target", "rule", "seen"),
    [
        *((target, FIRST_TASK, seen) for target, seen in FAILS_WITH_THE_FIRST_TASK.items()),
        *((target, rule, seen) for target, (rule, seen) in FAILS_WITH_THE_FIRST_EVENT.items()),
    ],
)
def test_fault_in_every_rule_fails_only_one(judge: Command, target: str, rule: str, seen: str) -> None:
    failures = failures_of(contained(judge, target))
    assert list(failures) == [rule]
    assert seen in failures[rule]


def test_every_rule_gets_a_verdict(judge: Command) -> None:
    judged = contained(judge, "dying:ByExit")
    ids = list(judged.rules())
    assert ids == list(catalogue())
    assert judged.rules("inconclusive") == {}


def test_hanging_constructor(judge: Command) -> None:
    judged = contained(judge, "hanging:InConstructor")
    assert list(failures_of(judged)) == [CONSTRUCTOR]
    assert judged.rules("passed") == {}
    assert 'hanging.py", line ' in judged.stdout, "the stack of the hang"


def test_hanging_end(judge: Command) -> None:
    judged = contained(judge, "hanging:InEnd", *FAST_CHAPTERS)
    failures = failures_of(judged)
    assert "end() to return; actual: it had not after" in failures["shutdown.end-leaves-no-worker"]
    assert 'hanging.py", line ' in judged.stdout, "the stack of the hang"
    assert judged.rules("passed"), "rules that need no end() still run"


def test_hanging_terminate(judge: Command) -> None:
    failures = failures_of(contained(judge, "hanging:InTerminate", *FAST_CHAPTERS))
    assert (
        "terminate() to return; actual: it had not after"
        in failures["shutdown.terminate-kills-running-tasks"]
    )


@pytest.mark.parametrize("processes", ["0", "2"])
def test_hangs_that_blame_each_other(judge: Command, processes: str) -> None:
    # all of the hangs are needed to know which of them explains the others
    judged = contained(judge, "hanging:InTurns", "-n", processes, limit_s=None)
    assert any("to return; actual: it had not after" in message for message in failures_of(judged).values())


def test_bounded_submit_is_judged_as_far_as_it_goes(judge: Command) -> None:
    target = "fixtures.broken.states:WaitsForASlot"
    judged = judge(f"--executor={target}", "-n2", "-k", "states or isolation", timeout=TIMEOUT_S)
    assert list(failures_of(judged)) == ["states.submit-does-not-block"]
    assert len(judged.rules("passed")) > len(judged.rules("blocked"))
    assert "execute_async() has hung repeatedly with 1 or more tasks in flight per slot" in set(
        judged.rules("blocked").values()
    )


def test_thread_that_never_ends(judge: Command) -> None:
    failures = failures_of(contained(judge, "hanging:WithThread", *FAST_CHAPTERS))
    assert "thread" in failures["shutdown.no-leak-across-start-end-cycles"]
    assert "shutdown.interpreter-exit-does-not-hang" in failures


def test_stopped_clocks_do_not_affect_the_suite(judge: Command) -> None:
    judged = contained(judge, "lying:AboutTime", "-n2", "-k", "not (memory. or model.)", limit_s=None)
    assert judged.rules("inconclusive") == {}


def test_daemon_is_reported_and_killed(judge: Command) -> None:
    failures = failures_of(contained(judge, "breeding:Daemon", *FAST_CHAPTERS))
    assert "1 still alive" in failures["shutdown.end-leaves-no-worker"]


def test_daemon_that_keeps_forking_is_killed(judge: Command) -> None:
    failures_of(contained(judge, "breeding:Hydra", "-k", "lifecycle or shutdown.end-leaves-no-worker"))


def test_names_of_shared_memory_are_removed(tmp_path: Path) -> None:
    def body(blackboard: Blackboard) -> None:
        memory = SharedMemory(create=True, size=16)
        memory.close()  # no process maps it any more: only the resource tracker knows of it
        blackboard.write_result({"name": memory.name})

    ended = contain(body, limits=Limits(), scratch=str(tmp_path))
    assert ended.result is not None
    assert not os.path.exists(f"/dev/shm/{ended.result['name']}")


def test_moderate_output_passes(judge: Command) -> None:
    judged = contained(judge, "flooding:OutputForAWhile", "-k", "lifecycle")
    assert judged.status == 0
    assert judged.rules("failed") == {}


# -- the import ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "part"),
    [
        ("import_exits", "importing it ended the process with status 3"),
        ("import_raises", "SystemExit: usage: import_raises FILE"),
        ("import_hangs", "importing it did not finish within"),
    ],
)
def test_failing_import_is_a_usage_error(judge: Command, module: str, part: str) -> None:
    judged = judge(f"--executor=hostile.{module}:Executor")
    assert judged.status == 4
    assert judge.left_alive() == []
    assert judge.left_in_tmp() == []
    first, *others = judged.stderr.strip().splitlines()
    assert first.startswith(f"ERROR: --executor='hostile.{module}:Executor'")
    assert part in first
    if module != "import_hangs":
        assert not any("executor_conformance" in line for line in others), "no frames of the suite"


# -- pytest itself is interrupted or killed ------------------------------------------------------------------

GATED = """
    import os
    from hostile.breeding import Daemon

    class Executor(Daemon):
        def execute_async(self, *arguments, **options):
            with open("running", "a") as file:
                file.write(f"{os.getpid()}\\n")
            super().execute_async(*arguments, **options)
            with open("mailbox", "w") as file:
                file.write(f"{os.getpid()}\\n")

        def sync(self):
            # The first task, with which the suite discovers the executor, ends; all others keep running.
            if len(open("running").readlines()) == 1:
                super().sync()
"""


def started_run(
    judge: Command, pytester: pytest.Pytester, mailbox: NewMailbox, *arguments: str
) -> subprocess.Popen[str]:
    """Start a run, and return when its rules have running tasks and daemons."""
    pytester.makepyfile(gated=GATED)
    hosts = mailbox(pytester.path / "mailbox")
    process = judge.start("--executor=gated:Executor", "-k", "interface.constructor or lifecycle", *arguments)
    of_discovery = hosts.line(60)
    while hosts.line(60) == of_discovery:
        pass
    assert len(judge.left_alive()) >= 4
    return process


@pytest.mark.parametrize("processes", ["0", "2"])
def test_killed_pytest_leaves_nothing(
    judge: Command, pytester: pytest.Pytester, mailbox: NewMailbox, processes: str
) -> None:
    process = started_run(judge, pytester, mailbox, "-n", processes)
    process.kill()
    process.communicate()
    assert judge.left_alive(timeout=10) == []
    assert judge.left_in_tmp() == []


@pytest.mark.parametrize("processes", ["0", "2"])
def test_ctrl_c_interrupts_the_run_and_writes_the_report(
    judge: Command, pytester: pytest.Pytester, mailbox: NewMailbox, processes: str
) -> None:
    process = started_run(judge, pytester, mailbox, "-n", processes, "--conformance-report=x.json")
    os.kill(process.pid, signal.SIGINT)
    stdout, _ = process.communicate(timeout=20)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert judge.left_alive() == []
    assert judge.left_in_tmp() == []
    assert "no verdict: interrupted" in stdout
    assert " conformant at level" not in stdout
    report = json.loads((pytester.path / "x.json").read_text())
    assert (report["conformant"], report["complete"]) == (None, False)
    assert report["verdict"] == "no verdict: interrupted"


def test_terminated_pytest_leaves_nothing(
    judge: Command, pytester: pytest.Pytester, mailbox: NewMailbox
) -> None:
    process = started_run(judge, pytester, mailbox)
    process.terminate()
    process.communicate()
    assert judge.left_alive(timeout=10) == []
    assert judge.left_in_tmp() == []
