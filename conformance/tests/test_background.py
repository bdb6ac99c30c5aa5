"""Tests of the process that runs long rules in the background."""

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
from executor_conformance.judging import background
from executor_conformance.judging.background import Background
from executor_conformance.judging.judge import Judge
from executor_conformance.judging.runner import Runner
from executor_conformance.judging.store import VerdictStore
from executor_conformance.requirements import Capability, Observation, TaskLocation
from executor_conformance.rules import Rule, catalogue
from executor_conformance.verdicts import Finding, Verdict

BACKGROUND = [rule for rule in catalogue().values() if rule.turn == "background"]
ALONE = [rule for rule in catalogue().values() if rule.turn == "alone"]
PASSED = Finding(Verdict.PASSED)
COEXIST = "lifecycle.two-executors-coexist-in-one-process"
IN_ORDER = catalogue()["states.an-exception-is-a-failure"]


def always(rule: Rule) -> bool:
    return True


def by_this_process(rule: Rule) -> Finding:
    """A finding that says which process has run the rule."""
    return Finding(Verdict.PASSED, actual=str(os.getpid()), measurements={"rule": rule.id})


def writing_a_dot(descriptor: int) -> Callable[[Rule], Finding]:
    """Like :func:`by_this_process`; another process than this one writes a dot for each rule."""
    here = os.getpid()

    def run(rule: Rule) -> Finding:
        if os.getpid() != here:
            os.write(descriptor, b".")
        return by_this_process(rule)

    return run


@pytest.fixture(autouse=True)
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "1")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Background]]:
    """Starts the background process, and stops it at the end of the test."""
    made = []

    def start(run: Callable[[Rule], Finding]) -> Background:
        made.append(Background(lambda rule: run(rule) if rule.id in catalogue() else PASSED, str(tmp_path)))
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


def test_a_background_rule_runs_in_another_process_and_others_run_here(
    started: Callable[..., Background], pipe: tuple[int, int]
) -> None:
    one = started(writing_a_dot(pipe[1]))
    assert os.read(pipe[0], 1) == b"."
    assert one.run(BACKGROUND[0]).actual != str(os.getpid())
    assert one.run(IN_ORDER).actual == str(os.getpid())


def test_each_rule_is_run_once(started: Callable[..., Background], tmp_path: Path) -> None:
    log = tmp_path / "log"

    def run(rule: Rule) -> Finding:
        with log.open("a") as file:
            file.write(f"{rule.id}\n")
        return Finding(Verdict.PASSED)

    one = started(run)
    for rule in BACKGROUND:
        one.run(rule)
    assert sorted(log.read_text().split()) == sorted(rule.id for rule in BACKGROUND)


def test_a_rule_that_is_judged_again_runs_here(started: Callable[..., Background]) -> None:
    one = started(by_this_process)
    one.run(BACKGROUND[0])
    assert one.run(BACKGROUND[0]).actual == str(os.getpid())


def test_if_its_owner_is_killed_a_rule_runs_here(started: Callable[..., Background]) -> None:
    here = os.getpid()

    def run(rule: Rule) -> Finding:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return by_this_process(rule)

    one = started(run)
    assert {one.run(rule).actual for rule in BACKGROUND} == {str(here)}


def test_a_rule_that_runs_alone_waits_for_all_others(
    started: Callable[..., Background], pipe: tuple[int, int]
) -> None:
    one = started(writing_a_dot(pipe[1]))
    one.run(ALONE[0])
    assert os.read(pipe[0], 100) == b"." * len(BACKGROUND)


def test_stop_lets_the_rule_clean_up(started: Callable[..., Background], pipe: tuple[int, int]) -> None:
    begun, ended = pipe

    def run(rule: Rule) -> Finding:
        try:
            os.write(ended, b"b")
            select.select([], [], [])
        finally:
            os.write(ended, b"e")
        return PASSED

    one = started(run)
    assert os.read(begun, 1) == b"b"
    process = one._process
    one.stop()
    os.write(ended, b".")  # so that the next line never blocks
    assert os.read(begun, 100) == b"e."
    assert process not in processes.children(os.getpid())


def test_only_one_process_of_a_run_starts(started: Callable[..., Background]) -> None:
    first, second = started(by_this_process), started(by_this_process)
    assert [first._process > 0, second._process] == [True, 0]
    assert second.run(BACKGROUND[-1]).verdict is Verdict.PASSED


def test_it_does_not_start_if_two_hosts_cannot_work_at_once(tmp_path: Path) -> None:
    def run(rule: Rule) -> Finding:
        return by_this_process(rule) if rule.id in catalogue() else Finding(Verdict.FAILED)

    one = Background(run, str(tmp_path))
    one.start(catalogue().values(), always)
    assert {one.run(rule).actual for rule in BACKGROUND} == {str(os.getpid())}


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
    assert background.has_spare_processor(tmp_path) == spare


def test_without_a_spare_processor_only_rules_that_wait_run_in_the_background(
    started: Callable[..., Background], pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    here = os.getpid()

    def run(rule: Rule) -> Finding:
        if os.getpid() != here:
            os.write(pipe[1], f"{rule.id}\n".encode())
        return by_this_process(rule)

    one = started(run)
    one.run(ALONE[0])
    in_background = os.read(pipe[0], 10_000).decode().split()
    assert in_background == [rule.id for rule in BACKGROUND if rule.budget != "programs"]


class Noted(Background):
    """Only records which rules it was given."""

    def __init__(self, directory: Path) -> None:
        super().__init__(by_this_process, str(directory))
        self.given: list[str] | None = None

    def start(self, rules: Iterable[Rule], is_still_to_run: Callable[[Rule], bool]) -> None:
        given = [rule.id for rule in rules if rule.turn == "background" and is_still_to_run(rule)]
        self.given = self.given or given


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
def test_it_starts_only_if_two_executors_were_seen_to_work_at_once(
    verdict: Verdict | None,
    location: TaskLocation,
    lacks: Mapping[Capability, str],
    starts: bool,
    tmp_path: Path,
) -> None:
    store, noted = VerdictStore(str(tmp_path)), Noted(tmp_path)
    selected = frozenset({IN_ORDER.id, *(rule.id for rule in BACKGROUND)})
    judge = Judge(by_this_process, store, selected, location=location, lacks_itself=lacks, background=noted)
    if verdict is not None:
        store.save(COEXIST, Finding(verdict))
    judge.judge(IN_ORDER)
    assert (noted.given is not None) == starts


def test_whether_two_executors_work_at_once_is_judged_first(tmp_path: Path) -> None:
    noted = Noted(tmp_path)
    selected = frozenset({IN_ORDER.id, COEXIST, *(rule.id for rule in BACKGROUND)})
    store = VerdictStore(str(tmp_path))
    judge = Judge(by_this_process, store, selected, location=TaskLocation.HOST, background=noted)
    judge.begin()
    assert noted.given is None
    judge.judge(IN_ORDER)
    assert noted.given is not None


def test_it_runs_selected_and_applicable_rules(tmp_path: Path) -> None:
    store, noted = VerdictStore(str(tmp_path)), Noted(tmp_path)
    selected = frozenset({IN_ORDER.id, *(rule.id for rule in BACKGROUND[1:])})
    judge = Judge(by_this_process, store, selected, location=TaskLocation.HOST, background=noted)
    store.save(COEXIST, Finding(Verdict.PASSED))
    judge.judge(IN_ORDER)
    assert noted.given == [
        rule.id for rule in BACKGROUND[1:] if Observation.LOCAL_PROCESSES not in rule.needs
    ]


@pytest.mark.parametrize(
    ("target", "verdict"),
    [
        ("executor_reference:LocalExecutor", Verdict.PASSED),
        ("fixtures.legal.names:NamesItsSocketByACounter", Verdict.FAILED),
    ],
)
def test_it_detects_equal_names_in_two_forks(target: str, verdict: Verdict, tmp_path: Path) -> None:
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
    assert runner.run(background._check()).verdict is verdict


def test_rules_that_count_shared_pages_run_alone() -> None:
    """A background process, forked from pytest as well, would have a share in each page."""
    count = {rule.id for rule in catalogue().values() if _counts_shared_pages(rule)}
    assert count <= {rule.id for rule in ALONE}


def _counts_shared_pages(rule: Rule) -> bool:
    names = [*rule.body.__code__.co_names]
    for constant in rule.body.__code__.co_consts:
        names += getattr(constant, "co_names", ())
    return "relatives" in names
