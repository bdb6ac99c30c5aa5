"""Programs of chance: the same seed makes the same ones, and what one found can be performed again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import Command

from executor_conformance.harness import exploring
from executor_conformance.harness.calibration import Budgets
from executor_conformance.harness.exploring import Breach
from executor_conformance.harness.programs import DOINGS, Performance, Program, Step

RULE = "model.any-order-keeps-the-promises"
BROKEN = "fixtures.broken.model:DropsTheThirdTry"


class FakeTrial:
    """What the explorer asks of a trial, when nothing is performed."""

    budgets = Budgets(4.0, 0.06, 5.0, 6.0, 0.25)
    programs = 200


def explored(monkeypatch: pytest.MonkeyPatch, seed: int, kills: bool, breaks: Any = None) -> list[Program]:
    performed: list[Program] = []

    def perform(_: object, program: Program, patience: float = 1.0) -> Breach | None:
        performed.append(program)
        return breaks(program) if breaks is not None else None

    monkeypatch.setattr(exploring, "perform", perform)
    explorer = exploring.explore(FakeTrial(), kills=kills, seed=seed)  # type: ignore[arg-type]
    if breaks is not None:
        shrunk = explorer.shrunk()
        assert shrunk is not None
        return [shrunk.program]
    return performed


@pytest.mark.parametrize("kills", [False, True])
def test_the_same_seed_makes_the_same_programs(monkeypatch: pytest.MonkeyPatch, kills: bool) -> None:
    first = explored(monkeypatch, 7, kills)
    assert len(first) >= 10
    assert explored(monkeypatch, 7, kills) == first
    assert explored(monkeypatch, 8, kills) != first


def test_programs_do_everything_that_there_is_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    done = {
        step.do
        for seed in range(6)
        for kills in (False, True)
        for program in explored(monkeypatch, seed, kills)
        for step in program.steps
    }
    assert done == set(DOINGS)
    assert all(hasattr(Performance, f"_do_{do.replace('-', '_')}") for do in DOINGS)


def test_what_breaks_a_promise_is_made_short(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(program: Program) -> Breach | None:
        wanted = ["hold", "fail"]
        found = [step.do for step in program.steps if step.do in wanted]
        for do in found:
            if wanted and do == wanted[0]:
                wanted.pop(0)
        return None if wanted else Breach(program, "a.promise", "", "seen")

    (program,) = explored(monkeypatch, 1, False, breaks)
    assert [step.do for step in program.steps] == ["hold", "fail"]


@pytest.mark.parametrize("parallelism", [0, 2])
def test_a_program_survives_being_written_down(parallelism: int) -> None:
    program = Program(parallelism, (Step("hold"), Step("kill", 1), Step("drain-dag", dag="b")))
    assert Program.from_dict(json.loads(json.dumps(program.as_dict()))) == program


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ({"parallelism": -1, "steps": []}, "parallelism"),
        ({"parallelism": True, "steps": []}, "parallelism"),
        ({"parallelism": 1, "steps": {}}, "steps"),
        ({"parallelism": 1, "steps": [{"do": "jump"}]}, "step 1"),
        ({"parallelism": 1, "steps": [{"do": "hold"}, {"do": "hold", "task": -1}]}, "step 2"),
        ({"parallelism": 1, "steps": [{"do": "hold", "dag": "c"}]}, "step 1"),
    ],
)
def test_what_is_no_program_is_told(data: dict[str, Any], hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        Program.from_dict(data)


def test_a_breach_is_shown_written_down_and_replayed(judge: Command) -> None:
    judged = judge(f"--executor={BROKEN}", "-k", RULE, "--conformance-programs=200")
    assert list(judged.rules("failed")) == [RULE], judged.output
    assert "the next try of task 1 is submitted" in judged.output
    assert "pytest --replay=replay-any-order-keeps-the-promises.json" in judged.output

    replayed = judge("--replay=replay-any-order-keeps-the-promises.json")
    assert replayed.status == 1, replayed.output
    assert list(replayed.rules()) == [RULE]

    mended = judge(
        "--replay=replay-any-order-keeps-the-promises.json", "--executor=executor_reference:LocalExecutor"
    )
    assert mended.status == 0, mended.output


def written(rule: str, steps: object = ()) -> str:
    return json.dumps({"replay": 1, "rule": rule, "program": {"parallelism": 1, "steps": steps}})


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (None, "No such file"),
        ("not json", "Expecting value"),
        ("{}", "it is no replay"),
        ('{"replay": 1, "rule": "model.any-odrer", "program": {}}', "did you mean"),
        (
            '{"replay": 1, "rule": "states.a-new-try-runs", "program": {"parallelism": 1, "steps": []}}',
            "not judged",
        ),
        (f'{{"replay": 1, "rule": "{RULE}", "program": {{"parallelism": 1, "steps": [1]}}}}', "step 1"),
        (
            f'{{"replay": 1, "rule": "{RULE}", "program": {{"parallelism": 1, "steps": []}}}}',
            "names no executor",
        ),
    ],
)
def test_what_is_no_replay_is_a_usage_error(judge: Command, content: str | None, hint: str) -> None:
    if content is not None:
        (judge.folder / "it.json").write_text(content)
    process = judge.start("--replay=it.json")
    stdout, stderr = process.communicate()
    assert process.returncode == 4, stdout + stderr
    assert hint in stdout + stderr


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("--conformance-seed=-1", "not a whole number"),
        ("--conformance-programs=0", "judge nothing"),
        ("--conformance-programs=many", "not a whole number"),
    ],
)
def test_a_wrong_number_is_a_usage_error(judge: Command, option: str, hint: str) -> None:
    process = judge.start("--executor=executor_reference:LocalExecutor", option)
    stdout, stderr = process.communicate()
    assert process.returncode == 4, stdout + stderr
    assert hint in stdout + stderr


def test_the_seed_is_shown_and_taken(judge: Command) -> None:
    judged = judge(
        "--executor=executor_reference:LocalExecutor",
        *("-k", RULE, "-n", "2", "--conformance-seed=99", "--conformance-programs=2"),
    )
    assert "--conformance-seed=99" in judged.output
    (rule,) = [rule for rule in judged.report["rules"] if rule["id"] == RULE]
    assert rule["measurements"]["seed"] == 99
