"""Collects the rules and judges them, as part of a pytest session.

Under pytest-xdist the controller looks at the target and collects the verdicts; the workers judge.
"""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import random
import shlex
from collections.abc import Generator, Iterable, Mapping
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

import pytest

from executor_conformance.adapters.registry import AdapterError, adapters
from executor_conformance.discovery import Discovery, discover
from executor_conformance.harness.calibration import Calibration, calibrate
from executor_conformance.harness.context import RunContext
from executor_conformance.harness.linux import monotonic
from executor_conformance.harness.scratch import new_folder
from executor_conformance.harness.target import Target, TargetError, import_target, late_target
from executor_conformance.judging.background import Background
from executor_conformance.judging.judge import Judge
from executor_conformance.judging.runner import Runner, usual_time_limit_s
from executor_conformance.judging.store import VerdictStore
from executor_conformance.plugin import github, header, known_failures, outcomes, replays, terminal
from executor_conformance.plugin.environment import Environment
from executor_conformance.plugin.run_folder import RunFolder
from executor_conformance.plugin.selection import take_named_rules
from executor_conformance.plugin.settings import Settings
from executor_conformance.report import WRITERS, Report
from executor_conformance.requirements import Capability
from executor_conformance.rules import CHAPTERS, Chapter, Level, Rule, catalogue
from executor_conformance.verdicts import Finding, Verdict

#: Exit statuses of pytest unless the run was interrupted.
_FINISHED = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


class RuleBroken(Exception):
    """Carries a finding to pytest's report."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


class RuleItem(pytest.Item):
    """One rule, as pytest sees it."""

    def __init__(self, *, rule: Rule, conformance: ConformanceSession, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rule = rule
        self.conformance = conformance
        self.finding: Finding | None = None
        self.extra_keyword_matches.add(rule.id)

    def runtest(self) -> None:
        finding = self.conformance.judge(self.rule)
        self.finding = finding
        if finding.verdict in (Verdict.FAILED, Verdict.UNEXPECTED_PASS):
            raise finding.error or RuleBroken(finding)
        if finding.verdict is not Verdict.PASSED:
            raise pytest.skip.Exception(finding.message, _use_item_location=True)

    def repr_failure(  # type: ignore[override]
        self, excinfo: pytest.ExceptionInfo[BaseException]
    ) -> Any:
        if self.finding is not None and not getattr(self.config.option, "usepdb", False):
            return terminal.explained(self.rule, self.finding, self.conformance.settings)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[str, int, str]:
        code = self.rule.body.__code__
        return code.co_filename, self.rule.line - 1, self.rule.id


class ChapterCollector(pytest.Collector):
    """One chapter of the specification."""

    conformance: ConformanceSession
    chapter: Chapter

    def collect(self) -> Iterable[RuleItem]:
        replay = self.conformance.settings.replay and self.conformance.settings.replay.rule
        for rule in catalogue().values():
            named = self.conformance.named or {rule.id}
            if rule.chapter == self.chapter and rule.id in named and replay in (None, rule.id):
                item: RuleItem = RuleItem.from_parent(
                    self, name=rule.name, rule=rule, conformance=self.conformance
                )
                item.add_marker(rule.level.value)
                if self.config.pluginmanager.hasplugin("timeout"):  # of pytest-timeout: rules have limits
                    item.add_marker(pytest.mark.timeout(0))
                yield item


class ConformanceSession:
    """Everything between ``pytest_configure`` and the exit status."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        self.findings: dict[str, Finding] = {}
        self._started, self._began = datetime.now(timezone.utc), monotonic()
        self._report: Report | None = None
        self._remarks: list[str] = []
        self._annotations: list[str] = []
        self.rules_failed = 0
        self._refused = False
        self._folder: RunFolder | None = None
        self._judge: Judge | None = None
        self._background: Background | None = None
        self._selected: frozenset[str] = frozenset()
        self._environment = Environment()
        self._environment.notice_children()
        worker_input = getattr(config, "workerinput", None)
        for level in Level:
            config.addinivalue_line("markers", f"{level}: rules of level {level}")
        self.named = frozenset() if config.option.pyargs else take_named_rules(config.args)
        if worker_input is not None:
            self._join(worker_input["executor_conformance"])
        elif not config.option.collectonly:
            self._begin()
        if config.args_source is not config.ArgsSource.ARGS:
            config.args[:] = []
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:  # the summary has it all; --tb=short and -rA add pytest's own forms
            if config.option.tbstyle == "auto":
                config.option.tbstyle = "no"
            if config.option.reportchars == "fE":
                reporter.reportchars = ""

    # -- the run ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._folder = RunFolder()
        self.directory = self._folder.path
        try:
            self._environment.compile_probes(os.path.join(self.directory, "compiled"))
            self.calibration = calibrate()
            self.seed = random.randrange(1 << 32) if self.settings.seed is None else self.settings.seed
            self.discovery = discover(
                self.settings.executor,
                named_adapter=self.settings.adapter,
                options=self.settings.options,
                calibration=self.calibration,
                scratch=new_folder(self.directory),
                build=self._build if self._is_hooked("pytest_conformance_build_executor") else None,
                dispose=self._dispose if self._is_hooked("pytest_conformance_dispose_executor") else None,
                progress=self._show_progress,
            )
            if not os.path.isdir(self.directory):
                raise TargetError(f"--executor={self.settings.executor!r}: {self._folder_is_gone()}")
        except (TargetError, AdapterError) as error:
            self._clean()
            raise pytest.UsageError(self.settings.secrets.hide(str(error))) from None
        except BaseException:
            self._clean()
            raise

    def _show_progress(self, what: str) -> None:
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"executor: {self.settings.executor}: {what}")

    def _join(self, shared: dict[str, Any]) -> None:
        self.directory = shared["directory"]
        self.calibration = Calibration(**shared["calibration"])
        self.seed = shared["seed"]
        self.discovery = Discovery.from_dict(shared["discovery"])

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["executor_conformance"] = {
            "directory": self.directory,
            "calibration": self.calibration.as_dict(),
            "seed": self.seed,
            "discovery": self.discovery.as_dict(),
        }

    def judge(self, rule: Rule) -> Finding:
        """The finding on one rule."""
        return known_failures.apply_known_failures(self._known, rule.id, self._finding_on(rule))

    @cached_property
    def _known(self) -> Mapping[str, known_failures.KnownFailure]:
        return known_failures.in_force(self.settings.known_failures, self.discovery.distribution)

    def _finding_on(self, rule: Rule) -> Finding:
        if os.path.isdir(self.directory):
            try:
                if self._judge is None:
                    self._judge = self._make_judge()
                    self._judge.begin()
                return self._judge.judge(rule)
            except FileNotFoundError:
                if os.path.isdir(self.directory):
                    raise
        return Finding(Verdict.INCONCLUSIVE, actual=self._folder_is_gone())

    def _folder_is_gone(self) -> str:
        return (
            f"the temporary folder of this run, {self.directory}, was deleted by the executor or by another "
            "program; set TMPDIR to a folder that is not cleaned up during the run"
        )

    def _make_judge(self) -> Judge:
        facts = self.discovery.facts
        where = (
            self.settings.executor,
            self.discovery.family,
            self.settings.options,
            self._scratch(f"import-{os.getpid()}"),
        )
        lacks = {Capability[name]: why for name, why in facts.lacks.items()}
        target = (
            late_target(*where, parallelism_argument=facts.parallelism_argument, lacks=lacks)
            if facts.starts_on_import
            else import_target(*where)
        )
        gc.freeze()  # modules are never garbage: the collections of pytest, ten at its end, can skip them
        context = RunContext(
            target=target,
            budgets=self.discovery.facts.budgets(self.calibration),
            facts=self.discovery.facts,
            seed=self.seed,
            programs=self.settings.programs,
            replay=self.settings.replay.program if self.settings.replay else None,
            build=self._build if self._is_hooked("pytest_conformance_build_executor") else None,
            dispose=self._dispose if self._is_hooked("pytest_conformance_dispose_executor") else None,
        )
        store = VerdictStore(self.directory)
        contained = not (self._option("usepdb") or self._option("trace"))
        show_output = self._option("capture") == "no"
        runner = Runner(context, store, self.directory, contained=contained, show_output=show_output)
        # With -s, the output of two rules would be mixed.  A target that starts something on import may not
        # work twice at the same time.
        if contained and not show_output and not facts.starts_on_import:
            self._background = Background(runner.run, self.directory)
        return Judge(
            runner.run,
            store,
            selected=self._selected,
            lacks=target.lacks,
            lacks_itself=lacks,
            location=facts.location,
            time_limit_s=self.settings.time_limit_s or usual_time_limit_s(context.budgets),
            replaying=self.settings.replay is not None,
            background=self._background,
            hide=self.settings.secrets.hide,
        )

    def _option(self, name: str) -> Any:
        """One of pytest's own options, or ``None`` where ``-p no:`` left out the plugin that has it."""
        return getattr(self.config.option, name, None)

    def _is_hooked(self, name: str) -> bool:
        return bool(getattr(self.config.hook, name).get_hookimpls())

    def _build(self, target: Target, arguments: dict[str, Any]) -> Any:
        built = self.config.hook.pytest_conformance_build_executor(target=target.spec, arguments=arguments)
        return target.make(**arguments) if built is None else built

    def _dispose(self, executor: Any) -> None:
        self.config.hook.pytest_conformance_dispose_executor(executor=executor)

    def _scratch(self, name: str) -> str:
        path = os.path.join(self.directory, name)
        os.makedirs(path, exist_ok=True)
        return path

    def _clean(self) -> None:
        self._environment.restore()
        if self._folder is not None:
            self._folder.remove()

    # -- collection ------------------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        report = yield
        if isinstance(collector, pytest.Session) and report.passed:
            for chapter in CHAPTERS.values():
                collected: ChapterCollector = ChapterCollector.from_parent(
                    collector, name=chapter.name, nodeid=chapter.name
                )
                collected.conformance, collected.chapter = self, chapter
                report.result.append(collected)
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=_runs_alone)  # at the end, nothing that they would wait for is still running
        self._selected = frozenset(item.rule.id for item in items if isinstance(item, RuleItem))
        if not self._selected and not hasattr(self.config, "workerinput"):
            self._refuse_empty_selection()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Check what a worker has selected: an error of the worker itself would look like a crash."""
        if not any(nodeid.partition("::")[0] in CHAPTERS for nodeid in ids):
            self._refuse_empty_selection()

    def _refuse_empty_selection(self) -> None:
        asked = [
            f"{flag} {value!r}"
            for flag, name in (("-k", "keyword"), ("-m", "markexpr"), ("--deselect", "deselect"))
            if (value := self._option(name))
        ]
        if self._option("lf"):
            asked.append("--lf")
        self._refused = True
        raise pytest.UsageError(
            f"no rules match {', '.join(asked) if asked else 'this selection'} "
            "(--conformance-rules lists all rules)"
        )

    # -- reports ---------------------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.when == "call" and isinstance(item, RuleItem) and item.finding is not None:
            # --pdb stops at failures that do not count, too.
            level = "should" if self._option("usepdb") else self.settings.level
            outcomes.settle(report, item.rule, item.finding, level, self._selected)
            # pytest writes them to JUnit files.
            item.user_properties += [
                ("level", item.rule.level.value),
                ("verdict", item.finding.verdict.value),
            ]
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found = outcomes.carried(report)
        if found is not None:
            rule_id, self.findings[rule_id] = found
            self.rules_failed += report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        return outcomes.status(report)

    def pytest_report_header(self) -> list[str]:
        if not hasattr(self, "discovery"):
            return []
        return header.lines(self.settings.executor, self.discovery, self.calibration, self.seed)

    def report(self, interrupted: bool) -> Report:
        """The report on what was found so far."""
        found = dict(self.findings)
        judged = {
            rule_id: known_failures.apply_known_failures(self._known, rule_id, finding)
            for rule_id, finding in VerdictStore(self.directory).all().items()
        }
        blockers = {finding.blocked_by for finding in found.values()}
        while blockers:  # the reader needs to see them, whether they were selected or not
            found.update({rule_id: judged[rule_id] for rule_id in blockers & judged.keys()})
            blockers = {finding.blocked_by for finding in found.values()} & judged.keys() - found.keys()
        return Report(
            target=self.settings.executor,
            adapter=self.discovery.family,
            distribution=self.discovery.distribution,
            options=self.settings.secrets.shown(self.settings.options),
            machine={
                "python": platform.python_version(),
                "platform": platform.platform(),
                "cpus": len(os.sched_getaffinity(0)),
                "calibration": self.calibration.as_dict(),
            },
            level=self.settings.level,
            findings=tuple((rule, found[rule.id]) for rule in catalogue().values() if rule.id in found),
            all_rules=len(catalogue()),
            seed=self.seed,
            started=self._started.isoformat(timespec="seconds"),
            duration_s=monotonic() - self._began,
            command=shlex.join(
                ["pytest", *self.settings.as_arguments(whole=True), f"--conformance-seed={self.seed}"]
            ),
            interrupted=interrupted,
            tasks=self.discovery.facts.location,
            saw_a_task=self.discovery.facts.forked is not None or _passed(found, "lifecycle.runs-a-task"),
            stubs=adapters()[self.discovery.family].stubs,
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if hasattr(self.config, "workerinput") or self.config.option.collectonly:
            return
        if self._refused or exitstatus == pytest.ExitCode.USAGE_ERROR:
            return
        # Hypothesis calls gc.get_referrers(), which does not see frozen objects.
        gc.unfreeze()
        report = self._report = self.report(interrupted=self._was_interrupted(session, exitstatus))
        outcomes.add_properties(
            self.config,
            {
                "executor": report.target,
                "distribution": report.distribution or "",
                "adapter": report.adapter,
                "level": report.level,
                "verdict": report.verdict,
                "seed": self.seed,
                "executor-conformance": report.suite_version,
                "python": report.machine["python"],
            },
        )
        data = report.as_dict()
        for path in self.settings.reports:
            # messages may contain anything that an executor put there
            with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(WRITERS[os.path.splitext(path)[1]](data))
        github.write_summary(data)
        self._annotations = list(github.commands(data, self.discovery.source))
        self._write_replays(report)
        by_id = {rule.id: finding for rule, finding in report.findings}
        self._remarks += known_failures.remarks(
            self.settings.known_failures, self.discovery.distribution, by_id
        )
        if not report.interrupted:
            others_failed = session.testsfailed > self.rules_failed
            green = report.green
            if self.settings.update:
                self._remarks.append(
                    known_failures.update(self.settings.known_failures_path, report.findings, self._known)
                )
            if self.settings.certify and (objection := report.objection_to_certificate()):
                self._remarks.append(f"NOT CERTIFIED: {objection}")
                green = False
            ok = green and not others_failed
            session.exitstatus = pytest.ExitCode.OK if ok else pytest.ExitCode.TESTS_FAILED

    @staticmethod
    def _was_interrupted(session: pytest.Session, exitstatus: int) -> bool:
        """Whether the run did not end by itself.  With pytest-xdist, ``-x`` looks like an interruption."""
        most = session.config.getoption("maxfail", None) or 0
        return exitstatus not in _FINISHED and not 0 < most <= session.testsfailed

    def _write_replays(self, report: Report) -> None:
        if self.settings.replay is not None:
            return
        for rule, finding in report.findings:
            trace = replays.trace_of(finding)
            if trace is not None:
                with contextlib.suppress(OSError):  # where nothing can be written, the seed repeats it
                    replays.write(
                        str(self.config.invocation_params.dir),
                        rule,
                        trace,
                        finding.actual,
                        executor=self.settings.executor,
                        options=self.settings.open_options(),
                        adapter=self.settings.adapter or "",
                    )

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        if self._report is not None:
            terminal.summarize(terminalreporter, self._report, self.settings, remarks=self._remarks)
            for annotation in self._annotations:
                terminalreporter.write_line(annotation)

    def pytest_unconfigure(self) -> None:
        if self._background is not None:
            self._background.stop()
        if self._judge is not None:
            gc.freeze()
        self._clean()


def _runs_alone(item: pytest.Item) -> bool:
    return isinstance(item, RuleItem) and item.rule.turn == "alone"


def _passed(findings: Mapping[str, Finding], rule_id: str) -> bool:
    finding = findings.get(rule_id)
    return finding is not None and finding.verdict is Verdict.PASSED
