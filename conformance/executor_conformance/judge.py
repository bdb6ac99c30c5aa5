"""Judges one rule: runs it contained, turns what happened into a finding, and finds who is to blame.

Verdicts are shared through files in the run's directory, because under pytest-xdist the rules of one run are
judged by several processes in no fixed order.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from executor_conformance.harness.blackboard import Blackboard
from executor_conformance.harness.calibration import Budgets
from executor_conformance.harness.containment import Account, Limits, contain, hide_pytest
from executor_conformance.harness.linux import monotonic, sleep
from executor_conformance.harness.target import Target
from executor_conformance.harness.trial import Facts, Trial
from executor_conformance.probe import HOST_MARKER
from executor_conformance.rules import (
    BRINGS_EVENTS,
    LOOK_AT_EVENTS,
    NOT_ALWAYS,
    OWNERS_OF_CALLS,
    Rule,
    catalogue,
    owners_of,
    suspects_of,
)
from executor_conformance.verdicts import (
    Aside,
    Blocked,
    Broken,
    Finding,
    Inconclusive,
    NotApplicable,
    Verdict,
)

#: A call that hung this often, in whatever rules, is not made again in this run.
_HANGS_BORNE = 4
#: A rule that met a call which hangs now and then is judged anew so often: by a chance of one half it hangs
#: each time in one run of 128.
_MORE_TRIES = 6
#: Whoever hangs each time is then as its own promise says here; elsewhere it may be much bad luck.
_ABOUT_THE_END = frozenset({"lifecycle", "shutdown"})
#: How often a rule may wait in vain before it is stopped.
_WAITS_OF_A_RULE = 15


#: Findings that nothing learned later can change; blame may still turn a failure into something else.
_FINAL = frozenset({Verdict.PASSED, Verdict.NOT_APPLICABLE})


class VerdictStore:
    """What is known so far in this run, by every process that takes part."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._final: dict[str, Finding] = {}
        os.makedirs(self._path("findings"), exist_ok=True)
        os.makedirs(self._path("hangs"), exist_ok=True)

    def save(self, rule_id: str, finding: Finding) -> None:
        """Put down a finding; readers see all of it or nothing."""
        path = self._path("findings", rule_id)
        with open(f"{path}.{os.getpid()}", "w") as file:
            json.dump(finding.as_dict(), file)
        os.replace(file.name, path)

    def load(self, rule_id: str) -> Finding | None:
        """The finding on a rule, or ``None`` if nobody has judged it yet."""
        if rule_id not in self._final:
            try:
                with open(self._path("findings", rule_id)) as file:
                    finding = Finding.from_dict(json.load(file))
            except FileNotFoundError:
                return None
            if finding.verdict not in _FINAL:
                return finding
            self._final[rule_id] = finding
        return self._final[rule_id]

    def all(self) -> dict[str, Finding]:
        """Every finding so far."""
        names = [name for name in os.listdir(self._path("findings")) if not name.rpartition(".")[2].isdigit()]
        return {name: finding for name in names if (finding := self.load(name)) is not None}

    @contextlib.contextmanager
    def locked(self, rule_id: str) -> Iterator[None]:
        """Only one process at a time judges a rule; the others wait for its verdict."""
        descriptor = os.open(self._path("findings", f"{rule_id}.0"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            # said aloud, because forked children share the lock
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def add_hang(self, call: str, rule_id: str) -> None:
        """A call of the executor did not return."""
        name = f"{call}@{rule_id}".replace("/", "_")
        open(self._path("hangs", name), "w").close()

    def forget_hang(self, rule_id: str) -> None:
        """It is known that the call does return, though not always."""
        for name in os.listdir(self._path("hangs")):
            if name.endswith(f"@{rule_id}"):
                os.unlink(self._path("hangs", name))

    def hung_calls(self) -> dict[str, str]:
        """Calls that are not to be made again -> the rule that says why."""
        by_call: dict[str, list[str]] = {}
        for name in sorted(os.listdir(self._path("hangs"))):
            call, _, rule_id = name.rpartition("@")
            if rule_id != NOT_ALWAYS:
                by_call.setdefault(call, []).append(rule_id)
        why = {}
        for call, rules in by_call.items():
            owners = [owner for owner in OWNERS_OF_CALLS.get(call, ()) if owner in rules]
            if len(rules) >= (2 if owners else _HANGS_BORNE):
                why[call] = (owners or rules)[0]
        return why

    def _path(self, *names: str) -> str:
        return os.path.join(self._directory, *names)


@dataclass(frozen=True)
class Judge:
    """Judges rules on one target.

    :param selected: ids of the rules of this run.
    :param directory: of the run; holds the verdicts and, for a while, each rule's scratch directory.
    :param deadline: on the monotonic clock; what is not judged by then stays ``inconclusive``.
    :param seed: of what rules leave to chance.
    :param programs: how many programs of chance a rule may perform.
    :param replay: a program to be performed instead of those that chance makes.
    """

    target: Target
    budgets: Budgets
    facts: Facts
    directory: str
    selected: frozenset[str] = frozenset()
    deadline: float = float("inf")
    limits: Limits = field(default_factory=Limits)
    contained: bool = True
    show_output: bool = False
    build: Callable[[Target, dict[str, Any]], Any] | None = None
    dispose: Callable[[Any], None] | None = None
    seed: int = 0
    programs: int = 60
    replay: Mapping[str, Any] | None = None
    _undecided: list[str] = field(default_factory=list)

    @functools.cached_property
    def store(self) -> VerdictStore:
        return VerdictStore(self.directory)

    def judge(self, rule: Rule) -> Finding:
        """The finding on a rule; judges it now unless somebody has done so.

        The rules that it builds on come first, if they are part of this run: what is blocked must not depend
        on the order in which processes get to their rules.
        """
        known = self.store.load(rule.id)
        if known is not None:
            return known
        for before in rule.after:
            if before in self.selected:
                self.judge(catalogue()[before])
        with self.store.locked(rule.id):
            known = self.store.load(rule.id)
            if known is not None:
                return known
            began = monotonic()
            finding = self._unless_by_chance(rule, self._judge(rule))
            finding = replace(finding, duration_s=round(monotonic() - began, 4))
            # Whoever asks before the blame is found sees that this one points elsewhere.
            self.store.save(
                rule.id,
                _blocked_by(BRINGS_EVENTS, finding)
                if _yields(rule, finding)
                else replace(finding, provisional=finding.verdict is Verdict.FAILED and not self.replay),
            )
        # Suspects are judged without the lock: two rules that suspect each other, in two processes or in
        # one, find each other's verdict instead of waiting for it.
        if finding.verdict is Verdict.FAILED and self.replay is None:
            self._undecided.append(rule.id)
            finding = self._blame(rule, finding)
            self._undecided.remove(rule.id)
            self.store.save(rule.id, finding)
        return finding

    def _judge(self, rule: Rule) -> Finding:
        try:
            finding = self._finding_on(rule)
        except Exception as error:  # the suite's own fault is never the executor's, and never a pass
            finding = _own_fault(error)
        return replace(
            finding,
            awaited=_printable(finding.awaited),
            seen=_printable(finding.seen),
            after=_printable(finding.after),
            evidence=_printable(finding.evidence),
        )

    def _finding_on(self, rule: Rule) -> Finding:
        for capability in rule.needs:
            reason = self.target.adapter.lacks.get(capability)
            if reason is not None:
                return Finding(Verdict.NOT_APPLICABLE, seen=f"{reason} (the rule needs {capability.value})")
        for before in rule.after:
            known = self.store.load(before)
            if known is None or known.verdict is not Verdict.FAILED:
                continue
            if not (known.provisional and _is_about(rule.id, before, known)):
                return _blocked_by(before)
        if monotonic() > self.deadline:
            return Finding(
                Verdict.INCONCLUSIVE, seen="not judged: the time limit of the whole run was used up"
            )
        return self._run(rule)

    def _unless_by_chance(self, rule: Rule, finding: Finding) -> Finding:
        """The finding on a rule, judged anew if it is the first about a call that hangs now and then.

        All that comes after it would be blocked by its bad luck, and so would the rule which finds that out
        each time: that one is asked first.
        """
        owners = OWNERS_OF_CALLS.get(finding.measurements.get("hung_call", ""), ())
        if finding.aside != Aside.HUNG or NOT_ALWAYS not in owners or rule.id != owners[0]:
            return finding
        again = self._try_again(rule)
        if again is None or self._judge(catalogue()[NOT_ALWAYS]).verdict is not Verdict.FAILED:
            return finding
        self.store.forget_hang(rule.id)
        return again

    def _blame(self, rule: Rule, finding: Finding) -> Finding:
        """The finding, or ``blocked`` if a rule that explains it is broken: one fault, one failure."""
        yields = _yields(rule, finding)
        for suspect in suspects_of(rule, finding):
            owned = _is_about(suspect, rule.id, finding)
            if rule.id in _all_after(suspect) and not owned and not yields:
                continue
            other = self._settled(catalogue()[suspect])
            if other.verdict is Verdict.BLOCKED and other.blocked_by != rule.id:
                # It could not be judged itself; what kept it from that explains this failure as well.
                suspect = other.blocked_by
                other = self._settled(catalogue()[suspect])
            if other.provisional and not yields:
                # Where two point at each other, the one that is about what went wrong is named; if that
                # does not tell them apart, the first of them in the specification.
                owns = _is_about(rule.id, suspect, other)
                if owns > owned or (owns == owned and _place(suspect) > _place(rule.id)):
                    continue
            if other.verdict is Verdict.FAILED:
                if suspect == NOT_ALWAYS:
                    again = self._try_again(rule)
                    if again is None and rule.chapter in _ABOUT_THE_END:
                        continue
                    if again is None:
                        return _blocked_by(suspect, finding)
                    self.store.forget_hang(rule.id)
                    return self._blame(rule, again) if again.verdict is Verdict.FAILED else again
                return _blocked_by(suspect, finding)
        return finding

    def _try_again(self, rule: Rule) -> Finding | None:
        """The finding on a rule that may have hung by chance; ``None`` if it hangs each time."""
        for _ in range(_MORE_TRIES):
            again = self._judge(rule)
            if again.aside != Aside.HUNG:
                return again
        return None

    def _settled(self, rule: Rule) -> Finding:
        """The finding on a suspect, once another process has found whom to blame for it.

        Only on a rule that comes after all those that this process has not decided itself: so no two
        processes wait for each other.
        """
        finding = self.judge(rule)
        latest = monotonic() + self.limits.rule_s
        while finding.provisional and all(_place(rule.id) > _place(own) for own in self._undecided):
            if monotonic() > latest:  # that process was killed
                break
            sleep(0.02)
            finding = self.store.load(rule.id) or finding
        return finding

    def _run(self, rule: Rule) -> Finding:
        scratch = tempfile.mkdtemp(prefix="rule-", dir=self.directory)
        os.chmod(scratch, 0o755)
        try:
            if not self.contained:
                return self._run_here(rule, scratch)

            def body(blackboard: Blackboard) -> None:
                trial = self._trial(rule, blackboard, scratch, os.getppid())
                blackboard.write_result(pronounce(rule.body, trial).as_dict())
                self._dispose(trial, blackboard)

            rule_s = max(self.limits.rule_s, _WAITS_OF_A_RULE * self.budgets.arrival_s)
            if rule.chapter == "model":
                rule_s += 2 * self.programs * self.budgets.scale
            limits = replace(self.limits, rule_s=rule_s)
            account = contain(body, limits=limits, scratch=scratch, show_output=self.show_output)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return self._finding(rule, account)

    def _trial(self, rule: Rule, blackboard: Blackboard, scratch: str, warden: int) -> Trial:
        setattr(sys, HOST_MARKER, os.getpid())
        return Trial(
            target=self.target,
            budgets=self.budgets,
            blackboard=blackboard,
            scratch=scratch,
            warden=warden,
            needs=rule.needs,
            facts=self.facts,
            hung_calls=self.store.hung_calls(),
            build=self.build,
            dispose=self.dispose,
            seed=self.seed,
            programs=self.programs,
            replay=self.replay,
        )

    def _dispose(self, trial: Trial, blackboard: Blackboard) -> None:
        if self.dispose is not None:
            blackboard.enter(_DISPOSAL, self.budgets.stop_s, os.getpid())
            for executor in trial.built:
                self.dispose(executor)
            blackboard.leave()

    def _run_here(self, rule: Rule, scratch: str) -> Finding:
        """In this process, so that a debugger can look at it; a hang stays a hang."""
        blackboard = Blackboard()
        trial = self._trial(rule, blackboard, scratch, os.getpid())
        finders = hide_pytest()
        try:
            return pronounce(rule.body, trial)
        finally:
            sys.meta_path[:] = finders
            self._dispose(trial, blackboard)

    def _finding(self, rule: Rule, account: Account) -> Finding:
        if account.call == _DISPOSAL:
            seen = f"the hook {_DISPOSAL} failed ({account.end} {account.detail})"
            return Finding(Verdict.INCONCLUSIVE, seen=seen, evidence=_output_of(account))
        measurements: dict[str, Any] = {}
        if account.left_behind:
            measurements["left_behind"] = account.left_behind
        if account.result is not None and account.end in ("finished", "interrupted"):
            finding = Finding.from_dict(account.result)
            evidence = finding.evidence
            if finding.verdict is Verdict.FAILED:
                evidence = _joined(evidence, _output_of(account))
            return replace(finding, evidence=evidence, measurements={**finding.measurements, **measurements})
        kind, _, rest = account.call.partition("\0")
        name, _, after = rest.partition("\0")
        if account.end == "hang":
            self.store.add_hang(kind, rule.id)
            measurements["hung_call"] = kind
        return Finding(
            Verdict.FAILED,
            awaited=_AWAITED[account.end].format(call=name or "the executor"),
            seen=_SEEN[account.end].format(
                call=f"in {name}" if name else "between calls", detail=account.detail, seconds=account.call_s
            ),
            after=after,
            evidence=_joined(
                f"stacks:\n{account.stacks}" if account.stacks else "",
                "processes:\n" + "\n".join(account.tree) if account.tree else "",
                _output_of(account),
            ),
            measurements=measurements,
            aside=Aside.HUNG if account.end == "hang" else Aside.DIED,
        )


_DISPOSAL = "pytest_conformance_dispose_executor"

_AWAITED = {
    "hang": "{call} to return",
    "timeout": "the rule to come to an end",
    "exit": "{call} to leave its host process alone",
    "signal": "{call} to leave its host process alone",
    "finished": "a verdict",
    "processes": "a number of processes that follows from parallelism",
    "output": "an executor that does not flood its host's standard output",
    "interrupted": "the rule to come to an end",
}
_SEEN = {
    "hang": "no return {call} after {seconds:.1f} s",
    "timeout": "it was still going on after {detail}",
    "exit": "the host process exited with status {detail} {call}",
    "signal": "the host process died of {detail} {call}",
    "finished": "none",
    "processes": "{detail} processes {call}",
    "output": "{detail} of output {call}",
    "interrupted": "it was interrupted {call}",
}


def pronounce(body: Callable[[Trial], None], trial: Trial) -> Finding:
    """Run a rule's body here and say what came of it."""
    try:
        body(trial)
    except Broken as broken:
        finding = Finding(
            Verdict.FAILED,
            awaited=broken.awaited,
            seen=broken.seen,
            after=trial.after,
            evidence=broken.evidence,
            aside=broken.aside,
            error=broken,
        )
    except NotApplicable as reason:
        finding = Finding(Verdict.NOT_APPLICABLE, seen=str(reason))
    except Inconclusive as reason:
        finding = Finding(Verdict.INCONCLUSIVE, seen=str(reason))
    except Blocked as blocked:
        finding = Finding(Verdict.BLOCKED, seen=str(blocked), blocked_by=blocked.by)
    except BaseException as error:
        finding = _own_fault(error)
    else:
        finding = Finding(Verdict.PASSED)
    return replace(finding, measurements=trial.measurements)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def _printable(text: str) -> str:
    """The same in characters that can be written anywhere: executors put anything into their messages."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", text)


def _is_about(owner: str, rule_id: str, finding: Finding) -> bool:
    """Whether the rule ``owner`` is about just that call of the executor which failed ``rule_id``."""
    return finding.aside in (Aside.RAISED, Aside.HUNG) and owner in owners_of(rule_id, finding)


def _place(rule_id: str) -> int:
    """In the order of the specification."""
    return list(catalogue()).index(rule_id)


def _yields(rule: Rule, finding: Finding) -> bool:
    return bool(finding.verdict is Verdict.FAILED and finding.aside and rule.id in LOOK_AT_EVENTS)


def _own_fault(error: BaseException) -> Finding:
    return Finding(
        Verdict.INCONCLUSIVE,
        seen=f"the suite itself failed: {type(error).__name__}: {error}",
        evidence="".join(traceback.format_exception(error)),
    )


def _blocked_by(rule_id: str, finding: Finding | None = None) -> Finding:
    seen = f"blocked by {rule_id}"
    if finding is not None:
        seen += f"; here: awaited {finding.awaited}; seen: {finding.seen}"
    duration_s = finding.duration_s if finding is not None else 0.0
    return Finding(Verdict.BLOCKED, seen=seen, blocked_by=rule_id, duration_s=duration_s)


def _all_after(rule_id: str) -> set[str]:
    """The rules that ``rule_id`` builds on, directly or not."""
    found: set[str] = set()
    left = [rule_id]
    while left:
        for before in catalogue()[left.pop()].after:
            if before not in found:
                found.add(before)
                left.append(before)
    return found


def _joined(*parts: str) -> str:
    return "\n\n".join(part.rstrip() for part in parts if part)


def _output_of(account: Account) -> str:
    return f"output:\n{account.output}" if account.output.strip() else ""
