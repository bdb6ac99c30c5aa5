"""Tests of the process that runs early rules beside the others."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from executor_conformance.discovery import discover
from executor_conformance.harness import processes
from executor_conformance.harness.calibration import calibrate
from executor_conformance.harness.context import RunContext
from executor_conformance.harness.target import import_target
from executor_conformance.judging import beside
from executor_conformance.judging.beside import Beside
from executor_conformance.judging.judge import Judge
from executor_conformance.judging.runner import Runner
from executor_conformance.judging.store import VerdictStore
from executor_conformance.requirements import Capability, Observation, TaskLocation
from executor_conformance.rules import Rule, catalogue
from executor_conformance.verdicts import Finding, Verdict

EARLY = [rule for rule in catalogue().values() if rule.turn == "early"]
ALONE = [rule for rule in catalogue().values() if rule.turn == "alone"]
PASSED = Finding(Verdict.PASSED)
COEXIST = "lifecycle.two-executors-coexist-in-one-process"
IN_ORDER = catalogue()["states.an-exception-is-a-failure"]


def always(rule: Rule) -> bool:
    return True


def by_this_process(rule: Rule) -> Finding:
    """A finding that says which process has run the rule."""
    return Finding(Verdict.PASSED, actual=str(os.getpid()), measurements={"rule": rule.id})


@pytest.fixture(autouse=True)
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "1")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Beside]]:
    """Starts on early rules, and stops at the end of the test."""
    made = []

    def start(run: Callable[[Rule], Finding]) -> Beside:
        made.append(Beside(lambda rule: run(rule) if rule.id in catalogue() else PASSED, str(tmp_path)))
        made[-1].start(catalogue().values(), always)
        return made[-1]

    yield start
    for one in made:
        one.stop()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe at which a rule waits until the test writes."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_an_early_rule_runs_in_another_process_and_others_run_here(
    started: Callable[..., Beside], pipe: tuple[int, int]
) -> None:
    here = os.getpid()

    def run(rule: Rule) -> Finding:
        if os.getpid() != here:
            os.write(pipe[1], b".")
        return by_this_process(rule)

    one = started(run)
    assert os.read(pipe[0], 1) == b"."
    assert one.run(EARLY[0]).actual != str(here)
    assert one.run(IN_ORDER).actual == str(here)


def test_each_rule_is_run_once(started: Callable[..., Beside], tmp_path: Path) -> None:
    log = tmp_path / "log"

    def run(rule: Rule) -> Finding:
        with log.open("a") as file:
            file.write(f"{rule.id}\n")
        return Finding(Verdict.PASSED)

    one = started(run)
    for rule in EARLY:
        one.run(rule)
    assert sorted(log.read_text().split()) == sorted(rule.id for rule in EARLY)


def test_a_rule_that_is_judged_again_runs_here(started: Callable[..., Beside]) -> None:
    one = started(by_this_process)
    one.run(EARLY[0])
    assert one.run(EARLY[0]).actual == str(os.getpid())


def test_if_its_owner_is_killed_a_rule_runs_here(started: Callable[..., Beside]) -> None:
    here = os.getpid()

    def run(rule: Rule) -> Finding:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return by_this_process(rule)

    one = started(run)
    assert {one.run(rule).actual for rule in EARLY} == {str(here)}


def test_a_rule_that_runs_alone_waits_for_all_others(
    started: Callable[..., Beside], pipe: tuple[int, int]
) -> None:
    here = os.getpid()

    def run(rule: Rule) -> Finding:
        if os.getpid() != here:
            os.write(pipe[1], b".")
        return by_this_process(rule)

    one = started(run)
    one.run(ALONE[0])
    assert os.read(pipe[0], 100) == b"." * len(EARLY)


def test_stopping_ends_the_rule_in_an_orderly_way(
    started: Callable[..., Beside], pipe: tuple[int, int]
) -> None:
    begun, ended = pipe

    def run(rule: Rule) -> Finding:
        os.write(ended, b"b")
        try:
            select.select([], [], [])
        finally:
            os.write(ended, b"e")
        return Finding(Verdict.PASSED)

    one = started(run)
    assert os.read(begun, 1) == b"b"
    process = one._process
    one.stop()
    assert os.read(begun, 100) == b"e"
    assert process not in processes.children(os.getpid())


def test_only_one_process_of_a_run_starts(started: Callable[..., Beside]) -> None:
    first, second = started(by_this_process), started(by_this_process)
    assert [first._process > 0, second._process] == [True, 0]
    assert second.run(EARLY[-1]).verdict is Verdict.PASSED


def test_it_starts_nothing_where_two_hosts_are_in_each_others_way(tmp_path: Path) -> None:
    def run(rule: Rule) -> Finding:
        return by_this_process(rule) if rule.id in catalogue() else Finding(Verdict.FAILED)

    one = Beside(run, str(tmp_path))
    one.start(catalogue().values(), always)
    assert {one.run(rule).actual for rule in EARLY} == {str(os.getpid())}


@pytest.mark.parametrize(
    ("processors", "workers", "quota", "spare"),
    [
        (2, "1", "", True),
        (2, "1", "max 100000", True),
        (2, "1", "100000 100000", False),
        (2, "2", "", False),
        (4, "2", "300000 100000", True),
        (1, "1", "", False),
    ],
)
def test_a_processor_is_spare_if_no_process_runs_rules_on_it(
    processors: int, workers: str, quota: str, spare: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(processors)))
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", workers)
    if quota:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    assert beside.has_spare_processor(tmp_path) == spare


def test_without_a_spare_processor_only_rules_that_wait_run_beside(
    started: Callable[..., Beside], pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    here = os.getpid()

    def run(rule: Rule) -> Finding:
        if os.getpid() != here:
            os.write(pipe[1], f"{rule.id}\n".encode())
        return by_this_process(rule)

    one = started(run)
    one.run(ALONE[0])
    beside_others = os.read(pipe[0], 10_000).decode().split()
    assert beside_others == [rule.id for rule in EARLY if rule.budget != "programs"]


class Noted(Beside):
    """Only notes what it should start on."""

    def __init__(self, directory: Path) -> None:
        super().__init__(by_this_process, str(directory))
        self.given: list[str] | None = None

    def start(self, rules: Iterable[Rule], is_still_to_run: Callable[[Rule], bool]) -> None:
        early = [rule.id for rule in rules if rule.turn == "early" and is_still_to_run(rule)]
        self.given = self.given or early


@pytest.mark.parametrize(
    ("verdict", "location", "lacks", "starts"),
    [
        (Verdict.PASSED, TaskLocation.LOCAL_PROCESSES, {}, True),
        (Verdict.PASSED, TaskLocation.HOST, {}, True),
        (Verdict.PASSED, TaskLocation.ELSEWHERE, {}, False),
        (Verdict.PASSED, TaskLocation.LOCAL_PROCESSES, {Capability.OWN_WORKERS: "a service"}, False),
        (Verdict.FAILED, TaskLocation.LOCAL_PROCESSES, {}, False),
        (Verdict.NOT_APPLICABLE, TaskLocation.LOCAL_PROCESSES, {}, False),
        (None, TaskLocation.LOCAL_PROCESSES, {}, False),
    ],
)
def test_it_starts_only_if_executors_are_known_to_coexist(
    verdict: Verdict | None,
    location: TaskLocation,
    lacks: Mapping[Capability, str],
    starts: bool,
    tmp_path: Path,
) -> None:
    store, noted = VerdictStore(str(tmp_path)), Noted(tmp_path)
    selected = frozenset({IN_ORDER.id, *(rule.id for rule in EARLY)})
    judge = Judge(by_this_process, store, selected, location=location, lacks_itself=lacks, beside=noted)
    if verdict is not None:
        store.save(COEXIST, Finding(verdict))
    judge.judge(IN_ORDER)
    assert (noted.given is not None) == starts


def test_it_runs_what_is_selected_and_applicable(tmp_path: Path) -> None:
    store, noted = VerdictStore(str(tmp_path)), Noted(tmp_path)
    selected = frozenset({IN_ORDER.id, *(rule.id for rule in EARLY[1:])})
    judge = Judge(by_this_process, store, selected, location=TaskLocation.HOST, beside=noted)
    store.save(COEXIST, Finding(Verdict.PASSED))
    judge.judge(IN_ORDER)
    assert noted.given == [rule.id for rule in EARLY[1:] if Observation.LOCAL_PROCESSES not in rule.needs]


@pytest.mark.parametrize(
    ("target", "verdict"),
    [
        ("executor_reference:LocalExecutor", Verdict.PASSED),
        ("fixtures.legal.names:NamesItsSocketByACounter", Verdict.FAILED),
    ],
)
def test_forks_with_names_made_alike_are_noticed(target: str, verdict: Verdict, tmp_path: Path) -> None:
    calibration = calibrate()
    found = discover(
        target, named_adapter=None, options={}, calibration=calibration, scratch=str(tmp_path / "first")
    )
    context = RunContext(
        import_target(target, found.family, {}, str(tmp_path)),
        found.facts.budgets(calibration),
        facts=found.facts,
    )
    runner = Runner(context, VerdictStore(str(tmp_path)), str(tmp_path))
    assert runner.run(beside._two_hosts()).verdict is verdict


def test_rules_that_count_shared_pages_run_alone() -> None:
    """A process that was forked from pytest as well would have a share in each of them."""
    count = {rule.id for rule in catalogue().values() if _counts_shared_pages(rule)}
    assert count <= {rule.id for rule in ALONE}


def _counts_shared_pages(rule: Rule) -> bool:
    names = [*rule.body.__code__.co_names]
    for constant in rule.body.__code__.co_consts:
        names += getattr(constant, "co_names", ())
    return "relatives" in names
