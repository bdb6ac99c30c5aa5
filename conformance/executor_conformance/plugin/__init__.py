"""The pytest plugin: options, and nothing else until ``--executor`` is given.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import sys

import pytest

LEVELS = ("must", "should")
#: The options that have no effect unless an executor is judged.
_ONLY_WITH_EXECUTOR = (
    "executor_option",
    "executor_adapter",
    "conformance_level",
    "conformance_report",
    "conformance_time_limit",
    "conformance_known_failures",
    "conformance_seed",
    "conformance_programs",
    "conformance_redact",
    "conformance_known_failures_update",
    "certify",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("executor conformance", "check a task executor (executor-conformance)")
    group.addoption(
        "--executor",
        metavar="MODULE:CLASS",
        help="the executor to check: a class, or any callable that returns an executor",
    )
    group.addoption(
        "--executor-option",
        metavar="KEY=VALUE",
        action="append",
        help="constructor argument; VALUE is TOML, a bare word is a string (may be repeated)",
    )
    group.addoption("--executor-adapter", metavar="NAME", help="adapter to use if it cannot be detected")
    group.addoption(
        "--conformance-level",
        metavar="LEVEL",
        help="which rules count for the verdict and the exit status: must (default) or should",
    )
    group.addoption(
        "--conformance-report",
        metavar="PATH",
        action="append",
        help="write a report; format by suffix: .json, .html or .md (may be repeated)",
    )
    group.addoption(
        "--conformance-time-limit",
        metavar="SECONDS",
        help="time limit in seconds for all hanging rules together (default: about 250, more if the executor "
        "or the machine is slow); rules not reached are inconclusive",
    )
    group.addoption(
        "--conformance-known-failures",
        metavar="FILE",
        help="TOML list of expected failures; an unexpected pass fails the run",
    )
    group.addoption(
        "--conformance-known-failures-update",
        action="store_true",
        default=None,
        help="add what fails to the list of expected failures, and remove what passes",
    )
    group.addoption(
        "--certify",
        action="store_true",
        default=None,
        help="fail unless every rule runs, none is inconclusive, and the executor is conformant at the level",
    )
    group.addoption(
        "--conformance-seed",
        metavar="N",
        help="random seed; use one printed by an earlier run to repeat it (default: a new one)",
    )
    group.addoption(
        "--conformance-programs",
        metavar="N",
        help="random call sequences tried per `model` rule (default: 60)",
    )
    group.addoption(
        "--conformance-redact",
        metavar="NAME",
        action="append",
        help="an --executor-option whose value is never shown (may be repeated); names such as api_token or "
        "password are hidden anyway",
    )
    group.addoption(
        "--replay",
        metavar="FILE",
        help="re-run a saved failing sequence, on the same executor or on --executor",
    )
    group.addoption("--explain", metavar="RULE", help="explain a rule and exit")
    group.addoption("--conformance-rules", action="store_true", default=False, help="list all rules and exit")
    parser.addini("executor", "default for --executor", default="")
    parser.addini(
        "executor_options", "defaults for --executor-option, one per line", type="linelist", default=[]
    )
    parser.addini("executor_adapter", "default for --executor-adapter", default="")
    parser.addini("conformance_level", "default for --conformance-level", default="")
    parser.addini("conformance_report", "defaults for --conformance-report", type="linelist", default=[])
    parser.addini("conformance_redact", "defaults for --conformance-redact", type="linelist", default=[])
    parser.addini("conformance_known_failures", "default for --conformance-known-failures", default="")
    parser.addini("conformance_seed", "default for --conformance-seed", default="")
    parser.addini("conformance_programs", "default for --conformance-programs", default="")
    parser.addini("conformance_time_limit", "default for --conformance-time-limit", default="")


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from executor_conformance.plugin import hooks

    pluginmanager.add_hookspecs(hooks)


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    if config.option.explain is None and not config.option.conformance_rules:
        return None
    _refuse_options_without_effect(config, "with --explain or --conformance-rules")
    if config.option.explain is not None and config.option.conformance_rules:
        raise pytest.UsageError("--explain shows one rule and --conformance-rules lists all; use one of them")
    from executor_conformance.plugin import explain

    return explain.main(config)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    option = config.option
    if option.explain is not None or option.conformance_rules:
        return
    if not _judges_an_executor(config):
        if not config.getini("executor"):
            _refuse_options_without_effect(config, "without --executor")
        return
    if len(executors := [word for word in _words(config) if word.partition("=")[0] == "--executor"]) > 1:
        raise pytest.UsageError(f"--executor is given {len(executors)} times; judge one executor in each run")
    if sys.platform != "linux":
        raise pytest.UsageError(
            "--executor needs Linux: subreapers, parent-death signals, pidfds and /proc contain an executor "
            f"and watch its processes; this is {sys.platform}. --explain, --conformance-rules and "
            "executor-conformance check-history work here"
        )
    from executor_conformance.plugin.session import ConformanceSession
    from executor_conformance.plugin.settings import Settings

    session = ConformanceSession(config, Settings.read(config))
    config.pluginmanager.register(session, "executor-conformance-session")


def _judges_an_executor(config: pytest.Config) -> bool:
    """Whether this run judges an executor: that of the ini file only if no test of the user is named."""
    worker_input = getattr(config, "workerinput", None)
    if worker_input is not None:
        return "executor_conformance" in worker_input
    if config.option.executor is not None or config.option.replay is not None:
        return True
    if not config.getini("executor"):
        return False
    from executor_conformance.plugin.selection import names_rules

    return config.args_source is not config.ArgsSource.ARGS or names_rules(config.args)


def _words(config: pytest.Config) -> list[str]:
    """What the user typed, without what an ini file or the environment adds."""
    return [str(word) for word in config.invocation_params.args]


def _refuse_options_without_effect(config: pytest.Config, when: str) -> None:
    given = {word.partition("=")[0] for word in _words(config)}
    for name in _ONLY_WITH_EXECUTOR:
        flag = f"--{name.replace('_', '-')}"
        if flag in given:
            raise pytest.UsageError(f"{flag} has no effect {when}")
