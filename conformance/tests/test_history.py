"""The offline judge: what a history shows to be broken, with the lines that show it."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from executor_conformance.__main__ import main
from executor_conformance.history import Event, HistoryJudge, Kind, NotAHistory, Offence, judge_lines
from executor_conformance.rules import catalogue

KINDS = {kind[:2]: kind for kind in map(str, Kind)}


def history(text: str) -> list[str]:
    """``su a, st a, fi a success, ob a failed``: the events of a history, as lines."""
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


def offences(text: str, parallelism: int = 0, starts_are_known: bool = True) -> list[Offence]:
    return list(judge_lines(history(text), HistoryJudge(parallelism, starts_are_known)))


@pytest.mark.parametrize(
    "text",
    [
        "su a, st a, fi a success, ob a success, en",
        "su a, st a, fi a failed, ob a failed, en",
        "su a, wi a, en",
        "su a, st a, wi a, su a, st a, fi a success, ob a success, en",
        "su a, ob a queued, st a, ob a running, fi a success, ob a success",
        "su a, st a, ki a, ob a failed, en",
        "su a, ob a failed, en",  # it could not be started
        "su a, st a, fi a, ob a failed",  # how it ended is not known
        "su a, st a",  # cut off in the middle
        "su a, su a, st a, fi a success, ob a success",  # submitted again in flight, and run once
        "su a, st a, fi a success, ob a success, su a, st a, fi a success, ob a success",
        "su a, su b, st a, fi a success, st b, ob a success, fi b success, ob b success",
    ],
)
def test_what_is_right_is_no_offence(text: str) -> None:
    assert offences(text, parallelism=1) == []


@pytest.mark.parametrize(
    ("text", "rule", "lines"),
    [
        ("su a, st a, ob a success", "states.no-terminal-event-before-the-end", (2, 3)),
        ("su a, ob a success", "states.no-terminal-event-before-the-end", (1, 2)),
        ("su a, ob a failed, st a", "states.a-burst-loses-nothing", (3,)),
        ("su a, st a, fi a failed, ob a success", "states.an-exception-is-a-failure", (3, 4)),
        ("su a, st a, fi a success, ob a failed", "states.every-exit-status-tells", (3, 4)),
        ("su a, st a, ki a, ob a success", "faults.a-killed-worker-fails-its-task", (3, 4)),
        ("su a, st a, ki a, st a", "faults.a-killed-workers-task-is-not-run-again", (1, 2, 3, 4)),
        ("su a, st a, fi a success, st a", "states.a-burst-loses-nothing", (1, 2, 3, 4)),
        ("su a, st a, st a", "states.a-key-in-flight-never-runs-twice-at-once", (1, 2, 3)),
        ("su a, st a, fi a success, ob a success, ob a success", "states.exactly-one-terminal-event", (5,)),
        ("ob a running", "states.exactly-one-terminal-event", (1,)),
        ("su a, ob a running, ob a queued", "states.only-legal-transitions", (2, 3)),
        ("su a, ob a running, ob a running", "states.only-legal-transitions", (2, 3)),
        ("su a, en", "shutdown.accepted-work-is-finished", (1, 2)),
        ("su a, st a, en", "shutdown.running-tasks-are-finished", (1, 2, 3)),
        ("su a, st a, ki a, en", "faults.a-killed-worker-fails-its-task", (1, 2, 3, 4)),
        ("en, su a", "lifecycle.submit-after-end-is-refused", (1, 2)),
        ("su a, su b, st a, st b", "parallelism.never-more-than-n", (4,)),
    ],
)
def test_an_offence_is_named_with_its_lines(text: str, rule: str, lines: tuple[int, ...]) -> None:
    (offence,) = offences(text, parallelism=1)
    assert (offence.rule, offence.lines) == (rule, lines)
    assert rule in catalogue()


def test_a_success_without_a_start_is_none_where_starts_are_not_logged() -> None:
    assert offences("su a, ob a success", starts_are_known=False) == []


def test_a_slot_is_free_again_after_a_kill_and_after_an_end() -> None:
    assert offences("su a, su b, su c, st a, ki a, st b, fi b success, st c", parallelism=1) == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2 is not JSON"),
        ("[]", "line 2 is not an object"),
        ('{"event": "begun"}', "event 'begun' is none of submitted, started"),
        ('{"event": "observed", "key": "a", "state": "done"}', "state 'done' is none of queued, running"),
        ('{"event": "finished", "key": "a", "state": "queued"}', "not as 'queued'"),
        ('{"event": "started"}', "key None is neither text"),
        ('{"event": "started", "key": [{}]}', "key [{}] is neither text"),
    ],
)
def test_what_is_no_event_is_told_with_its_line(line: str, told: str) -> None:
    with pytest.raises(NotAHistory) as error:
        list(judge_lines(["", line], HistoryJudge()))
    assert told in str(error.value)


def test_nothing_is_kept_of_what_is_over() -> None:
    judge = HistoryJudge()
    lines = history("su a, st a, fi a success, ob a success")
    for _ in judge_lines(lines * 10, judge):
        raise AssertionError("it is right")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(1, 5000):
        for kind, state in ((Kind.SUBMITTED, None), (Kind.STARTED, None), (Kind.FINISHED, "success")):
            judge.take(Event(kind, number, state, number))
        assert judge.take(Event(Kind.OBSERVED, number, "success", number)) == []
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert judge.in_flight == 0
    assert grown < 20_000


class TestCommand:
    def test_a_clean_history(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["check-history", write(tmp_path, "su a, st a, fi a success, ob a success, su b")]) == 0
        assert "5 events (2 submitted, 1 started, 1 finished, 1 observed); 1 still in flight; 0 offences" in (
            capsys.readouterr().out
        )

    def test_offences_are_shown_up_to_a_limit_and_counted(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = write(tmp_path, "su a, su b, su c, st a, st b, st c")
        assert main(["check-history", path, "--parallelism=1", "--show=1"]) == 1
        out = capsys.readouterr().out
        assert "line 5: parallelism.never-more-than-n: 2 tasks ran at once" in out
        assert "... 1 more" in out

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["check-history", "nowhere.jsonl"], "'nowhere.jsonl' cannot be read"),
            (["check-history", "/dev/null"], "there is no event in it"),
        ],
    )
    def test_what_cannot_be_read_is_a_usage_error(
        self, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(arguments) == 4
        assert told in capsys.readouterr().err

    @pytest.mark.parametrize("arguments", [["chek-history"], ["check-history", "x", "--parallelism=-1"], []])
    def test_a_mistyped_command_is_a_usage_error(self, arguments: list[str]) -> None:
        with pytest.raises(SystemExit) as error:
            main(arguments)
        assert error.value.code == 4


def write(folder: Path, text: str) -> str:
    path = folder / "events.jsonl"
    path.write_text("\n".join(history(text)) + "\n", encoding="utf-8")
    return str(path)
