"""What the user reads: the summary at the end, and the long form of each failure with ``--tb=short``."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterable

import pytest

from executor_conformance.plugin import replays
from executor_conformance.plugin.explain import plain
from executor_conformance.plugin.settings import Settings
from executor_conformance.report import Report, order, totals
from executor_conformance.rules import CHAPTERS, Level, Rule
from executor_conformance.verdicts import Finding, Verdict

#: The columns of the table: the head, the verdict, and for which level it counts the rules.
_COLUMNS = (
    ("passed", Verdict.PASSED, None),
    ("must failed", Verdict.FAILED, Level.MUST),
    ("should failed", Verdict.FAILED, Level.SHOULD),
    ("n/a", Verdict.NOT_APPLICABLE, None),
    ("inconclusive", Verdict.INCONCLUSIVE, None),
    ("blocked", Verdict.BLOCKED, None),
)
#: Shown only if there are any.
_RARE_COLUMNS = (
    ("may failed", Verdict.FAILED, Level.MAY),
    ("known failure", Verdict.KNOWN_FAILURE, None),
    ("unexpected pass", Verdict.UNEXPECTED_PASS, None),
)
_LABEL = "  {:<14}"
_EVIDENCE_LINES = 14
_NARROWEST = 60


def reproduce_command(rule: Rule, finding: Finding, settings: Settings) -> str:
    """The command that judges this rule again."""
    if settings.replay is not None:
        return shlex.join(["pytest", *settings.as_arguments(), f"--replay={settings.replay.path}"])
    if replays.trace_of(finding) is not None:
        return shlex.join(["pytest", f"--replay={replays.path_for(rule)}"])
    return shlex.join(["pytest", *settings.as_arguments(), "-k", rule.id])


def explained(rule: Rule, finding: Finding, settings: Settings) -> str:
    """A failure in full: the rule, what was expected and happened, likely causes, evidence."""
    lines = [f"{rule.id} ({rule.level}): {plain(rule.statement)}", *_core(rule, finding, settings)]
    if finding.evidence:
        lines += ["", finding.evidence]
    return "\n".join(lines)


def summarize(
    reporter: pytest.TerminalReporter, report: Report, settings: Settings, *, remarks: Iterable[str] = ()
) -> None:
    """The last screen: each failure, one row per chapter, the verdict.

    :param remarks: further lines, before the verdict.
    """
    reporter.section("executor conformance", bold=True)
    blocked: dict[str, list[str]] = {}
    for rule, finding in report.findings:
        if finding.verdict is Verdict.BLOCKED:
            blocked.setdefault(finding.blocked_by, []).append(rule.id)
    failures = [(rule, finding) for rule, finding in report.findings if finding.verdict is Verdict.FAILED]
    # The most basic failure first, because others may go away with it.
    failures.sort(key=lambda each: order(each[0].level.value, len(blocked.get(each[0].id, ()))))
    for rule, finding in failures:
        _write_failure(reporter, rule, finding, settings, blocks=len(blocked.get(rule.id, ())))
    for stub in report.stubs:
        reporter.write_line(f"STUBBED {stub}", yellow=True)
    for rule, finding in report.findings:
        if finding.verdict is Verdict.UNEXPECTED_PASS:
            reporter.write_line(f"UNEXPECTED PASS {rule.id} ({rule.level}): {finding.message}", red=True)
        if finding.verdict is Verdict.KNOWN_FAILURE:
            reporter.write_line(f"KNOWN FAILURE {rule.id} ({rule.level}): {finding.known}", yellow=True)
        if finding.verdict is Verdict.INCONCLUSIVE:
            reporter.write_line(f"INCONCLUSIVE {rule.id} ({rule.level}): {finding.message}", yellow=True)
    late = [(finding.late_s, rule.id) for rule, finding in report.findings if finding.late_s]
    if late:
        reporter.write_line(_lateness(late), yellow=True)
    hurried = [
        (rule, finding.programs_not_run) for rule, finding in report.findings if finding.programs_not_run
    ]
    for rule, count in hurried:
        programs = "1 random program was" if count == 1 else f"{count} random programs were"
        reporter.write_line(f"NOT ALL RUN: {rule.id}: {programs} left out for lack of time", yellow=True)
    for blocker, rules in blocked.items():
        noun, them = ("rule", "it") if len(rules) == 1 else ("rules", "them")
        hint = "" if reporter.verbosity > 0 else f" (-v lists {them})"
        reporter.write_line(f"{len(rules)} {noun} blocked by {blocker}{hint}", yellow=True)
        for rule_id in rules if reporter.verbosity > 0 else ():
            reporter.write_line(f"    {rule_id}")
    if failures or blocked or late or hurried or report.stubs:
        reporter.write_line("")
    _table(reporter, report)
    if reporter.verbosity > 0:
        for rule, finding in report.findings:
            if finding.verdict is Verdict.NOT_APPLICABLE:
                reporter.write_line(f"not applicable: {rule.id}: {finding.message}")
    for remark in remarks:
        reporter.write_line(remark, yellow=True)
    _verdict(reporter, report)


def _write_failure(
    reporter: pytest.TerminalReporter, rule: Rule, finding: Finding, settings: Settings, *, blocks: int
) -> None:
    consequence = f"; blocks {blocks} rule{'s' * (blocks > 1)}" if blocks else ""
    head = f"FAILED {rule.id} ({rule.level}{consequence})"
    if reporter.verbosity < 0:
        reporter.write_line(f"{head}: {' '.join(plain(finding.message).split())}", red=True)
        return
    reporter.write_line(head, red=True, bold=True)
    for line in _core(rule, finding, settings):
        is_command = line.startswith(_LABEL.format("reproduce"))
        for part in [line] if is_command else _wrapped(reporter, line, indent=len(_LABEL.format(""))):
            reporter.write_line(part)
    for line in _digest(finding.evidence, whole=reporter.verbosity > 0):
        reporter.write_line(f"    {line}")


def _wrapped(reporter: pytest.TerminalReporter, line: str, *, indent: int) -> list[str]:
    """The line in parts that fit a terminal, which would break it anywhere; a log keeps it whole."""
    if not reporter.isatty:
        return [line]
    width = max(reporter._tw.fullwidth - 1, _NARROWEST)
    return textwrap.wrap(
        line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )


def _lateness(late: list[tuple[float, str]]) -> str:
    seconds, rule_id = max(late)
    rules = "1 rule" if len(late) == 1 else f"{len(late)} rules"
    return f"LATE: {rules} had to wait longer than expected, up to {seconds:.1f} s ({rule_id})"


def _table(reporter: pytest.TerminalReporter, report: Report) -> None:
    rare = [column for column in _RARE_COLUMNS if report.count(column[2])[column[1]]]
    columns = [*_COLUMNS, *rare]
    first = max(map(len, CHAPTERS))
    reporter.write_line("  ".join(["chapter".ljust(first), *(head for head, _, _ in columns)]))
    for chapter in CHAPTERS.values():
        if any(report.count(chapter=chapter).values()):
            cells = [
                str(report.count(level, chapter)[verdict] or ".").rjust(len(head))
                for head, verdict, level in columns
            ]
            failed = report.count(chapter=chapter)[Verdict.FAILED]
            reporter.write_line("  ".join([chapter.name.ljust(first), *cells]), red=bool(failed))


def _verdict(reporter: pytest.TerminalReporter, report: Report) -> None:
    tail = totals(report.summary()) or "no rules ran"
    if report.green and report.conformant is False:
        tail += "; all failures that count are listed as known"
    if report.conformant is None:
        line = f"{report.target}: {report.verdict} ({tail})"
    else:
        word = "conformant" if report.conformant else "NOT conformant"
        ran = "" if report.complete else f"; {len(report.findings)} of {report.all_rules} rules ran"
        line = f"{report.target} is {word} at level {report.level}: {tail}{ran}"
    for part in _wrapped(reporter, line, indent=2):
        reporter.write_line(
            part,
            bold=True,
            green=report.conformant is True,
            yellow=report.conformant is None,
            red=report.conformant is False,
        )


def _core(rule: Rule, finding: Finding, settings: Settings) -> list[str]:
    lines = [
        _LABEL.format("expected") + plain(finding.expected),
        _LABEL.format("actual") + plain(finding.actual),
    ]
    lines += [f"    {line}" for line in (finding.trace.timeline if finding.trace else ())]
    if finding.calls:
        lines.append(_LABEL.format("calls") + finding.calls)
    lines.append(_LABEL.format("likely cause") + plain("; ".join(rule.causes)))
    lines.append(_LABEL.format("reproduce") + reproduce_command(rule, finding, settings))
    return lines


#: Frames of the suite, of pytest and of pytest-xdist, which a short digest of evidence leaves out.
_OWN_FRAMES = (
    "/_pytest/",
    "/pluggy/",
    "executor_conformance/",
    "/xdist/",
    "/execnet/",
    "/bin/pytest",
    "Extension modules:",
)


def _digest(evidence: str, *, whole: bool) -> list[str]:
    """The most useful lines of the evidence: the first stacks, or else the end of a traceback."""
    lines = [line for line in evidence.splitlines() if line.strip()]
    if whole:
        return lines
    own = [any(part in line for part in _OWN_FRAMES) for line in lines]
    source = [line.startswith("    ") and before for line, before in zip(lines, [False, *own], strict=False)]
    lines = [line for line, *hidden in zip(lines, own, source, strict=True) if not any(hidden)]
    if "stacks:" in evidence:
        return lines[:_EVIDENCE_LINES]
    return lines[-_EVIDENCE_LINES:] if "Traceback (most recent call last):" in evidence else []
