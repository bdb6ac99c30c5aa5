"""What a run of a rule means: a finding, made from the rule's own verdict or from how its host ended."""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Callable
from dataclasses import replace

from executor_conformance.harness.calls import Raised
from executor_conformance.harness.containment import ContainmentResult, End
from executor_conformance.harness.context import DISPOSE_HOOK
from executor_conformance.harness.trial import Trial
from executor_conformance.verdicts import (
    Blocked,
    Broken,
    FailureMode,
    Finding,
    Inconclusive,
    NotApplicable,
    Verdict,
)

_EXPECTED = {
    End.HANG: "{call} to return",
    End.TIMEOUT: "the rule to finish",
    End.EXIT: "{call} not to terminate the scheduler process",
    End.SIGNAL: "{call} not to terminate the scheduler process",
    End.FINISHED: "a verdict",
    End.PROCESSES: "a process count bounded by parallelism",
    End.OUTPUT: "the executor not to flood the scheduler's standard output",
    End.INTERRUPTED: "the rule to finish",
}
_ACTUAL = {
    End.HANG: "it had not after {seconds:.1f} s",
    End.TIMEOUT: "it was still running after {detail}",
    End.EXIT: "the scheduler process exited with status {detail} {where}",
    End.SIGNAL: "the scheduler process was killed by {detail} {where}",
    End.FINISHED: "none",
    End.PROCESSES: "{detail} processes {where}",
    End.OUTPUT: "{detail} of output {where}",
    End.INTERRUPTED: "it was interrupted {where}",
}
#: How a rule failed if it ended so; other ends are those of a host that died.
_MODES = {End.HANG: FailureMode.HUNG, End.PROCESSES: FailureMode.CROWDED}


def evaluate_rule(body: Callable[[Trial], None], trial: Trial) -> Finding:
    """Run a rule's body here, and make a finding of what it returns or raises."""
    try:
        body(trial)
    except Broken as broken:
        finding = Finding(
            Verdict.FAILED,
            expected=broken.expected,
            actual=broken.actual,
            calls=trial.calls,
            evidence=broken.evidence,
            failure_mode=broken.failure_mode,
            hung_call=broken.trace.hung_call if broken.trace else "",
            raised=type(broken.error).__name__ if isinstance(broken, Raised) else "",
            trace=broken.trace,
            unexplained_by=broken.unexplained_by,
            error=broken,
        )
    except NotApplicable as reason:
        finding = Finding(Verdict.NOT_APPLICABLE, actual=str(reason))
    except Inconclusive as reason:
        finding = Finding(Verdict.INCONCLUSIVE, actual=str(reason))
    except Blocked as blocked:
        finding = Finding(Verdict.BLOCKED, actual=str(blocked), blocked_by=blocked.by)
    except OSError as error:
        finding = _descriptor_closed(error, trial) if error.errno == errno.EBADF else internal_error(error)
    except BaseException as error:
        finding = internal_error(error)
    else:
        finding = Finding(Verdict.PASSED)
    late_s, not_run = trial.patience.late_s, trial.programs_not_run
    shown = {"late_s": late_s, "programs_not_run": not_run}
    return replace(
        finding,
        measurements={**trial.measurements, **{name: number for name, number in shown.items() if number}},
        late_s=late_s,
        programs_not_run=not_run,
        waited_in_vain=trial.patience.was_in_vain,
    )


def finding_from(ended: ContainmentResult) -> Finding:
    """What the end of a contained rule means."""
    if ended.call_kind == DISPOSE_HOOK:
        return Finding(
            Verdict.INCONCLUSIVE,
            actual=f"the hook {DISPOSE_HOOK} failed ({ended.end} {ended.detail})",
            evidence=_output_of(ended),
        )
    if ended.result is not None and ended.end in (End.FINISHED, End.INTERRUPTED):
        finding = Finding.from_dict(ended.result)
        if finding.verdict is Verdict.FAILED:
            finding = replace(finding, evidence=_joined(finding.evidence, _output_of(ended)))
    else:
        finding = _finding_from_end(ended)
    finding = replace(finding, left_behind=ended.left_behind, survivors=ended.survivors)
    return _with_survivors(finding) if ended.survivors else finding


def _finding_from_end(ended: ContainmentResult) -> Finding:
    hung = ended.end is End.HANG
    return Finding(
        Verdict.FAILED,
        expected=_EXPECTED[ended.end].format(call=ended.call_name or "the executor"),
        actual=_ACTUAL[ended.end].format(
            where=f"in {ended.call_name}" if ended.call_name else "between calls",
            detail=ended.detail,
            seconds=ended.call_s,
        ),
        calls=ended.call_history,
        evidence=_joined(
            f"stacks:\n{ended.stacks}" if ended.stacks else "",
            "processes:\n" + "\n".join(ended.tree) if ended.tree else "",
            _output_of(ended),
        ),
        failure_mode=_MODES.get(ended.end, FailureMode.DIED),
        hung_call=ended.call_kind if hung else "",
        hung_backlog=ended.call_backlog if hung else 0.0,
        cut_off=ended.end is End.TIMEOUT,
    )


def _with_survivors(finding: Finding) -> Finding:
    """What cannot be killed fails the rule, whatever else its verdict is: it outlives the run."""
    survivors = "processes that could not be killed:\n" + "\n".join(finding.survivors)
    if finding.verdict is Verdict.FAILED:
        return replace(finding, evidence=_joined(finding.evidence, survivors))
    return replace(
        finding,
        verdict=Verdict.FAILED,
        expected="every process of the executor to be killable",
        actual=f"{len(finding.survivors)} survived SIGKILL, such as {finding.survivors[0]}",
        evidence=survivors,
        blocked_by="",
    )


def _descriptor_closed(error: OSError, trial: Trial) -> Finding:
    """The suite shares its host with the executor, and does not close a descriptor before its last use."""
    return Finding(
        Verdict.FAILED,
        expected="file descriptors of the scheduler process to stay open",
        actual=f"one that was in use was closed ({error})",
        calls=trial.calls,
        evidence="".join(traceback.format_exception(error)),
        failure_mode=FailureMode.CLOSED,
    )


def internal_error(error: BaseException) -> Finding:
    """A bug in the suite: never the executor's fault, and never a pass."""
    return Finding(
        Verdict.INCONCLUSIVE,
        actual=f"internal error in executor-conformance (please report): {type(error).__name__}: {error}",
        evidence="".join(traceback.format_exception(error)),
    )


def printable(finding: Finding, hide: Callable[[str], str] = str) -> Finding:
    """The same in characters that can be written anywhere: executors put anything into their messages.

    :param hide: removes what no message may show.
    """

    def text_of(text: str) -> str:
        return _printable(hide(text))

    trace = finding.trace
    if trace is not None:
        trace = replace(trace, timeline=tuple(map(text_of, trace.timeline)))
    return replace(
        finding,
        expected=text_of(finding.expected),
        actual=text_of(finding.actual),
        calls=text_of(finding.calls),
        evidence=text_of(finding.evidence),
        left_behind=tuple(map(text_of, finding.left_behind)),
        survivors=tuple(map(text_of, finding.survivors)),
        trace=trace,
    )


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def _printable(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", text)


def _joined(*parts: str) -> str:
    return "\n\n".join(part.rstrip() for part in parts if part)


def _output_of(ended: ContainmentResult) -> str:
    return f"output:\n{ended.output}" if ended.output.strip() else ""
