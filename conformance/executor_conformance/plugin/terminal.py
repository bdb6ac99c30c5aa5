"""What the user reads: a screen at the end, and the long form of each failure with ``--tb=short``."""

from __future__ import annotations

import shlex

import pytest

from executor_conformance.plugin import replays
from executor_conformance.plugin.settings import Settings
from executor_conformance.report import Report
from executor_conformance.rules import CHAPTERS, Rule
from executor_conformance.verdicts import Finding, Verdict

_SHOWN = (Verdict.PASSED, Verdict.FAILED, Verdict.NOT_APPLICABLE, Verdict.INCONCLUSIVE, Verdict.BLOCKED)
#: Shown where there are any.
_RARE = (Verdict.KNOWN_FAILURE, Verdict.UNEXPECTED_PASS)
_LABEL = "  {:<9}"
_EVIDENCE_LINES = 14


def repeat_command(rule: Rule, finding: Finding, settings: Settings) -> str:
    """The command that judges this rule again."""
    if settings.replay is not None:
        return shlex.join(["pytest", *settings.as_arguments(), f"--replay={settings.replay.path}"])
    if replays.is_replayable(finding):
        return shlex.join(["pytest", f"--replay={replays.path_for(rule)}"])
    return shlex.join(["pytest", *settings.as_arguments(), "-k", rule.id])


def explained(rule: Rule, finding: Finding, settings: Settings) -> str:
    """A failure in full: promise, what was awaited and seen, likely causes, evidence."""
    lines = [f"{rule.id} ({rule.level}): {rule.statement}", *_core(rule, finding, settings)]
    if finding.evidence:
        lines += ["", finding.evidence]
    return "\n".join(lines)


def summarise(reporter: pytest.TerminalReporter, report: Report, settings: Settings) -> None:
    """The last screen: each failure, a row a chapter, the verdict."""
    reporter.section("executor conformance", bold=True)
    failures = [(r, f) for r, f in report.findings if f.verdict is Verdict.FAILED]
    for rule, finding in failures:
        reporter.write_line(f"FAILED {rule.id} ({rule.level})", red=True, bold=True)
        for line in _core(rule, finding, settings):
            reporter.write_line(line)
        if finding.evidence and (reporter.verbosity > 0 or "stacks:" in finding.evidence):
            for line in _digest(finding.evidence, reporter.verbosity > 0):
                reporter.write_line(f"    {line}")
    for replaced in report.replaces:
        reporter.write_line(f"REPLACED {replaced}", yellow=True)
    for rule, finding in report.findings:
        if finding.verdict is Verdict.UNEXPECTED_PASS:
            reporter.write_line(f"UNEXPECTED PASS {rule.id} ({rule.level}): {finding.message}", red=True)
        if finding.verdict is Verdict.KNOWN_FAILURE:
            reporter.write_line(f"KNOWN FAILURE {rule.id} ({rule.level}): {finding.known}", yellow=True)
        if finding.verdict is Verdict.INCONCLUSIVE:
            reporter.write_line(f"INCONCLUSIVE {rule.id} ({rule.level}): {finding.message}", yellow=True)
    blocked: dict[str, int] = {}
    for _, finding in report.findings:
        if finding.verdict is Verdict.BLOCKED:
            blocked[finding.blocked_by] = blocked.get(finding.blocked_by, 0) + 1
    for blocker, count in blocked.items():
        reporter.write_line(f"BLOCKED {count} by {blocker}", yellow=True)
    if failures or blocked or report.replaces:
        reporter.write_line("")
    total = report.count()
    columns = [*_SHOWN, *(verdict for verdict in _RARE if total[verdict])]
    heads = [str(verdict).replace("_", " ") for verdict in columns]
    reporter.write_line(f"{'chapter':<12}" + "".join(f"{head:>16}" for head in heads))
    for chapter in CHAPTERS:
        counts = report.count(chapter=chapter)
        if any(counts.values()):
            row = f"{chapter:<12}" + "".join(f"{counts[verdict] or '.':>16}" for verdict in columns)
            reporter.write_line(row, red=bool(counts[Verdict.FAILED]))
    if reporter.verbosity > 0:
        for rule, finding in report.findings:
            if finding.verdict is Verdict.NOT_APPLICABLE:
                reporter.write_line(f"not applicable: {rule.id}: {finding.message}")
    _verdict(reporter, report)


def _verdict(reporter: pytest.TerminalReporter, report: Report) -> None:
    word = "conformant" if report.conformant else "NOT conformant"
    counts = report.count()
    tail = (
        ", ".join(f"{n} {str(v).replace('_', ' ')}" for v, n in counts.items() if n) or "no rule was judged"
    )
    if report.green and not report.conformant:
        tail += "; every failure is a known one"
    if not report.complete:
        tail += "; the run was broken off"
    reporter.write_line(
        f"{report.target} is {word} at level {report.level}: {tail}",
        bold=True,
        green=report.conformant,
        red=not report.conformant,
    )


def _core(rule: Rule, finding: Finding, settings: Settings) -> list[str]:
    lines = [_LABEL.format("awaited") + finding.awaited, _LABEL.format("seen") + finding.seen]
    lines += [f"    {line}" for line in finding.measurements.get("timeline", ())]
    if finding.after:
        lines.append(_LABEL.format("after") + finding.after)
    lines.append(_LABEL.format("likely") + "; ".join(rule.causes))
    lines.append(_LABEL.format("repeat") + repeat_command(rule, finding, settings))
    return lines


def _digest(evidence: str, whole: bool) -> list[str]:
    """The first lines of the evidence, without the suite's own frames."""
    lines = [line for line in evidence.splitlines() if line.strip()]
    if whole:
        return lines
    lines = [
        line
        for line in lines
        if not any(
            part in line
            for part in (
                "/_pytest/",
                "/pluggy/",
                "executor_conformance/",
                "/xdist/",
                "/execnet/",
                "/bin/pytest",
                "Extension modules:",
            )
        )
    ]
    return lines[:_EVIDENCE_LINES]
