"""Tests of the command, as users and their tools call it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from conftest import PYTEST, REPOSITORY, Command, Judged

from executor_conformance.report.json_format import schema
from executor_conformance.rules import Rule, catalogue

TARGET = "--executor=executor_reference:LocalExecutor"
RULE = "lifecycle.runs-a-task"
ONE = ("-k", RULE)
NEGATIVE = "parallelism.negative-is-rejected"

MINE = """
    import abc

    from executor_reference import LocalExecutor

    class Outer:
        class Inner(LocalExecutor):
            pass

    class NoFamily:
        pass

    class Failing(LocalExecutor):
        '''Reports every task as failed.'''
        def get_event_buffer(self, dag_ids=None):
            return {key: ("failed", None) for key in super().get_event_buffer(dag_ids)}

    class Untidy(LocalExecutor):
        '''Violates one rule of level "should", and no other.'''
        def terminate(self):
            if not self._started:
                raise RuntimeError("not started")
            super().terminate()

    def make(parallelism=4, **options):
        return LocalExecutor(parallelism, **options)

    class Abstract(LocalExecutor, abc.ABC):
        @abc.abstractmethod
        def method(self): ...

    class Raising(LocalExecutor):
        def __init__(self, parallelism=4):
            raise ConnectionError("no broker")

    VALUE = 42
"""
#: The rule that ``Untidy`` violates.
SHOULD = "lifecycle.terminate-before-start-is-harmless"


@pytest.fixture(autouse=True)
def mine(pytester: pytest.Pytester) -> Path:
    """Write a module with executors to the folder of the run."""
    return pytester.makepyfile(mine=MINE)


def passed(judged: Judged, *rules: str) -> None:
    """Check that only these rules ran, and that all of them passed."""
    rules = rules or (RULE,)
    assert judged.status == 0, judged.output
    assert sorted(judged.rules()) == sorted(judged.rules("passed")) == sorted(rules)
    no_verdict(judged, len(rules))


def no_verdict(judged: Judged, ran: int) -> None:
    """Check that nothing calls the executor conformant or not after a selection."""
    words = f"no verdict: {ran} of {len(catalogue())} rules"
    assert (judged.report["conformant"], judged.report["complete"]) == (None, False)
    assert judged.report["verdict"] == words
    assert words in judged.stdout
    assert "conformant at level" not in judged.stdout


# -- the target ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["mine:Outer.Inner", "mine:make", "executor_reference:LocalExecutor"])
def test_targets(judge: Command, target: str) -> None:
    judged = judge(f"--executor={target}", *ONE)
    passed(judged)
    assert judged.report["executor"]["target"] == target
    assert judged.report["executor"]["adapter"] == "native"


@pytest.mark.parametrize("name", ["parallelism", "max_workers"])
def test_function_accepts_parallelism_or_max_workers(
    judge: Command, pytester: pytest.Pytester, name: str
) -> None:
    pytester.makepyfile(
        pools=f"""
        from concurrent.futures import ThreadPoolExecutor

        def pool({name}=1):
            return ThreadPoolExecutor({name})
        """
    )
    judged = judge("--executor=pools:pool", "-k", "parallelism.n-tasks-run-at-once")
    passed(judged, "parallelism.n-tasks-run-at-once")
    assert judged.report["executor"]["adapter"] == "futures"


@pytest.mark.parametrize("signature", ["concurrency=2", "workers: int", "num_workers=None", "*, processes=1"])
def test_function_may_call_the_parallelism_otherwise(
    judge: Command, pytester: pytest.Pytester, signature: str
) -> None:
    name = signature.removeprefix("*, ").split(":")[0].split("=")[0]
    pytester.makepyfile(
        pools=f"""
        from concurrent.futures import ThreadPoolExecutor

        def pool({signature}):
            return ThreadPoolExecutor({name})
        """
    )
    judged = judge("--executor=pools:pool", "-k", "parallelism.n-tasks-run-at-once")
    passed(judged, "parallelism.n-tasks-run-at-once")


def test_function_without_arguments_makes_an_executor_of_fixed_size(
    judge: Command, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(
        pools="""
        from concurrent.futures import ThreadPoolExecutor

        def pool():
            return ThreadPoolExecutor(3)
        """
    )
    judged = judge("--executor=pools:pool", "-k", "constructor-accepts or parallelism.no-slot or first-come")
    assert judged.status == 0, judged.output
    assert "parallelism: pool takes no parallelism argument, and 3 tasks run at once" in judged.stdout
    assert list(judged.rules("passed")) == ["parallelism.no-slot-is-idle-while-tasks-wait"]
    reasons = judged.rules("not_applicable")
    assert reasons["interface.constructor-accepts-parallelism"] == "pool takes no parallelism argument"
    assert reasons["parallelism.first-come-first-served"] == (
        "pool takes no parallelism argument, and 3 tasks run at once; the rule needs exactly 1"
    )


def test_executor_that_runs_a_task_within_a_call_has_one_slot(
    judge: Command, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(
        pools="""
        from concurrent.futures import Executor, Future

        class InTheCall(Executor):
            def submit(self, function, /, *args, **kwargs):
                future = Future()
                try:
                    future.set_result(function(*args, **kwargs))
                except Exception as error:
                    future.set_exception(error)
                return future
        """
    )
    judged = judge("--executor=pools:InTheCall", "-k", "lifecycle.runs-a-task")
    passed(judged, "lifecycle.runs-a-task")
    assert "and one task runs at a time" in judged.stdout


def test_required_arguments_that_nothing_passes_are_a_usage_error(
    judge: Command, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(pools="def pool(url, parallelism=1): ...")
    judged = judge("--executor=pools:pool", *ONE)
    assert judged.status == 4
    assert "requires an argument (url): pass --executor-option=url=VALUE" in judged.stderr


def test_target_that_starts_a_thread_on_import(judge: Command, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        threaded="""
        import queue, threading
        from concurrent.futures import Executor, Future

        CALLS = queue.SimpleQueue()

        def serve():
            while True:
                future, call = CALLS.get()
                try:
                    future.set_result(call())
                except Exception as error:
                    future.set_exception(error)

        threading.Thread(target=serve, name="server", daemon=True).start()

        class Served(Executor):
            def __init__(self, max_workers=1):
                pass

            def submit(self, function, /, *args, **kwargs):
                future = Future()
                CALLS.put((future, lambda: function(*args, **kwargs)))
                return future
        """
    )
    judged = judge(
        "--executor=threaded:Served", "-k", "lifecycle.runs-a-task or states.an-exception-is-a-failure"
    )
    passed(judged, "lifecycle.runs-a-task", "states.an-exception-is-a-failure")
    assert "import: starts 1 thread (server); so each rule imports the target again" in judged.stdout


def test_target_says_what_its_executors_lack(judge: Command, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        cluster="""
        from concurrent.futures import ThreadPoolExecutor
        from executor_conformance.adapters import Capability

        def pool(max_workers=1):
            return ThreadPoolExecutor(max_workers)

        pool.conformance_lacks = {Capability.OWN_WORKERS: "the workers belong to the cluster"}

        def wrong(max_workers=1):
            return ThreadPoolExecutor(max_workers)

        wrong.conformance_lacks = {"OWN_WORKER": "a misspelled key"}
        """
    )
    judged = judge("--executor=cluster:pool", "-k", "end-leaves-no-worker or runs-a-task")
    assert judged.status == 0, judged.output
    (reason,) = judged.rules("not_applicable").values()
    assert reason.startswith("the workers belong to the cluster (the rule needs ")
    judged = judge("--executor=cluster:wrong", *ONE)
    assert judged.status == 4
    assert "did you mean Capability.OWN_WORKERS?" in judged.stderr


def test_temporary_folder_of_the_run_is_deleted(judge: Command, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        cleaner="""
        import shutil
        from pathlib import Path
        from executor_reference import LocalExecutor

        HERE = Path(__file__).parent

        class AtTheStart(LocalExecutor):
            def start(self):
                super().start()
                shutil.rmtree(HERE / "tmp")
                (HERE / "tmp").mkdir()

        class Later(LocalExecutor):
            def end(self):
                super().end()
                with open(HERE / "ends", "a") as file:
                    print(file=file)
                if (HERE / "ends").stat().st_size > 8:
                    shutil.rmtree(HERE / "tmp", ignore_errors=True)
                    (HERE / "tmp").mkdir(exist_ok=True)
        """
    )
    judged = judge("--executor=cleaner:AtTheStart", *ONE)
    assert judged.status == 4
    assert "the temporary folder of this run, " in judged.stderr
    judged = judge("--executor=cleaner:Later", "-k", "lifecycle")
    assert judged.status == 1
    assert judged.rules("failed") == {}
    assert "was deleted by the executor or by another program" in judged.stdout
    assert judged.rules("passed")


def test_working_directory_is_importable(judge: Command, tmp_path: Path) -> None:
    folder = tmp_path / "somewhere" / "else"
    folder.mkdir(parents=True)
    (folder / "theirs.py").write_text("from executor_reference import LocalExecutor as Theirs\n")
    passed(judge("--executor=theirs:Theirs", *ONE, folder=folder))


def test_empty_folder(judge: Command, tmp_path: Path) -> None:
    passed(judge(TARGET, *ONE, folder=tmp_path))


def test_python_m_pytest(judge: Command) -> None:
    environment = {**os.environ, "TMPDIR": str(judge.folder)}
    command = [sys.executable, "-m", "pytest", TARGET, *ONE]
    assert subprocess.run(command, cwd=judge.folder, env=environment, capture_output=True).returncode == 0


# -- pytest's own options ------------------------------------------------------------------------------------


def test_xdist(judge: Command) -> None:
    judged = judge(TARGET, "-n2", "-k", "interface.constructor or parallelism-has-a-default or end-twice")
    passed(
        judged,
        "interface.constructor-accepts-parallelism",
        "interface.parallelism-has-a-default",
        "lifecycle.end-twice-is-harmless",
    )


def test_xdist_agrees_with_one_process(judge: Command) -> None:
    arguments = ("--executor=mine:Failing", "-k", "lifecycle or interface")
    alone, together = judge(*arguments), judge(*arguments, "-n2")
    assert alone.status == together.status == 1
    assert alone.rules() == together.rules()
    for verdict in ("failed", "blocked", "passed"):
        assert list(alone.rules(verdict)) == list(together.rules(verdict))


def test_k_accepts_ids_and_parts_of_them(judge: Command) -> None:
    listed = judge(TARGET, "--collect-only", "-q", "-k", "lifecycle.end-twice or parallelism-attribute")
    assert listed.stdout.splitlines()[:2] == [
        "interface::parallelism-attribute-is-accurate",
        "lifecycle::end-twice-is-harmless",
    ]


def test_x_stops_after_the_first_failure(judge: Command) -> None:
    judged = judge("--executor=mine:Failing", "-x", "-k", "lifecycle")
    assert judged.status == 1
    assert list(judged.rules()) == [RULE]
    assert "stopping after 1 failures" in judged.stdout


def test_lf_repeats_failures(judge: Command) -> None:
    selection = ("-k", "interface.constructor or lifecycle.runs")
    assert judge("--executor=mine:Failing", *selection).status == 1
    again = judge("--executor=mine:Failing", "--lf", *selection)
    assert again.status == 1
    assert "1 failed" in again.stdout
    assert "1 passed" not in again.stdout.splitlines()[-1]


def test_lf_after_a_fix(judge: Command, mine: Path) -> None:
    assert judge("--executor=mine:Failing", *ONE).status == 1
    mine.write_text("from executor_reference import LocalExecutor as Failing\n")
    passed(judge("--executor=mine:Failing", "--lf"))


def test_v_prints_each_rule_and_verdict(judge: Command) -> None:
    judged = judge(
        "--executor=mine:Failing", "-v", "-k", "interface.constructor or lifecycle.runs or end-twice"
    )
    for line in (
        "interface::constructor-accepts-parallelism PASSED",
        "lifecycle::runs-a-task FAILED",
        "lifecycle::end-twice-is-harmless BLOCKED",
    ):
        assert line in judged.stdout


def test_q_still_prints_the_verdict(judge: Command) -> None:
    passed(judge(TARGET, "-qq", *ONE))


def test_junitxml(judge: Command, pytester: pytest.Pytester) -> None:
    judge("--executor=mine:Failing", "--junitxml=j.xml", "-k", "lifecycle.runs or end-twice")
    suite, cases = junit(pytester)
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "1", "1")
    failure = cases["runs-a-task"].find("failure")
    assert failure is not None
    assert "'success' for task" in (failure.get("message") or "") + (failure.text or "")


def junit(pytester: pytest.Pytester) -> tuple[ElementTree.Element, dict[str, ElementTree.Element]]:
    """The suite of the file ``j.xml``, and its cases by the name of the rule."""
    suite = ElementTree.parse(pytester.path / "j.xml").getroot()[0]
    return suite, {case.get("name", ""): case for case in suite if case.tag == "testcase"}


@pytest.mark.parametrize("processes", ["-n0", "-n2"])
@pytest.mark.parametrize(("level", "status"), [("must", 0), ("should", 1)])
def test_junitxml_agrees_with_the_exit_status(
    judge: Command, pytester: pytest.Pytester, level: str, status: int, processes: str
) -> None:
    arguments = ("--executor=mine:Untidy", f"--conformance-level={level}", "--junitxml=j.xml", processes)
    judged = judge(*arguments, "--conformance-seed=7", "-k", f"{RULE} or {SHOULD}")
    suite, cases = junit(pytester)
    case = cases["terminate-before-start-is-harmless"]
    assert judged.status == int(suite.get("failures", "")) == status
    assert (case.find("failure") is None) == (status == 0)
    assert ("1 should failed" if level == "must" else "1 failed") in judged.stdout.splitlines()[-1]
    if level == "must":
        skipped = case.find("skipped")
        assert skipped is not None
        assert skipped.get("type") == "pytest.xfail"
        assert "does not count at level must: expected terminate() to" in skipped.get("message", "")
    properties = {each.get("name"): each.get("value") for each in suite.iterfind("properties/property")}
    assert properties["level"] == level
    assert properties["seed"] == "7"
    assert properties["executor"] == "mine:Untidy"
    assert properties["verdict"] == judged.report["verdict"]
    own = {each.get("name"): each.get("value") for each in case.iterfind("properties/property")}
    assert own == {"level": "should", "verdict": "failed"}


NOISY = """
    from executor_reference import LocalExecutor

    class Noisy(LocalExecutor):
        def start(self):
            print("output of start")
            super().start()
"""


@pytest.mark.parametrize(("option", "shown"), [("-s", True), ("--capture=no", True), ("--capture=fd", False)])
def test_s_shows_the_output_of_the_executor(
    judge: Command, pytester: pytest.Pytester, option: str, shown: bool
) -> None:
    pytester.makepyfile(noisy=NOISY)
    judged = judge("--executor=noisy:Noisy", option, *ONE)
    passed(judged)
    assert ("output of start" in judged.stdout) is shown


@pytest.mark.parametrize("option", ["--pdb", "--trace"])
def test_debugger_without_a_failure(judge: Command, option: str) -> None:
    passed(judge(TARGET, option, *ONE))


def test_pdb_stops_at_the_failure(judge: Command) -> None:
    judged = judge("--executor=mine:Failing", "--pdb", *ONE)
    assert judged.status != 0
    assert "entering PDB" in judged.stdout
    # without a warden, the kernel kills the workers after pytest has exited
    assert judge.left_alive(timeout=10) == []


@pytest.mark.parametrize(
    "options",
    [
        ("-p", "no:cacheprovider"),
        ("-p", "no:xdist"),
        ("-p", "no:terminal"),
        ("-p", "no:skipping"),
        ("-p", "no:faulthandler"),
        ("-p", "no:warnings"),
        ("-p", "no:pytest_cov"),
        ("-W", "error"),
        ("--import-mode=importlib",),
        ("--strict-markers", "--strict-config"),
        ("-rA", "--durations=3"),
        ("--tb=long",),
        ("--maxfail=1",),
    ],
    ids=" ".join,
)
def test_options_without_effect_on_verdicts(judge: Command, options: tuple[str, ...]) -> None:
    judged = judge(TARGET, *options, *ONE)
    assert judged.status == 0, judged.output
    assert list(judged.rules("passed")) == [RULE]


WARNING = """
    import warnings
    from executor_reference import LocalExecutor

    class Warning(LocalExecutor):
        def start(self):
            warnings.warn("old", DeprecationWarning)
            warnings.warn("odd")
            super().start()
"""


@pytest.mark.parametrize("way", ["command line", "ini file"])
def test_warnings_as_errors_do_not_apply_to_the_executor(
    judge: Command, pytester: pytest.Pytester, way: str
) -> None:
    pytester.makepyfile(warning=WARNING)
    if way == "ini file":
        pytester.makeini("[pytest]\nfilterwarnings = error\n")
    passed(judge("--executor=warning:Warning", *ONE, *(["-W", "error"] if way == "command line" else [])))


def test_collect_only_runs_nothing(judge: Command, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(loud="open('imported', 'w').close()\nfrom executor_reference import LocalExecutor")
    judged = judge("--executor=loud:LocalExecutor", "--collect-only", *ONE)
    assert judged.status == 0
    assert not (pytester.path / "imported").exists()
    assert judged.report == {}


COVERED = """
    from executor_reference import LocalExecutor

    class Covered(LocalExecutor):
        def start(self):
            super().start()

        def terminate(self):
            super().terminate()
"""


@pytest.mark.parametrize("options", [(), ("-n2",), ("--cov-branch",)], ids=["alone", "xdist", "branches"])
def test_coverage_of_the_contained_processes(
    judge: Command, pytester: pytest.Pytester, options: tuple[str, ...]
) -> None:
    source = pytester.makepyfile(covered=COVERED)
    judged = judge("--executor=covered:Covered", "--cov=covered", "--cov-report=json", *options, *ONE)
    passed(judged)
    files = json.loads((pytester.path / "coverage.json").read_text())["files"]
    lines = source.read_text().splitlines()
    (name, measured), *others = files.items()
    assert (name, others) == ("covered.py", []), "only the module of the user"
    assert measured["missing_lines"] == [lines.index("        super().terminate()") + 1]
    assert [path.name for path in pytester.path.glob(".coverage?*")] == []


# -- the user's own tests ------------------------------------------------------------------------------------


@pytest.fixture
def own_tests(pytester: pytest.Pytester) -> None:
    """Write a folder of tests, as projects have it."""
    pytester.mkdir("tests").joinpath("test_own.py").write_text("def test_own(): pass\n")


@pytest.mark.usefixtures("own_tests")
def test_rules_that_run_alone_are_the_last(judge: Command) -> None:
    """They would wait for the rules in the background, and nothing would run meanwhile."""
    listed = [line for line in judge(TARGET, "--collect-only", "-q").stdout.splitlines() if "::" in line]
    alone = [rule.id.replace(".", "::") for rule in catalogue().values() if rule.turn == "alone"]
    assert listed[-len(alone) :] == alone


def test_own_tests_are_not_collected(judge: Command, pytester: pytest.Pytester) -> None:
    assert "test_own" not in judge(TARGET, "--collect-only", "-q").stdout
    pytester.makeini("[pytest]\ntestpaths = tests\n")
    assert "test_own" not in judge(TARGET, "--collect-only", "-q").stdout


@pytest.mark.usefixtures("own_tests")
@pytest.mark.parametrize("processes", ["-n0", "-n2"])
def test_own_tests_run_when_named(judge: Command, processes: str) -> None:
    judged = judge(TARGET, "-k", f"test_own or {RULE}", "-v", processes, "tests")
    passed(judged)
    assert "2 passed" in judged.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("lifecycle::runs-a-task",), lambda rule: rule.id == RULE),
        ((RULE, "parallelism::negative-is-rejected"), lambda rule: rule.id in (RULE, NEGATIVE)),
        (("isolation", "-n2"), lambda rule: rule.chapter.name == "isolation"),
        (
            ("isolation", "-m", "should"),
            lambda rule: rule.chapter.name == "isolation" and rule.level == "should",
        ),
        (("lifecycle::runs-a-task", "tests", "-n2"), lambda rule: rule.id == RULE),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
@pytest.mark.usefixtures("own_tests")
def test_rules_are_named_as_arguments(
    judge: Command, arguments: tuple[str, ...], named: Callable[[Rule], bool]
) -> None:
    judged = judge("--executor=concurrent.futures:ThreadPoolExecutor", *arguments)
    assert judged.status == 0, judged.output
    assert judged.rules().keys() == {rule.id for rule in catalogue().values() if named(rule)}
    if "tests" in arguments:
        assert "2 passed" in judged.stdout


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("lifecycle::runs-a-tsk", "did you mean 'lifecycle.runs-a-task'?"),
        ("lifecyle::runs-a-task", "did you mean 'lifecycle.runs-a-task'?"),
        ("shutdwn", "there is no chapter 'shutdwn'; did you mean 'shutdown'?"),
    ],
)
def test_misspelt_rule_as_an_argument(judge: Command, argument: str, hint: str) -> None:
    judged = judge(TARGET, argument)
    assert judged.status == 4, judged.output
    assert hint in judged.stderr


@pytest.mark.parametrize("processes", ["-n0", "-n2"])
def test_executor_of_the_ini_file_leaves_own_tests_alone(
    judge: Command, pytester: pytest.Pytester, processes: str
) -> None:
    pytester.makeini("[pytest]\nexecutor = mine:make\npythonpath = .")
    pytester.makepyfile(test_own="def test_ok(): pass")
    for arguments in (["test_own.py::test_ok"], ["test_own.py"], ["."]):
        process = judge.start(*arguments, processes)
        stdout, stderr = process.communicate()
        assert process.returncode == 0, stdout + stderr
        assert "1 passed" in stdout
        assert "executor:" not in stdout
    process = judge.start(RULE, processes)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stdout + stderr
    assert "mine:make: no verdict: 1 of " in stdout


def test_own_failures_set_the_exit_status(judge: Command, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_broken="def test_broken(): assert 0")
    judged = judge(TARGET, "-k", f"test_broken or {RULE}", "test_broken.py")
    assert judged.status == 1
    no_verdict(judged, 1)


@pytest.mark.usefixtures("own_tests")
def test_without_executor_nothing_changes(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("-v")
    assert result.ret == 0
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*conform*verdict*")


# -- options of the suite ------------------------------------------------------------------------------------

RECORDING = """
    from executor_reference import LocalExecutor

    def make(parallelism=1, **options):
        with open("options", "a") as file:
            file.write(f"{options}\\n")
        return LocalExecutor(parallelism)
"""


def test_executor_options_are_toml(judge: Command, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(recording=RECORDING)
    options = [
        "a=1",
        "b=1.5",
        "c=true",
        'd="x y"',
        "e=[1, 2]",
        "f=redis://host:1/0",
        "g={k = 1}",
        "h = spawn",
    ]
    judged = judge("--executor=recording:make", *(f"--executor-option={option}" for option in options), *ONE)
    passed(judged)
    wanted = {
        "a": 1,
        "b": 1.5,
        "c": True,
        "d": "x y",
        "e": [1, 2],
        "f": "redis://host:1/0",
        "g": {"k": 1},
        "h": "spawn",
    }
    assert judged.report["executor"]["options"] == wanted
    assert set((pytester.path / "options").read_text().splitlines()) == {str(wanted)}


def test_reproduce_command_repeats_with_the_same_options(judge: Command, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        repeated="""
        from mine import Failing

        def make(parallelism=1, **options):
            assert options == {"a": "x y", "b": [True, "z"], "c": {"d": 1}, "e": "true"}, options
            return Failing(parallelism)
        """
    )
    options = ['a="x y"', 'b=[true, "z"]', "c={d = 1}", 'e="true"']
    judged = judge("--executor=repeated:make", *(f"--executor-option={option}" for option in options), *ONE)
    assert list(judged.rules("failed")) == [RULE]
    (command,) = (
        line.removeprefix("  reproduce").strip()
        for line in judged.stdout.splitlines()
        if line.startswith("  reproduce")
    )
    again = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=pytester.path,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert f"FAILED {RULE}" in again.stdout, again.stdout + again.stderr
    assert "'success' for task p1" in again.stdout


def test_named_adapter(judge: Command) -> None:
    passed(judge("--executor=mine:make", "--executor-adapter=native", *ONE))


def test_level_decides_the_exit_status(judge: Command) -> None:
    selection = ("--executor=mine:Untidy", "-k", f"{RULE} or {SHOULD}")
    must = judge(*selection)
    assert must.status == 0
    no_verdict(must, 2)
    assert "1 passed, 1 should failed" in must.stdout
    should = judge(*selection, "--conformance-level=should")
    assert (should.status, should.report["conformant"]) == (1, False)
    assert "is NOT conformant at level should: 1 passed, 1 should failed; 2 of" in should.stdout
    assert list(must.rules("failed")) == list(should.rules("failed")) == [SHOULD]


def test_run_without_applicable_rules_is_not_conformant(judge: Command) -> None:
    judged = judge("--executor=concurrent.futures:ThreadPoolExecutor", "-k", "lifecycle.end-before-start")
    assert list(judged.rules("not_applicable"))
    assert (judged.status, judged.report["conformant"]) == (1, None)


@pytest.mark.parametrize("processes", ["-n0", "-n1"])
def test_first_failure_that_counts_ends_the_run(judge: Command, processes: str) -> None:
    selection = ("--executor=mine:Untidy", "-x", processes, "-k", f"{RULE} or {SHOULD} or {NEGATIVE}")
    must = judge(*selection)
    assert must.status == 0, must.output
    no_verdict(must, 3)
    should = judge(*selection, "--conformance-level=should")
    assert should.status == 1, should.output
    assert should.report["verdict"] == "not conformant"
    assert 2 <= len(should.rules()) <= 3  # pytest-xdist may have started the next one


def test_time_limit_bounds_hangs(judge: Command, pytester: pytest.Pytester) -> None:
    (judge.folder / "hangs.py").write_text("""
import threading
from fixtures.plain import LocalExecutor

class HangsInEnd(LocalExecutor):
    def end(self):
        threading.Event().wait()
""")
    judged = judge(
        "--executor=hangs:HangsInEnd",
        *("--conformance-time-limit=1", "--junitxml=j.xml"),
        *("-k", f"{RULE} or shutdown.end-leaves-no-worker or memory.import-and-construction-are-cheap"),
    )
    assert judged.status == 1
    assert list(judged.rules("passed")) == [RULE]
    assert list(judged.rules("failed")) == ["shutdown.end-leaves-no-worker"]
    assert list(judged.rules("inconclusive")) == ["memory.import-and-construction-are-cheap"]
    _, cases = junit(pytester)
    assert cases["import-and-construction-are-cheap"].find("skipped") is not None, "it does not count"


# -- known failures ------------------------------------------------------------------------------------------

KNOWN = f"""
[[known_failure]]
rule = "{RULE}"
reason = "reports every task as failed"
link = "https://example.org/1"
"""


@pytest.mark.parametrize("processes", ["-n0", "-n2"])
def test_known_failure_does_not_fail_the_run(
    judge: Command, pytester: pytest.Pytester, processes: str
) -> None:
    (pytester.path / "known.toml").write_text(KNOWN)
    judged = judge("--executor=mine:Failing", *ONE, "--conformance-known-failures=known.toml", processes)
    assert judged.status == 0, judged.output
    assert judged.report["conformant"] is False
    ((rule, message),) = judged.rules("known_failure").items()
    assert rule == RULE
    assert message.endswith("; known: reports every task as failed (https://example.org/1)")
    assert (
        "NOT conformant at level must: 1 known failure; all failures that count are listed as known"
        in judged.stdout
    )
    jsonschema.validate(judged.report, schema(), cls=jsonschema.Draft202012Validator)


def test_failure_in_addition_to_a_known_one_fails_the_run(judge: Command, pytester: pytest.Pytester) -> None:
    (pytester.path / "known.toml").write_text(KNOWN.replace(RULE, "parallelism.true-is-rejected"))
    judged = judge(
        "--executor=concurrent.futures:ThreadPoolExecutor",
        *("-k", "parallelism.true or parallelism.nan"),
        "--conformance-known-failures=known.toml",
    )
    assert judged.status == 1
    assert list(judged.rules("known_failure")) == ["parallelism.true-is-rejected"]
    assert list(judged.rules("failed")) == ["parallelism.nan-is-rejected"]


@pytest.mark.parametrize("level", ["must", "should"])
def test_known_failure_that_passes_fails_the_run(
    judge: Command, pytester: pytest.Pytester, level: str
) -> None:
    (pytester.path / "known.toml").write_text(KNOWN)
    judged = judge(TARGET, *ONE, "--conformance-known-failures=known.toml", f"--conformance-level={level}")
    assert judged.status == 1
    assert list(judged.rules("unexpected_pass")) == [RULE]
    assert "now passes: remove it from the list" in judged.stdout


def test_known_failures_of_an_ini_file(judge: Command, pytester: pytest.Pytester) -> None:
    (pytester.path / "known.toml").write_text(KNOWN)
    pytester.makeini("[pytest]\npythonpath = .\nconformance_known_failures = known.toml\n")
    folder = pytester.mkdir("sub")
    assert judge("--executor=mine:Failing", *ONE, folder=folder).status == 0


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (None, ["No such file"]),
        ("[[known_failure]", ["line 1"]),
        ("[known_failure]", ["[[known_failure]]"]),
        ("[[known_failures]]", ["'known_failures'"]),
        ("known_failure = [1]", ["entry 1", "1 is not a table"]),
        (KNOWN.replace("runs-a-task", "runs-a-tsk"), ["entry 1", f"did you mean '{RULE}'?"]),
        (KNOWN + KNOWN, ["entry 2", f"'{RULE}' is listed twice"]),
        (KNOWN.replace("reason", "reasons"), ["'reasons'"]),
        (KNOWN.replace('"reports every task as failed"', '""'), ["reason is missing"]),
        (KNOWN.replace('"reports every task as failed"', "1"), ["reason = 1"]),
        (KNOWN + "when = 'python < 4'", ["entry 1", "python"]),
        (KNOWN + "versions = 'new'", ["entry 1", "'new'"]),
        (KNOWN + "when = \"sys_platform ~= 'linux'\"", ["entry 1", "~="]),
        (KNOWN + "expires = '2027-01-31'", ["entry 1", "is not a date, such as 2027-01-31"]),
    ],
)
def test_invalid_list_of_known_failures_is_a_usage_error(
    judge: Command, pytester: pytest.Pytester, text: str | None, parts: list[str]
) -> None:
    if text is not None:
        (pytester.path / "known.toml").write_text(text)
    judged = judge(TARGET, *ONE, "--conformance-known-failures=known.toml")
    assert judged.status == 4
    (line,) = judged.stderr.strip().splitlines()
    assert line.startswith("ERROR: --conformance-known-failures='known.toml'")
    for part in parts:
        assert part in line
    assert judge.left_in_tmp() == []


# -- hooks ---------------------------------------------------------------------------------------------------

HOOKS = """
    import pathlib
    import mine

    def log(line):
        with pathlib.Path(__file__).with_name("log").open("a") as file:
            file.write(line + "\\n")

    def pytest_conformance_build_executor(target, arguments):
        executor = mine.make(**arguments)
        log(f"built {target} {sorted(arguments)}")
        return executor

    def pytest_conformance_dispose_executor(executor):
        log(f"disposed {type(executor).__name__}")
"""


@pytest.mark.parametrize("processes", ["-n0", "-n2"])
def test_hooks_build_and_dispose(judge: Command, pytester: pytest.Pytester, processes: str) -> None:
    pytester.makeconftest(HOOKS)
    passed(judge("--executor=mine:Outer.Inner", processes, *ONE))
    lines = (pytester.path / "log").read_text().splitlines()
    assert set(lines) == {"built mine:Outer.Inner ['parallelism']", "disposed LocalExecutor"}
    assert lines.count("disposed LocalExecutor") == len(lines) / 2, "as many as were built"


def test_build_hook_may_return_none(judge: Command, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("def pytest_conformance_build_executor(target, arguments): return None")
    passed(judge(TARGET, *ONE))


@pytest.mark.parametrize("fault", ["raise RuntimeError('no such container')", "import os; os._exit(3)"])
def test_failing_dispose_hook_fails_the_run_but_no_rule(
    judge: Command, pytester: pytest.Pytester, fault: str
) -> None:
    pytester.makeconftest(f"def pytest_conformance_dispose_executor(executor): {fault}")
    judged = judge(TARGET, *ONE)
    assert judged.rules("failed") == {}
    assert judged.status != 0, "the run must fail"
    assert "dispose" in judged.output


# -- the terminal --------------------------------------------------------------------------------------------


def test_quiet_shows_one_line_for_each_failure(judge: Command) -> None:
    judged = judge("--executor=mine:Failing", "-q", *ONE)
    (line,) = (line for line in judged.stdout.splitlines() if RULE in line)
    assert line.startswith(f"FAILED {RULE} (must): expected ")


def test_lines_fit_the_terminal(judge: Command) -> None:
    process = judge.start(
        *("-qefc", f"stty cols 80; {PYTEST} --executor=mine:Failing {' '.join(ONE)}", "/dev/null"),
        program="script",
    )
    stdout, stderr = process.communicate()
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in stdout.splitlines()]
    summary = lines[next(n for n, line in enumerate(lines) if " executor conformance " in line) :]
    long = [line for line in summary if len(line) > 80]
    assert all(line.startswith("  reproduce ") for line in long), stdout + stderr
    assert any(line.startswith("  expected      ") for line in summary), stdout + stderr


def test_most_basic_failure_comes_first(judge: Command, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        two="""
        from mine import Failing

        class Two(Failing):
            def __init__(self, parallelism=4):
                super().__init__(parallelism if parallelism == parallelism else 4)  # NaN is accepted
        """
    )
    judged = judge("--executor=two:Two", "-k", f"states or {RULE} or parallelism.nan")
    heads = [line for line in judged.stdout.splitlines() if line.startswith("FAILED ")]
    blocked = len(judged.rules("blocked"))
    assert blocked > 1
    assert heads[0] == f"FAILED {RULE} (must; blocks {blocked} rules)"


# -- conditions, updates and certificates --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "status", "line"),
    [
        ("when = \"python_version >= '3.8'\"", 0, "KNOWN FAILURE lifecycle.runs-a-task"),
        ("when = \"python_version < '3.8'\"", 1, "FAILED lifecycle.runs-a-task"),
        (
            "versions = '<2'",
            1,
            "UNUSED known failure: lifecycle.runs-a-task: the executor has no distribution",
        ),
        ("expires = 2999-01-01", 0, "KNOWN FAILURE lifecycle.runs-a-task"),
        ("expires = 2020-01-31", 1, "EXPIRED known failure: lifecycle.runs-a-task: expired on 2020-01-31"),
    ],
)
def test_conditions_of_a_known_failure(
    judge: Command, pytester: pytest.Pytester, keys: str, status: int, line: str
) -> None:
    (pytester.path / "known.toml").write_text(KNOWN + keys)
    judged = judge("--executor=mine:Failing", *ONE, "--conformance-known-failures=known.toml")
    assert judged.status == status, judged.output
    assert any(each.startswith(line) for each in judged.stdout.splitlines()), judged.output


def test_unneeded_known_failure_is_named(judge: Command, pytester: pytest.Pytester) -> None:
    rule = "interface.argv-is-passed-unchanged"
    (pytester.path / "known.toml").write_text(KNOWN.replace(RULE, rule))
    judged = judge(
        "--executor=concurrent.futures:ThreadPoolExecutor",
        *("-k", f"{RULE} or {rule}", "--conformance-known-failures=known.toml"),
    )
    assert judged.status == 0, judged.output
    assert f"UNNEEDED known failure: {rule}: not applicable: " in judged.stdout


def test_list_of_known_failures_is_updated(judge: Command, pytester: pytest.Pytester) -> None:
    path = pytester.path / "known.toml"
    arguments = ("-k", f"{SHOULD} or {NEGATIVE}", "--conformance-known-failures=known.toml")
    first = judge("--executor=mine:Untidy", *arguments, "--conformance-known-failures-update")
    assert first.status == 0, first.output  # a should does not count
    assert "known.toml: 1 entry added, 0 entries removed" in first.stdout
    written = path.read_text()
    assert f'rule = "{SHOULD}"' in written
    path.write_text(MORE_KNOWN.format(written))
    assert judge("--executor=mine:Untidy", *arguments).status == 1  # one of them passes
    second = judge("--executor=mine:Untidy", *arguments, "--conformance-known-failures-update")
    assert second.status == 1, second.output
    assert "0 entries added, 1 entry removed" in second.stdout
    assert path.read_text() == MORE_KNOWN.format(written).replace(REMOVED, "")
    assert judge("--executor=mine:Untidy", *arguments).status == 0


REMOVED = f"""# about this entry
[[known_failure]]
rule = '{NEGATIVE}'
reason = 'x'  # mine
when = "python_version >= '3.8'"

"""
MORE_KNOWN = f"""# why this list exists

# of another job
[[known_failure]]
rule = '{NEGATIVE}'
reason = 'x'
when = "python_version < '3.8'"

{REMOVED}# the one that was added
{{}}"""


def test_last_entry_can_be_removed_and_added_again(judge: Command, pytester: pytest.Pytester) -> None:
    path = pytester.path / "known.toml"
    path.write_text(KNOWN)
    arguments = (*ONE, "--conformance-known-failures=known.toml", "--conformance-known-failures-update")
    for target, kept in (("mine:make", 0), ("mine:make", 0), ("mine:Failing", 1), ("mine:Failing", 1)):
        judge(f"--executor={target}", *arguments)
        assert path.read_text().count("[[known_failure]]") == kept


def test_comments_at_the_top_of_the_list_stay(judge: Command, pytester: pytest.Pytester) -> None:
    path = pytester.path / "known.toml"
    path.write_text(f"# why this list exists\n# and who looks after it{KNOWN}")
    judge(TARGET, *ONE, "--conformance-known-failures=known.toml", "--conformance-known-failures-update")
    assert path.read_text() == "# why this list exists\n# and who looks after it\n"


def test_expired_entry_is_not_listed_twice(judge: Command, pytester: pytest.Pytester) -> None:
    path = pytester.path / "known.toml"
    path.write_text(KNOWN + "expires = 2020-01-31")
    arguments = (*ONE, "--conformance-known-failures=known.toml", "--conformance-known-failures-update")
    judged = judge("--executor=mine:Failing", *arguments)
    assert judged.status == 1
    assert "0 entries added" in judged.stdout
    assert path.read_text().strip() == (KNOWN + "expires = 2020-01-31").strip()


@pytest.mark.parametrize("arguments", [(), ("--conformance-known-failures=no/known.toml",)])
def test_update_needs_a_list(judge: Command, arguments: tuple[str, ...]) -> None:
    judged = judge(TARGET, *ONE, "--conformance-known-failures-update", *arguments)
    assert judged.status == 4, judged.output
    assert judged.stderr.startswith("ERROR: --conformance-known-failures-update")


def test_a_selection_is_not_certified(judge: Command) -> None:
    judged = judge(TARGET, *ONE, "--certify")
    assert judged.status == 1
    assert f"NOT CERTIFIED: no verdict: 1 of {len(catalogue())} rules" in judged.stdout


# -- GitHub Actions ------------------------------------------------------------------------------------------


def test_github_actions_shows_a_summary_and_annotations(
    judge: Command, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "summary.md"))
    judged = judge("--executor=mine:Untidy", "-k", f"{RULE} or {SHOULD}")
    line = (pytester.path / "mine.py").read_text().splitlines().index("class Untidy(LocalExecutor):") + 1
    (annotation,) = (each for each in judged.stdout.splitlines() if each.startswith("::"))
    assert annotation.startswith(f"::warning file=mine.py,line={line},title={SHOULD}::expected terminate()")
    assert (pytester.path / "summary.md").read_text().startswith("# mine:Untidy: no verdict: 2 of ")


def test_nothing_is_written_for_github_elsewhere(judge: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    assert "::warning" not in judge("--executor=mine:Untidy", "-k", f"{RULE} or {SHOULD}").stdout


# -- the executor's own exceptions ---------------------------------------------------------------------------

RAISING = """
    import threading
    from fixtures.plain import LocalExecutor

    class InAThread(LocalExecutor):
        def start(self):
            super().start()
            thread = threading.Thread(target=self._collect)
            thread.start()
            thread.join()

        def _collect(self):
            raise ValueError("from mine")

        def get_event_buffer(self, dag_ids=None):
            return {}

    class InACall(LocalExecutor):
        def start(self):
            self._collect()

        def _collect(self):
            raise ValueError("from mine")
"""


@pytest.mark.parametrize("name", ["InAThread", "InACall"])
def test_traceback_of_the_executor_is_shown(judge: Command, pytester: pytest.Pytester, name: str) -> None:
    pytester.makepyfile(raising=RAISING)
    judged = judge(f"--executor=raising:{name}", *ONE)
    assert judged.status == 1
    shown = [line.strip() for line in judged.stdout.splitlines()]
    start, end = shown.index("Traceback (most recent call last):"), shown.index("ValueError: from mine")
    assert 'raise ValueError("from mine")' in shown[start:end]
    assert not any("executor_conformance/" in line for line in shown[start:end])


SECRETIVE = """
    from fixtures.plain import LocalExecutor

    class Secretive(LocalExecutor):
        def __init__(self, parallelism=4, api_token="", urls=(), pin=0):
            super().__init__(parallelism)
            self._token, self._urls = api_token, urls

        def start(self):
            print("connecting with", self._token, "to", self._urls)
            raise ConnectionError(self._token)

    class Unbuilt(Secretive):
        def __init__(self, **options):
            raise ConnectionError(repr(options))
"""


@pytest.mark.parametrize("name", ["Secretive", "Unbuilt"])
def test_secret_options_are_never_shown(judge: Command, pytester: pytest.Pytester, name: str) -> None:
    pytester.makepyfile(secretive=SECRETIVE)
    judged = judge(
        f"--executor=secretive:{name}",
        *("--executor-option=api_token=hunter2", "--executor-option=urls=['amqp://me:letmein@host']"),
        *("--executor-option=pin=7", "--conformance-redact=urls", "--conformance-redact=pin"),
        *("--conformance-report=x.md", "--conformance-report=x.html", "--junitxml=j.xml", "-v", *ONE),
    )
    written = [
        path.read_text()
        for path in pytester.path.glob("*.*")
        if path.suffix in (".json", ".md", ".xml", ".html")
    ]
    output = judged.output + "".join(written)
    assert judged.status == (4 if name == "Unbuilt" else 1)
    assert len(written) == (0 if name == "Unbuilt" else 4)
    assert "hunter2" not in output
    assert "letmein" not in output
    assert "pin=7" not in output
    assert "***" in output
    if name == "Secretive":
        assert judged.report["executor"]["options"] == dict.fromkeys(("api_token", "urls", "pin"), "***")
        assert "'--executor-option=api_token=***'" in judged.stdout


# -- ini keys ------------------------------------------------------------------------------------------------

INI = """
    [pytest]
    executor = mine:make
    executor_options =
        start_method = "spawn"
    executor_adapter = native
    conformance_level = should
    conformance_report =
        out/a.json
        out/b.md
    conformance_time_limit = 100
"""


@pytest.mark.parametrize("folder", [".", "sub"])
def test_ini_keys(judge: Command, pytester: pytest.Pytester, folder: str) -> None:
    pytester.makeini(INI.replace("[pytest]", "[pytest]\n    pythonpath = ."))
    pytester.mkdir("out")
    pytester.mkdir("sub")
    process = judge.start(*ONE, folder=pytester.path / folder)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stdout + stderr
    report = json.loads((pytester.path / "out" / "a.json").read_text())
    assert report["executor"]["options"] == {"start_method": "spawn"}
    assert report["level"] == "should"
    assert report["verdict"].startswith("no verdict: 1 of ")
    assert (pytester.path / "out" / "b.md").read_text().startswith(f"# mine:make: {report['verdict']}\n")


def test_command_line_wins_over_ini(judge: Command, pytester: pytest.Pytester) -> None:
    pytester.makeini(INI)
    pytester.mkdir("out")
    judged = judge(
        "--executor=mine:Untidy",
        "--executor-option=start_method=fork",
        "--conformance-level=must",
        "-k",
        f"{RULE} or {SHOULD}",
    )
    assert judged.status == 0
    assert judged.report["executor"]["target"] == "mine:Untidy"
    assert judged.report["executor"]["options"] == {"start_method": "fork"}
    assert os.listdir(pytester.path / "out") == []


def test_pyproject(judge: Command, pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml(
        '[tool.pytest.ini_options]\nexecutor = "mine:make"\nexecutor_options = ["start_method = \'spawn\'"]\n'
    )
    judged = judge(*ONE)
    passed(judged)
    assert judged.report["executor"]["options"] == {"start_method": "spawn"}


# -- reports -------------------------------------------------------------------------------------------------


def test_several_reports_at_once(judge: Command, pytester: pytest.Pytester) -> None:
    judged = judge(
        "--executor=mine:Failing",
        "-k",
        "lifecycle.runs or end-twice",
        "--conformance-report=a.json",
        "--conformance-report=b.md",
    )
    assert json.loads((pytester.path / "a.json").read_text()) == judged.report
    markdown = (pytester.path / "b.md").read_text()
    assert markdown.startswith("# mine:Failing: not conformant\n")
    assert RULE in markdown


@pytest.mark.parametrize(
    "target", ["mine:Failing", "mine:Outer.Inner", "concurrent.futures:ThreadPoolExecutor"]
)
def test_json_report_matches_its_schema(judge: Command, target: str) -> None:
    judged = judge(f"--executor={target}", "-k", "interface or lifecycle")
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(judged.report, schema(), cls=jsonschema.Draft202012Validator)
    totals = {verdict: 0 for counts in judged.report["summary"].values() for verdict in counts}
    for counts in judged.report["summary"].values():
        for verdict, count in counts.items():
            totals[verdict] += count
    for verdict, count in totals.items():
        assert len(judged.rules(verdict)) == count


# -- usage errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--executor=min:make"], ["'min'", "did you mean 'mine'?"]),
        (["--executor=mine.deep:make"], ["'mine.deep:make'", "'mine.deep'"]),
        (["--executor=mine:mak"], ["'mak'", "did you mean 'make'?"]),
        (["--executor=mine:Outer.Iner"], ["'Iner'", "did you mean 'Inner'?"]),
        (["--executor=mine.make"], ["'mine.make'", "did you mean mine:make?"]),
        (["--executor=mine"], ["'mine'", "module:Class"]),
        (["--executor=mine:"], ["'mine:'", "module:Class"]),
        (["--executor="], ["--executor", "module:Class"]),
        (["--executor=mine:VALUE"], ["42", "not callable"]),
        (["--executor=mine:NoFamily"], ["NoFamily", "execute_async", "--executor-adapter"]),
        (["--executor=mine:make", "--executor-adapter=natve"], ["'natve'", "did you mean 'native'?"]),
        (["--executor=mine:make", "--conformance-level=shoud"], ["'shoud'", "did you mean 'should'?"]),
        (["--executor=mine:make", "--conformance-report=x.jsn"], ["'x.jsn'", ".json"]),
        (["--executor=mine:make", "--conformance-report=x"], ["'x'", ".json"]),
        (["--executor=mine:make", "--conformance-report=no/x.json"], ["/no'", "does not exist"]),
        (["--executor=mine:make", "--executor-option=a"], ["'a'", "KEY=VALUE"]),
        (["--executor=mine:make", "--executor-option=a=[1"], ["'[1'", "TOML"]),
        (["--executor=mine:make", "--executor-option=1a=1"], ["'1a=1'", "KEY=VALUE"]),
        (
            ["--executor=mine:make", "--executor-option=parallelism=2"],
            ["parallelism=2", "each rule chooses it"],
        ),
        (["--executor=mine:make", "--conformance-time-limit=long"], ["'long'", "seconds"]),
        (["--executor=mine:make", "--conformance-time-limit=nan"], ["'nan'", "seconds"]),
        (["--executor=mine:make", "--executor=mine:Failing"], ["--executor is given 2 times"]),
        (["--explain", RULE, "--certify"], ["--certify has no effect with --explain"]),
        (["--executor=mine:make", "--conformance-redact=ur"], ["--conformance-redact='ur'"]),
        (["--conformance-report=x.json"], ["--conformance-report has no effect without --executor"]),
        (["--conformance-known-failures=x"], ["--conformance-known-failures has no effect without --ex"]),
        (["--executor-option=a=1"], ["--executor-option has no effect without --executor"]),
        (["--explain", RULE, "--conformance-rules"], ["--explain", "--conformance-rules", "use one of"]),
        (["--explain", "lifecycle.runs-a-tsk"], ["'lifecycle.runs-a-tsk'", f"did you mean '{RULE}'?"]),
        (
            ["--executor=mine:make", "-k", "lifecycle.runs-a-tsk"],
            ["'lifecycle.runs-a-tsk'", f"did you mean '{RULE}'?"],
        ),
        (["--executor=mine:make", "-k", "lifecycle.runs-a-tsk", "-n2"], [f"did you mean '{RULE}'?"]),
        (
            ["--executor=mine:make", "-k", "lifecycle.runs-a-tsk", "-pno:cacheprovider"],
            [f"did you mean '{RULE}'?"],
        ),
        (["--executor=mine:make", "-k", "lifecycle.runs-a-tsk", "--lf"], [f"did you mean '{RULE}'?"]),
        (
            ["--executor=mine:make", "-k", f"{RULE} or lifecycle.end-twce-is-harmless"],
            ["lifecycle.end-twice-is-harmless"],
        ),
        (["--executor=mine:make", "-k", "nosuch"], ["no rules match", "'nosuch'"]),
        (["--executor=mine:make", "-m", "nosuch"], ["no rules match", "'nosuch'"]),
        (["--executor=mine:make", *ONE, "--deselect=lifecycle::runs-a-task"], ["no rules match"]),
    ],
    ids=lambda value: " ".join(value[-2:]) if value[0].startswith("-") else "",
)
def test_usage_errors(judge: Command, arguments: list[str], parts: list[str]) -> None:
    process = judge.start(*arguments)
    stdout, stderr = process.communicate()
    output = stdout + stderr
    assert process.returncode == 4, output
    lines = [line for line in output.splitlines() if line.startswith("ERROR: ")]
    assert len(lines) == 1, output
    for part in parts:
        assert part in lines[0]
    assert "Traceback" not in output
    assert "INTERNALERROR" not in output
    assert "conformant at level" not in output, "no verdict without rules"
    assert judge.left_alive() == []
    assert judge.left_in_tmp() == []


def test_module_with_an_error_shows_the_error(judge: Command, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(erring="import nosuchmodule")
    judged = judge("--executor=erring:Executor")
    assert judged.status == 4
    assert "importing erring failed: ModuleNotFoundError: No module named 'nosuchmodule'" in judged.stderr
    assert len(judged.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            ["--executor=executor_reference:LocalExecutor", "--executor-option=start_metod=fork"],
            ["LocalExecutor takes no argument 'start_metod'", "did you mean 'start_method'?"],
        ),
        (
            ["--executor=concurrent.futures:ThreadPoolExecutor", "--executor-option=x=1"],
            ["takes no argument 'x' (it takes thread_name_prefix, initializer, initargs)"],
        ),
        (
            ["--executor=mine:make", "--executor-option=nosuch=1"],
            ["unexpected keyword argument 'nosuch'", 'mine.py", line', "in make"],
        ),
        (["--executor=mine:Abstract"], ["it cannot be constructed", "abstract class Abstract"]),
        (["--executor=mine:Raising"], ["mine.py", "in __init__", "ConnectionError: no broker"]),
        (["--executor=os:getcwd"], ["no adapter recognizes an instance of str"]),
    ],
    ids=lambda value: value[-1] if value[0].startswith("--") else "",
)
def test_target_that_cannot_be_constructed(judge: Command, arguments: list[str], lines: list[str]) -> None:
    judged = judge(*arguments)
    assert judged.status == 4, judged.output
    assert judged.report == {}
    for line in lines:
        assert line in judged.stderr
    assert "executor_conformance/" not in judged.stderr


# -- the specification on the terminal -----------------------------------------------------------------------


def test_explain(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--explain", RULE)
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"{RULE} (must)", "*", "Why", "Likely causes", "Origin"], consecutive=False)


def test_list_of_rules(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--conformance-rules")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["interface", "lifecycle", f"  must *{RULE}", "* rules; --explain RULE *"])


# -- cost for runs without an executor -----------------------------------------------------------------------


def test_plugin_imports_almost_nothing() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import executor_conformance.plugin;"
        "print(*sorted(set(sys.modules) - before))"
    )
    imported = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(imported) <= {"executor_conformance", "executor_conformance.plugin"}


def test_session_without_executor_imports_only_the_hooks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_own="""
        import sys

        def test_own():
            ours = {name for name in sys.modules if name.startswith("executor_conformance")}
            assert ours == {
                "executor_conformance", "executor_conformance.plugin", "executor_conformance.plugin.hooks"
            }
            assert "psutil" not in sys.modules or "xdist" in sys.modules
        """
    )
    pytester.runpytest_subprocess("-p", "no:xdist").assert_outcomes(passed=1)


def test_repository_path_is_correct(mine: Path) -> None:
    assert (REPOSITORY / "fixtures" / "hostile").is_dir()
