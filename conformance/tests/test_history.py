"""Tests of ``check-history``: the violations in an event log, with their lines."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from executor_conformance.__main__ import main
from executor_conformance.history.checker import (
    Event,
    HistoryChecker,
    Kind,
    NotAnEventLog,
    Violation,
    check_lines,
)
from executor_conformance.rules import catalogue

KINDS = {kind[:2]: kind for kind in map(str, Kind)}


def history(text: str) -> list[str]:
    """Return the lines of an event log, from a short form: ``su a, st a, fi a success, ob a failed``."""
    lines = []
    for part in text.split(","):
        kind, *rest = part.split()
        event: dict[str, object] = {"event": KINDS[kind]}
        if rest:
            event["key"] = ["dag", rest[0], "run", 1, -1]
        if len(rest) > 1:
            event["state"] = rest[1]
        lines.append(json.dumps(event))
    return lines


def violations(text: str, parallelism: int = 0, starts_are_known: bool = True) -> list[Violation]:
    return list(check_lines(history(text), HistoryChecker(parallelism, starts_are_known)))


@pytest.mark.parametrize(
    "text",
    [
        "su a, st a, fi a success, ob a success, en",
        "su a, st a, fi a failed, ob a failed, en",
        "su a, wi a, en",
        "su a, st a, wi a, su a, st a, fi a success, ob a success, en",
        "su a, ob a queued, st a, ob a running, fi a success, ob a success",
        "su a, st a, ki a, ob a failed, en",
        "su a, ob a failed, en",  # could not be started
        "su a, st a, fi a, ob a failed",  # the outcome is not known
        "su a, st a",  # a truncated log
        "su a, su a, st a, fi a success, ob a success",  # submitted again in flight, but run once
        "su a, st a, fi a success, ob a success, su a, st a, fi a success, ob a success",
        "su a, su b, st a, fi a success, st b, ob a success, fi b success, ob b success",
    ],
)
def test_correct_history_has_no_violation(text: str) -> None:
    assert violations(text, parallelism=1) == []


@pytest.mark.parametrize(
    ("text", "rule", "lines"),
    [
        ("su a, st a, ob a success", "states.no-terminal-event-before-the-task-ends", (2, 3)),
        ("su a, ob a success", "states.no-terminal-event-before-the-task-ends", (1, 2)),
        ("su a, ob a failed, st a", "states.a-burst-is-reported-completely", (3,)),
        ("su a, st a, fi a failed, ob a success", "states.an-exception-is-a-failure", (3, 4)),
        ("su a, st a, fi a success, ob a failed", "states.exit-status-decides-the-outcome", (3, 4)),
        ("su a, st a, ki a, ob a success", "faults.a-killed-worker-fails-its-task", (3, 4)),
        ("su a, st a, ki a, st a", "faults.a-task-is-not-rerun-after-a-worker-death", (1, 2, 3, 4)),
        ("su a, st a, fi a success, st a", "states.a-burst-is-reported-completely", (1, 2, 3, 4)),
        ("su a, st a, st a", "states.no-concurrent-runs-of-one-key", (1, 2, 3)),
        ("su a, st a, fi a success, ob a success, ob a success", "states.exactly-one-terminal-event", (5,)),
        ("ob a running", "states.exactly-one-terminal-event", (1,)),
        ("su a, ob a running, ob a queued", "states.only-legal-transitions", (2, 3)),
        ("su a, ob a running, ob a running", "states.only-legal-transitions", (2, 3)),
        ("su a, en", "shutdown.end-finishes-queued-tasks", (1, 2)),
        ("su a, st a, en", "shutdown.end-finishes-running-tasks", (1, 2, 3)),
        ("su a, st a, ki a, en", "faults.a-killed-worker-fails-its-task", (1, 2, 3, 4)),
        ("en, su a", "lifecycle.submit-after-end-is-rejected", (1, 2)),
        ("su a, su b, st a, st b", "parallelism.at-most-n-tasks-run-at-once", (4,)),
    ],
)
def test_violation_has_its_rule_and_lines(text: str, rule: str, lines: tuple[int, ...]) -> None:
    (violation,) = violations(text, parallelism=1)
    assert (violation.rule, violation.lines) == (rule, lines)
    assert rule in catalogue()


def test_success_without_a_start_is_legal_if_starts_are_not_logged() -> None:
    assert violations("su a, ob a success", starts_are_known=False) == []


def test_slot_is_free_after_a_kill_and_after_the_end() -> None:
    assert violations("su a, su b, su c, st a, ki a, st b, fi b success, st c", parallelism=1) == []


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("{", "line 2 is not JSON"),
        ("[]", "line 2 is not an object"),
        ('{"event": "begun"}', "event 'begun' is not one of submitted, started"),
        ('{"event": "observed", "key": "a", "state": "done"}', "state 'done' is not one of queued, running"),
        ('{"event": "finished", "key": "a", "state": "queued"}', "not as 'queued'"),
        ('{"event": "started"}', "key None is neither a string"),
        ('{"event": "started", "key": [{}]}', "key [{}] is neither a string"),
    ],
)
def test_invalid_event_is_reported_with_its_line(line: str, hint: str) -> None:
    with pytest.raises(NotAnEventLog) as error:
        list(check_lines(["", line], HistoryChecker()))
    assert hint in str(error.value)


def test_memory_does_not_grow_with_ended_tasks() -> None:
    checker = HistoryChecker()
    lines = history("su a, st a, fi a success, ob a success")
    for _ in check_lines(lines * 10, checker):
        raise AssertionError("the history is correct")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(1, 5000):
        for kind, state in ((Kind.SUBMITTED, None), (Kind.STARTED, None), (Kind.FINISHED, "success")):
            checker.take(Event(kind, number, state, number))
        assert checker.take(Event(Kind.OBSERVED, number, "success", number)) == []
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert checker.in_flight == 0
    assert grown < 20_000


class TestCommand:
    def test_correct_history(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["check-history", write(tmp_path, "su a, st a, fi a success, ob a success, su b")]) == 0
        assert (
            "5 events (2 submitted, 1 started, 1 finished, 1 observed); 1 still in flight; 0 violations"
            in (capsys.readouterr().out)
        )

    def test_violations_are_shown_up_to_a_limit_and_counted(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = write(tmp_path, "su a, su b, su c, st a, st b, st c")
        assert main(["check-history", path, "--parallelism=1", "--show=1"]) == 1
        out = capsys.readouterr().out
        assert "line 5: parallelism.at-most-n-tasks-run-at-once: 2 tasks ran at once" in out
        assert "... 1 more" in out

    @pytest.mark.parametrize(
        ("arguments", "hint"),
        [
            (["check-history", "nowhere.jsonl"], "cannot read 'nowhere.jsonl'"),
            (["check-history", "/dev/null"], "it contains no event"),
        ],
    )
    def test_unreadable_history_is_a_usage_error(
        self, arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(arguments) == 4
        assert hint in capsys.readouterr().err

    @pytest.mark.parametrize("arguments", [["chek-history"], ["check-history", "x", "--parallelism=-1"], []])
    def test_mistyped_command_is_a_usage_error(self, arguments: list[str]) -> None:
        with pytest.raises(SystemExit) as error:
            main(arguments)
        assert error.value.code == 4


def write(folder: Path, text: str) -> str:
    path = folder / "events.jsonl"
    path.write_text("\n".join(history(text)) + "\n", encoding="utf-8")
    return str(path)
