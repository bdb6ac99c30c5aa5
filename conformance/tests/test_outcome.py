"""What the end of a contained rule means."""

from __future__ import annotations

import errno
import os
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from executor_conformance.contract import Call
from executor_conformance.harness.containment_result import ContainmentResult, End
from executor_conformance.harness.waiting import Patience
from executor_conformance.judging.outcome import evaluate_rule, finding_from, printable
from executor_conformance.verdicts import FailureMode, Finding, Verdict

PASSED = Finding(Verdict.PASSED).as_dict()


def test_a_rule_that_finished_has_its_own_verdict() -> None:
    assert finding_from(ContainmentResult(End.FINISHED, result=PASSED)) == Finding(Verdict.PASSED)


def test_a_hang_names_the_call_and_what_came_before() -> None:
    finding = finding_from(
        ContainmentResult(
            End.HANG,
            call_kind=Call.END,
            call_name="shutdown()",
            call_history="Pool(max_workers=2), submit(), shutdown()",
            call_s=6.25,
            stacks="Thread 1",
        )
    )
    assert finding.message == (
        "expected shutdown() to return; actual: it had not after 6.2 s "
        "(calls: Pool(max_workers=2), submit(), shutdown())"
    )
    assert finding.failure_mode is FailureMode.HUNG
    assert finding.hung_call == Call.END
    assert "Thread 1" in finding.evidence


@pytest.mark.parametrize("end", [end for end in End if end not in (End.HANG, End.PROCESSES)])
def test_every_other_end_is_a_failure_that_says_what_happened(end: End) -> None:
    finding = finding_from(ContainmentResult(end, detail="some detail", call_name="start()"))
    assert finding.verdict is Verdict.FAILED
    assert finding.failure_mode is FailureMode.DIED
    assert finding.expected
    assert finding.actual
    assert finding.hung_call == ""


def test_too_many_processes_are_a_failure_mode_of_their_own() -> None:
    finding = finding_from(ContainmentResult(End.PROCESSES, detail="266", call_name="heartbeat()"))
    assert finding.failure_mode is FailureMode.CROWDED
    assert finding.message == (
        "expected a process count bounded by parallelism; actual: 266 processes in heartbeat()"
    )


@pytest.mark.parametrize(
    "verdict", [Verdict.PASSED, Verdict.NOT_APPLICABLE, Verdict.INCONCLUSIVE, Verdict.BLOCKED], ids=str
)
def test_what_cannot_be_killed_fails_the_rule_by_name(verdict: Verdict) -> None:
    result = Finding(verdict, actual="a reason").as_dict()
    finding = finding_from(
        ContainmentResult(End.FINISHED, result=result, survivors=("7 (parent 1): stuck", "8 (parent 7): too"))
    )
    assert finding.verdict is Verdict.FAILED
    assert finding.actual == "2 survived SIGKILL, such as 7 (parent 1): stuck"
    assert finding.survivors == ("7 (parent 1): stuck", "8 (parent 7): too")
    assert "8 (parent 7): too" in finding.evidence


def test_a_failure_stays_what_it_is_whatever_survives() -> None:
    failed = Finding(Verdict.FAILED, expected="this", actual="that", evidence="a traceback")
    finding = finding_from(ContainmentResult(End.FINISHED, result=failed.as_dict(), survivors=("7: stuck",)))
    assert (finding.expected, finding.actual) == ("this", "that")
    assert "a traceback" in finding.evidence
    assert "7: stuck" in finding.evidence


@pytest.mark.parametrize(
    ("number", "verdict", "mode"),
    [(errno.EBADF, Verdict.FAILED, FailureMode.CLOSED), (errno.ENOSPC, Verdict.INCONCLUSIVE, None)],
)
def test_a_closed_descriptor_is_a_failure_and_any_other_error_of_the_suite_is_none(
    number: int, verdict: Verdict, mode: FailureMode | None
) -> None:
    def body(trial: object) -> None:
        raise OSError(number, os.strerror(number))

    trial = SimpleNamespace(calls="end()", measurements={}, programs_not_run=0, patience=Patience())
    finding = evaluate_rule(body, trial)  # type: ignore[arg-type]
    assert (finding.verdict, finding.failure_mode) == (verdict, mode)


def test_what_was_left_behind_is_told_of_a_pass_as_well() -> None:
    finding = finding_from(ContainmentResult(End.FINISHED, result=PASSED, left_behind=("7: a daemon",)))
    assert finding.verdict is Verdict.PASSED
    assert finding.left_behind == ("7: a daemon",)


def test_a_result_survives_its_way_through_json() -> None:
    result = ContainmentResult(End.TIMEOUT, tree=("1", "2"), left_behind=("2",), survivors=("3",), result={})
    assert ContainmentResult.from_dict(asdict(result)) == result


def test_control_characters_of_an_executor_are_shown_and_not_sent() -> None:
    finding = printable(Finding(Verdict.FAILED, actual="a\x1b[31m\ud800"))
    assert finding.actual == "a\\x1b[31m\\ud800"
