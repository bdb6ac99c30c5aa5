"""What the user asked for: the command line, then the ini file, checked before anything is run."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest

from executor_conformance.harness.context import DEFAULT_PROGRAMS
from executor_conformance.plugin import LEVELS, known_failures, replays, selection
from executor_conformance.plugin.secrets import HIDDEN, Secrets
from executor_conformance.report import WRITERS, html_format

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Settings:
    """The checked options of a run.

    :raises pytest.UsageError: (from :meth:`read`) names the option, the value and what is allowed.
    """

    executor: str
    options: Mapping[str, Any]
    options_as_given: tuple[str, ...]
    adapter: str | None
    level: str
    reports: tuple[str, ...]
    time_limit_s: float | None
    known_failures: tuple[known_failures.KnownFailure, ...]
    seed: int | None
    programs: int
    replay: replays.Replay | None
    redact: tuple[str, ...] = ()
    known_failures_path: str = ""
    update: bool = False
    certify: bool = False

    @classmethod
    def read(cls, config: pytest.Config) -> Settings:
        option = config.option
        selection.check_expression(option.keyword)
        if option.executor == "":
            raise pytest.UsageError("--executor='' is empty; use module:Class")
        replay = None if option.replay is None else replays.read(option.replay)
        executor = option.executor or config.getini("executor")
        options = [*config.getini("executor_options"), *(option.executor_option or [])]
        adapter = option.executor_adapter or config.getini("executor_adapter") or None
        if replay is not None and option.executor is None:  # on the one on which it was found
            executor, options = replay.executor, [*replay.options, *(option.executor_option or [])]
            adapter = option.executor_adapter or replay.adapter or None
            if not executor:
                raise pytest.UsageError(f"--replay={replay.path!r} does not name an executor; add --executor")
        # As for pytest's own keys, paths in an ini file are relative to it.
        folder = config.inipath.parent if config.inipath else config.rootpath
        reports = option.conformance_report or [
            str(folder / path) for path in config.getini("conformance_report")
        ]
        listed = option.conformance_known_failures
        if listed is None and config.getini("conformance_known_failures"):
            listed = str(folder / config.getini("conformance_known_failures"))
        if option.conformance_known_failures_update:
            if listed is None:
                raise pytest.UsageError(
                    "--conformance-known-failures-update needs --conformance-known-failures=FILE"
                )
            known_failures.check_updatable(listed)
        return cls(
            executor=executor,
            options=_options(options),
            options_as_given=tuple(options),
            adapter=adapter,
            level=_level(option.conformance_level or config.getini("conformance_level") or "must"),
            known_failures=known_failures.read(listed) if listed and _is_there(listed, option) else (),
            reports=tuple(map(_report, reports)),
            time_limit_s=_seconds(option.conformance_time_limit or config.getini("conformance_time_limit")),
            seed=_number("--conformance-seed", option.conformance_seed or config.getini("conformance_seed")),
            programs=_programs(option.conformance_programs or config.getini("conformance_programs")),
            replay=replay,
            known_failures_path=listed or "",
            update=bool(option.conformance_known_failures_update),
            certify=bool(option.certify),
            redact=_redact(
                [*config.getini("conformance_redact"), *(option.conformance_redact or ())], options
            ),
        )

    @cached_property
    def secrets(self) -> Secrets:
        """The options that no output may show, such as ``api_token``."""
        return Secrets(self.options, self.redact)

    def open_options(self) -> list[str]:
        """The options as they were given, without the secret ones."""
        return [line for line in self.options_as_given if self.secrets.shown_line(line) == line]

    def as_arguments(self, *, whole: bool = False) -> list[str]:
        """The command-line arguments that name the same executor again.

        :param whole: also those by which the verdict may differ.
        """
        words = [f"--executor={self.executor}"]
        if self.adapter:
            words.append(f"--executor-adapter={self.adapter}")
        words += [f"--executor-option={self.secrets.shown_line(line)}" for line in self.options_as_given]
        if whole and self.level != LEVELS[0]:
            words.append(f"--conformance-level={self.level}")
        if whole and self.programs != DEFAULT_PROGRAMS:
            words.append(f"--conformance-programs={self.programs}")
        if whole and self.known_failures_path:
            words.append(f"--conformance-known-failures={self.known_failures_path}")
        return words


def _redact(names: Sequence[str], options: Sequence[str]) -> tuple[str, ...]:
    given = {line.partition("=")[0].strip() for line in options}
    for name in names:
        if name not in given:
            near = difflib.get_close_matches(name, given, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise pytest.UsageError(
                f"--conformance-redact={name!r}: there is no --executor-option={name}{hint}"
            )
    return tuple(names)


def _is_there(path: str, option: Any) -> bool:
    """Whether there is a list to be read; the first update makes it."""
    return os.path.exists(path) or not option.conformance_known_failures_update


def _options(lines: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for line in lines:
        key, equals, text = line.partition("=")
        key, text = key.strip(), text.strip()
        if not equals or not key.isidentifier():
            raise pytest.UsageError(
                f"--executor-option={line!r} is not of the form KEY=VALUE (KEY is the name of an argument)"
            )
        if key == "parallelism":
            raise pytest.UsageError(
                f"--executor-option={line!r}: parallelism cannot be an option, because each rule chooses it"
            )
        try:
            options[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError as error:
            # A shell eats the quotes of a TOML string, so a bare word is one too.
            if re.fullmatch(r"[A-Za-z_/.][\w./:@%+-]*", text) and "\n" not in text:
                options[key] = text
                continue
            shown = HIDDEN if Secrets({}).is_secret(key) else text
            raise pytest.UsageError(
                f"--executor-option={f'{key}={shown}'!r}: {shown!r} is not a TOML value ({error}); quote a "
                f"""string, as in --executor-option='{key}="{shown}"'"""
            ) from None
    return options


def _level(text: str) -> str:
    if text not in LEVELS:
        near = difflib.get_close_matches(text, LEVELS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise pytest.UsageError(f"--conformance-level={text!r} is not one of {', '.join(LEVELS)}{hint}")
    return text


def _report(path: str) -> str:
    suffix = os.path.splitext(path)[1]
    if suffix not in WRITERS:
        raise pytest.UsageError(
            f"--conformance-report={path!r}: unknown suffix {suffix!r}; supported: {', '.join(WRITERS)}"
        )
    if suffix == ".html" and (remedy := html_format.missing_requirement()):
        raise pytest.UsageError(f"--conformance-report={path!r}: HTML reports need Jinja2: {remedy}")
    path = os.path.abspath(path)
    if not os.path.isdir(os.path.dirname(path)):
        raise pytest.UsageError(f"--conformance-report: directory {os.path.dirname(path)!r} does not exist")
    if os.path.isdir(path) or not os.access(path if os.path.exists(path) else os.path.dirname(path), os.W_OK):
        raise pytest.UsageError(f"--conformance-report: {path!r} is not writable")
    return path


def _seconds(text: str | None) -> float | None:
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise pytest.UsageError(f"--conformance-time-limit={text!r} is not a positive number of seconds")
    return seconds


def _number(option: str, text: str | None) -> int | None:
    if not text:
        return None
    if not re.fullmatch(r"\d{1,18}", text):
        raise pytest.UsageError(f"{option}={text!r} is not a non-negative whole number")
    return int(text)


def _programs(text: str | None) -> int:
    number = _number("--conformance-programs", text)
    if number == 0:
        raise pytest.UsageError(
            "--conformance-programs='0' would check nothing; deselect the rules with -k instead"
        )
    return DEFAULT_PROGRAMS if number is None else number
