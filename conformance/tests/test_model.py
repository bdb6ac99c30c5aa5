"""Random programs: the same seed generates the same ones, and a failing one can be replayed."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Command

from executor_conformance.harness.calibration import Budgets
from executor_conformance.programs import exploring, generating
from executor_conformance.programs.exploring import Counterexample
from executor_conformance.programs.performance import Performance
from executor_conformance.programs.program import DOINGS, Program, Step

RULE = "model.random-sequences-keep-every-invariant"
BROKEN = "fixtures.broken.model:DropsTheThirdTry"


class FakeTrial:
    """The part of a trial that the explorer uses if no program is run."""

    budgets = Budgets(4.0, 0.06, 5.0, 6.0, 0.25, scale=60.0)  # the number of programs does not depend on time
    context = SimpleNamespace(programs=60, fixed="", excused=frozenset({"an.excused-rule"}))

    @staticmethod
    def slots(usual: int) -> int:
        return usual


def explore(monkeypatch: pytest.MonkeyPatch, seed: int, kills: bool, breaks: Any = None) -> list[Program]:
    """The programs of this seed or, with ``breaks``, the one that is left after shrinking."""
    performed: list[Program] = []

    def perform(_: object, program: Program, patience: float = 1.0) -> Counterexample | None:
        performed.append(program)
        return breaks(program) if breaks is not None else None

    monkeypatch.setattr(exploring, "perform", perform)
    explorer = generating.explore(FakeTrial(), kills=kills, seed=seed)  # type: ignore[arg-type]
    if breaks is not None:
        shrunk = explorer.shrunk()
        assert shrunk is not None
        return [shrunk.program]
    return performed


@pytest.mark.parametrize(("how_often", "blocker"), [(3, ""), (1, "an.excused-rule")])
def test_violations_of_a_failed_rule_are_no_failure_of_a_program(
    how_often: int, blocker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They block the rule only if they leave too few programs that could violate another one."""
    numbers = itertools.count(1)

    def perform(_: object, program: Program, patience: float = 1.0) -> Counterexample | None:
        is_excused = next(numbers) % how_often == 0
        return Counterexample(program, "an.excused-rule", "", "seen") if is_excused else None

    monkeypatch.setattr(exploring, "perform", perform)
    explorer = generating.explore(FakeTrial(), kills=False, seed=1)  # type: ignore[arg-type]
    assert explorer.shrunk() is None
    assert explorer.excused
    assert explorer.blocker == blocker


def test_programs_for_which_there_is_no_time_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exploring, "perform", lambda *_: None)
    trial = FakeTrial()
    trial.budgets = replace(FakeTrial.budgets, scale=0.0)
    explorer = generating.explore(trial, kills=False, seed=1)  # type: ignore[arg-type]
    assert explorer.performed == 0
    assert explorer.not_run > 10
    assert explorer.ran_few


@pytest.mark.parametrize("kills", [False, True])
def test_the_same_seed_generates_the_same_programs(monkeypatch: pytest.MonkeyPatch, kills: bool) -> None:
    first = explore(monkeypatch, 7, kills)
    assert len(first) >= 10
    assert explore(monkeypatch, 7, kills) == first
    assert explore(monkeypatch, 8, kills) != first


def test_programs_use_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    done = {
        step.do
        for seed in range(6)
        for kills in (False, True)
        for program in explore(monkeypatch, seed, kills)
        for step in program.steps
    }
    assert done == set(DOINGS)
    assert all(hasattr(Performance, f"_do_{do.replace('-', '_')}") for do in DOINGS)


def test_a_failing_program_is_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(program: Program) -> Counterexample | None:
        wanted = ["hold", "fail"]
        found = [step.do for step in program.steps if step.do in wanted]
        for do in found:
            if wanted and do == wanted[0]:
                wanted.pop(0)
        return None if wanted else Counterexample(program, "a.promise", "", "seen")

    (program,) = explore(monkeypatch, 1, False, breaks)
    assert [step.do for step in program.steps] == ["hold", "fail"]


@pytest.mark.parametrize("parallelism", [0, 2])
def test_a_program_survives_serialization(parallelism: int) -> None:
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
def test_an_invalid_program_is_rejected(data: dict[str, Any], hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        Program.from_dict(data)


def test_a_failing_program_is_reported_saved_and_replayed(judge: Command) -> None:
    # With this seed, one of the first programs tries a task three times.
    judged = judge(f"--executor={BROKEN}", "-k", RULE, "--conformance-programs=200", "--conformance-seed=2")
    assert list(judged.rules("failed")) == [RULE], judged.output
    assert "submit a retry of task 1" in judged.output
    assert "pytest --replay=replay-random-sequences-keep-every-invariant.json" in judged.output

    replayed = judge("--replay=replay-random-sequences-keep-every-invariant.json")
    assert replayed.status == 1, replayed.output
    assert list(replayed.rules()) == [RULE]

    fixed = judge(
        "--replay=replay-random-sequences-keep-every-invariant.json",
        "--executor=executor_reference:LocalExecutor",
    )
    assert fixed.status == 0, fixed.output


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (None, "No such file"),
        ("not json", "Expecting value"),
        ("{}", "not a replay file"),
        (
            '{"replay": 1, "rule": "model.random-sequences-keep-every-invarint", "program": {}}',
            "did you mean",
        ),
        (
            '{"replay": 1, "rule": "states.an-event-is-returned-once", '
            '"program": {"parallelism": 1, "steps": []}}',
            "does not run random programs",
        ),
        (f'{{"replay": 1, "rule": "{RULE}", "program": {{"parallelism": 1, "steps": [1]}}}}', "step 1"),
        (
            f'{{"replay": 1, "rule": "{RULE}", "program": {{"parallelism": 1, "steps": []}}}}',
            "does not name an executor",
        ),
    ],
)
def test_an_invalid_replay_file_is_a_usage_error(judge: Command, content: str | None, hint: str) -> None:
    if content is not None:
        (judge.folder / "replay.json").write_text(content)
    process = judge.start("--replay=replay.json")
    stdout, stderr = process.communicate()
    assert process.returncode == 4, stdout + stderr
    assert hint in stdout + stderr


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("--conformance-seed=-1", "not a non-negative whole number"),
        ("--conformance-programs=0", "check nothing"),
        ("--conformance-programs=many", "not a non-negative whole number"),
    ],
)
def test_an_invalid_number_is_a_usage_error(judge: Command, option: str, hint: str) -> None:
    process = judge.start("--executor=executor_reference:LocalExecutor", option)
    stdout, stderr = process.communicate()
    assert process.returncode == 4, stdout + stderr
    assert hint in stdout + stderr


def test_the_seed_option_is_used_and_printed(judge: Command) -> None:
    judged = judge(
        "--executor=executor_reference:LocalExecutor",
        *("-k", RULE, "-n", "2", "--conformance-seed=99", "--conformance-programs=2"),
    )
    assert "--conformance-seed=99" in judged.output
    (rule,) = [rule for rule in judged.report["rules"] if rule["id"] == RULE]
    assert rule["measurements"]["seed"] == 99
