"""The pytest plugin: options, and nothing else until ``--executor`` is given.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import pytest

LEVELS = ("must", "should")
PROGRAMS = 60


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("executor conformance", "judge a task executor (executor-conformance)")
    group.addoption(
        "--executor",
        metavar="MODULE:CLASS",
        help="the executor to judge: a class, or any callable that returns an executor",
    )
    group.addoption(
        "--executor-option",
        metavar="KEY=VALUE",
        action="append",
        help="a constructor argument; VALUE is TOML, and a bare word is a string (may be repeated)",
    )
    group.addoption(
        "--executor-adapter", metavar="NAME", help="the family of the executor, where its class does not tell"
    )
    group.addoption(
        "--conformance-level",
        metavar="LEVEL",
        help="what counts for the verdict and the exit status: must (default) or should",
    )
    group.addoption(
        "--conformance-report",
        metavar="PATH",
        action="append",
        help="write a report; the suffix decides: .json, .html or .md (may be repeated)",
    )
    group.addoption(
        "--conformance-time-limit",
        metavar="SECONDS",
        help="of the whole run (default 240); what is not judged by then stays inconclusive",
    )
    group.addoption(
        "--conformance-known-failures",
        metavar="FILE",
        help="failures that do not fail the run (TOML); one that passes does",
    )
    group.addoption(
        "--conformance-seed",
        metavar="N",
        help="repeat what chance did in the run that printed this seed (default: another one each time)",
    )
    group.addoption(
        "--conformance-programs",
        metavar="N",
        help=f"how many programs of chance each rule of chapter model may perform (default {PROGRAMS})",
    )
    group.addoption(
        "--replay",
        metavar="FILE",
        help="perform again the program that a run has written down, on the same executor or on --executor",
    )
    group.addoption("--explain", metavar="RULE", help="print what is known of a rule, and exit")
    group.addoption(
        "--conformance-rules", action="store_true", default=False, help="list all rules, and exit"
    )
    parser.addini("executor", "default of --executor", default="")
    parser.addini(
        "executor_options", "defaults of --executor-option, one a line", type="linelist", default=[]
    )
    parser.addini("executor_adapter", "default of --executor-adapter", default="")
    parser.addini("conformance_level", "default of --conformance-level", default="")
    parser.addini("conformance_report", "defaults of --conformance-report", type="linelist", default=[])
    parser.addini("conformance_known_failures", "default of --conformance-known-failures", default="")
    parser.addini("conformance_seed", "default of --conformance-seed", default="")
    parser.addini("conformance_programs", "default of --conformance-programs", default="")
    parser.addini("conformance_time_limit", "default of --conformance-time-limit", default="")


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from executor_conformance.plugin import hooks

    pluginmanager.add_hookspecs(hooks)


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    if config.option.explain is None and not config.option.conformance_rules:
        return None
    from executor_conformance.plugin import explain

    return explain.main(config)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    option = config.option
    if option.executor is None and option.replay is None and not config.getini("executor"):
        return
    from executor_conformance.plugin.session import ConformanceSession
    from executor_conformance.plugin.settings import Settings

    session = ConformanceSession(config, Settings.read(config))
    config.pluginmanager.register(session, "executor-conformance-session")
