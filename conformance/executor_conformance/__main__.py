"""``executor-conformance``: what the suite can do without an executor at hand."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from typing import IO, NoReturn

from executor_conformance import airflow_history
from executor_conformance.history import HistoryJudge, Kind, NotAHistory, judge_lines

#: As for pytest: the input is wrong.
_USAGE_ERROR = 4


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(_USAGE_ERROR, f"{self.format_usage()}{self.prog}: error: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 for a clean history, 1 for one with offences, 4 for what is none."""
    parser = _Parser(prog="executor-conformance", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check-history", help="judge a log of events offline", description="Judge a history in JSON Lines."
    )
    check.add_argument("file", help="JSON Lines; - for standard input")
    check.add_argument(
        "--parallelism", type=_parallelism, default=0, metavar="N", help="how many tasks may run at once"
    )
    check.add_argument(
        "--no-starts",
        action="store_true",
        help="the log does not have the start of every task, so that a success without one is no offence",
    )
    check.add_argument(
        "--show",
        type=int,
        default=50,
        metavar="N",
        help="print N offences at most (%(default)s); all are counted",
    )
    check.set_defaults(run=_check_history)
    read = commands.add_parser(
        "history-from-airflow",
        help="make such a log from Airflow's database",
        description="Write the history that an Airflow metadata database (SQLite) tells, as JSON Lines.",
    )
    read.add_argument("file", metavar="DATABASE", help="such as airflow.db; it is only read")
    read.set_defaults(run=_history_from_airflow)
    given = parser.parse_args(arguments)
    try:
        status: int = given.run(given)
        return status
    except airflow_history.NotAirflow as error:
        print(f"executor-conformance: {error}", file=sys.stderr)
    except NotAHistory as error:
        print(f"executor-conformance: {given.file}: {error}", file=sys.stderr)
    except OSError as error:
        print(f"executor-conformance: {given.file!r} cannot be read: {error.strerror}", file=sys.stderr)
    return _USAGE_ERROR


def _check_history(given: argparse.Namespace) -> int:
    judge = HistoryJudge(parallelism=given.parallelism, starts_are_known=not given.no_starts)
    offences = 0
    with _opened(given.file) as file:
        for offence in judge_lines(file, judge):
            offences += 1
            if offences <= given.show:
                print(offence)
    if offences > given.show:
        print(f"... {offences - given.show} more")
    counts = judge.counts
    if not sum(counts.values()):
        raise NotAHistory("there is no event in it")
    told = ", ".join(f"{counts[kind]} {kind}" for kind in Kind if counts[kind])
    print(f"{sum(counts.values())} events ({told}); {judge.in_flight} still in flight; {offences} offences")
    return 1 if offences else 0


def _history_from_airflow(given: argparse.Namespace) -> int:
    for line in airflow_history.history(given.file):
        print(line)
    return 0


def _opened(name: str) -> contextlib.AbstractContextManager[IO[bytes]]:
    return contextlib.nullcontext(sys.stdin.buffer) if name == "-" else open(name, "rb")


def _parallelism(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative; 0 means without limit")
    return value


if __name__ == "__main__":
    sys.exit(main())
