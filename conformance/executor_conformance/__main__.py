"""Read reports and check recorded histories (to test an executor: pytest --executor=module:Class)."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import IO, NoReturn

from executor_conformance.history import airflow
from executor_conformance.history.checker import HistoryChecker, Kind, NotAnEventLog, check_lines
from executor_conformance.report import WRITERS, badge, html_format, reading

#: As for pytest: the input is wrong.
_USAGE_ERROR = 4


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(_USAGE_ERROR, f"{self.format_usage()}{self.prog}: error: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 for a history without violations, 1 for one with some, 4 for what is no history."""
    parser = _Parser(prog="executor-conformance", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check-history", help="check an event log", description="Check an event log in JSON Lines."
    )
    check.add_argument("file", help="event log in JSON Lines; - for standard input")
    check.add_argument(
        "--parallelism",
        type=_parallelism,
        default=0,
        metavar="N",
        help="how many tasks may run at once (default: no limit)",
    )
    check.add_argument(
        "--no-starts",
        action="store_true",
        help="the log does not record the start of every task: a success without a start is no violation",
    )
    check.add_argument(
        "--show",
        type=int,
        default=50,
        metavar="N",
        help="print at most N violations (default: %(default)s); all are counted",
    )
    check.set_defaults(run=_check_history)
    read = commands.add_parser(
        "history-from-airflow",
        help="make an event log from Airflow's database",
        description="Write the history in an Airflow metadata database (SQLite) as JSON Lines.",
    )
    read.add_argument("file", metavar="DATABASE", help="for example airflow.db; it is opened read-only")
    read.set_defaults(run=_history_from_airflow)
    for name, formats, run, what in (
        ("report", ("md", "html", "json"), _report, "show a JSON report in another format"),
        ("badge", ("svg", "json"), _badge, "make a badge of a JSON report: SVG, or JSON for shields.io"),
    ):
        convert = commands.add_parser(
            name, help=what, description=f"{what[0].upper()}{what[1:]}, on standard output."
        )
        convert.add_argument("file", metavar="REPORT", help="as --conformance-report=PATH.json wrote it")
        convert.add_argument("--to", choices=formats, default=formats[0], help="default: %(default)s")
        convert.set_defaults(run=run)
    diff = commands.add_parser(
        "diff",
        help="compare two JSON reports",
        description="Show each rule whose verdict changed. The exit status is 1 if a rule that counts at the "
        "level of the newer report passed before, and now fails, is blocked or did not run.",
    )
    diff.add_argument("old", metavar="OLD")
    diff.add_argument("file", metavar="NEW")
    diff.set_defaults(run=_diff)
    matrix = commands.add_parser(
        "matrix",
        help="show JSON reports side by side",
        description="Write a Markdown table of rules by executors.",
    )
    matrix.add_argument("files", nargs="+", metavar="REPORT")
    matrix.set_defaults(run=_matrix)
    given = parser.parse_args(arguments)
    with contextlib.suppress(AttributeError):  # a replaced stream may lack it
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        status: int = given.run(given)
        return status
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except airflow.NotAirflow as error:
        print(f"executor-conformance: {error}", file=sys.stderr)
    except reading.NotAReport as error:
        print(f"executor-conformance: {error}", file=sys.stderr)
    except NotAnEventLog as error:
        print(f"executor-conformance: {given.file}: not a valid event log: {error}", file=sys.stderr)
    except OSError as error:
        print(f"executor-conformance: cannot read {error.filename!r}: {error.strerror}", file=sys.stderr)
    return _USAGE_ERROR


def _check_history(given: argparse.Namespace) -> int:
    checker = HistoryChecker(parallelism=given.parallelism, starts_are_known=not given.no_starts)
    violations = 0
    with _opened(given.file) as file:
        for violation in check_lines(file, checker):
            violations += 1
            if violations <= given.show:
                print(violation)
    if violations > given.show:
        print(f"... {violations - given.show} more")
    counts = checker.counts
    if not sum(counts.values()):
        raise NotAnEventLog("it contains no event")
    events = ", ".join(f"{counts[kind]} {kind}" for kind in Kind if counts[kind])
    noun = "violation" if violations == 1 else "violations"
    print(
        f"{sum(counts.values())} events ({events}); {checker.in_flight} still in flight; {violations} {noun}"
    )
    return 1 if violations else 0


def _history_from_airflow(given: argparse.Namespace) -> int:
    for line in airflow.history(given.file):
        print(line)
    return 0


def _report(given: argparse.Namespace) -> int:
    data = reading.read(given.file)
    if given.to == "html" and (remedy := html_format.missing_requirement()):
        print(f"executor-conformance: HTML reports need Jinja2: {remedy}", file=sys.stderr)
        return _USAGE_ERROR
    print(WRITERS[f".{given.to}"](data), end="")
    return 0


def _badge(given: argparse.Namespace) -> int:
    data = reading.read(given.file)
    print(badge.as_svg(data) if given.to == "svg" else badge.as_endpoint(data), end="")
    return 0


def _diff(given: argparse.Namespace) -> int:
    old, new = reading.read(given.old), reading.read(given.file)
    changes = list(reading.changes(old, new))
    regressions = sum(is_regression for is_regression, _ in changes)
    for is_regression, line in sorted(changes, key=lambda change: not change[0]):
        print(f"{'REGRESSION ' if is_regression else ''}{line}")
    changed = "1 verdict changed" if len(changes) == 1 else f"{len(changes)} verdicts changed"
    noun = "regression" if regressions == 1 else "regressions"
    print(f"{old['verdict']} -> {new['verdict']}; {changed}, {regressions} {noun}")
    return 1 if regressions else 0


def _matrix(given: argparse.Namespace) -> int:
    for line in reading.matrix([reading.read(path) for path in given.files]):
        print(line)
    return 0


def _opened(name: str) -> contextlib.AbstractContextManager[IO[bytes]]:
    return contextlib.nullcontext(sys.stdin.buffer) if name == "-" else open(name, "rb")


def _parallelism(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative; 0 means no limit")
    return value


if __name__ == "__main__":
    sys.exit(main())
