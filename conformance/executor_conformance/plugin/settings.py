"""What the user asked for: the command line, then the ini file, checked before anything is run."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from executor_conformance.harness.context import DEFAULT_PROGRAMS
from executor_conformance.plugin import LEVELS, known_failures, replays, selection
from executor_conformance.report import WRITERS, html_format

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_SHORTEST_SECRET = 4
#: A part of an option's name that says that the value is secret.
_SECRET = frozenset({"token", "password", "passwd", "secret", "key", "credentials"})


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
    update: str = ""
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
            _check_update(listed)
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
            update=os.path.abspath(listed) if listed and option.conformance_known_failures_update else "",
            certify=option.certify,
            redact=tuple(option.conformance_redact or config.getini("conformance_redact")),
        )

    def _is_secret(self, name: str) -> bool:
        return name in self.redact or any(part in _SECRET for part in name.lower().split("_"))

    @property
    def secrets(self) -> frozenset[str]:
        """Texts that no output may show: the values of options such as ``api_token``."""
        secret = {name: value for name, value in self.options.items() if self._is_secret(name)}
        # A text that is too short would be found everywhere, so only the whole argument is hidden.
        arguments = {f"{name}={value!r}" for name, value in secret.items() if not any(_texts(value))}
        return frozenset(text for value in secret.values() for text in _texts(value)) | arguments

    def shown_options(self) -> dict[str, Any]:
        """The options as reports show them."""
        return {name: "***" if self._is_secret(name) else value for name, value in self.options.items()}

    def open_options(self) -> list[str]:
        """The options as they were given, without the secret ones."""
        return [line for line in self.options_as_given if not self._is_secret(line.partition("=")[0].strip())]

    def as_arguments(self) -> list[str]:
        """The command-line arguments that name the same executor again."""
        words = [f"--executor={self.executor}"]
        if self.adapter:
            words.append(f"--executor-adapter={self.adapter}")
        for line in self.options_as_given:
            name = line.partition("=")[0].strip()
            words.append(
                f"--executor-option={name}=***" if self._is_secret(name) else f"--executor-option={line}"
            )
        return words


def _is_there(path: str, option: Any) -> bool:
    """Whether there is a list to be read; the first update makes it."""
    return os.path.exists(path) or not option.conformance_known_failures_update


def _check_update(path: str | None) -> None:
    option = "--conformance-known-failures-update"
    if path is None:
        raise pytest.UsageError(f"{option} needs --conformance-known-failures=FILE")
    if remedy := known_failures.missing_requirement():
        raise pytest.UsageError(f"{option} needs tomlkit: {remedy}")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise pytest.UsageError(f"{option}: {path!r} is not writable")


def _texts(value: Any) -> Iterator[str]:
    """The texts in a value by which a message could show it."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif len(text := str(value)) >= _SHORTEST_SECRET and not isinstance(value, bool):
        yield text
        yield repr(text)[1:-1]


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
            raise pytest.UsageError(
                f"--executor-option={line!r}: {text!r} is not a TOML value ({error}); quote a string, "
                f"""as in --executor-option='{key}="{text}"'"""
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
