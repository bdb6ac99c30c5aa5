"""Gets acquainted with the target before the first rule, in a process that may be lost.

A child shows that the import ends, which adapter fits, and how one task behaves; only then does the pytest
process import the target itself, once, so that the rules' processes are forked with it in memory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from executor_conformance.harness.blackboard import Blackboard
from executor_conformance.harness.calibration import Budgets, Calibration, fork_here_s
from executor_conformance.harness.containment import Account, Limits, contain
from executor_conformance.harness.linux import monotonic
from executor_conformance.harness.target import (
    Target,
    TargetError,
    adapters,
    choose_adapter,
    distribution_of,
    load,
    recognise,
)
from executor_conformance.harness.trial import Facts, Subject, Trial
from executor_conformance.probe import HOST_MARKER
from executor_conformance.verdicts import Judgement

#: Seconds that an import may take, and how many times that on a slow machine.
_IMPORT_S, _MOST_EXCUSED = 60.0, 2.0


@dataclass(frozen=True)
class Acquaintance:
    """What is known of the target before the first rule.

    :param family: of the adapter that drives it.
    :param distribution: ``"name version"`` of the installed distribution it comes from, or ``None``.
    """

    family: str
    distribution: str | None
    facts: Facts = field(default_factory=Facts)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Acquaintance:
        return cls(data["family"], data["distribution"], Facts(**data["facts"]))


def import_target(spec: str, family: str, options: Mapping[str, Any], scratch: str) -> Target:
    """Import the target into this process.

    :raises TargetError: it cannot be imported.
    """
    _prepare(scratch)
    target = Target(spec, load(spec), adapters()[family](), dict(options))
    target.adapter.stand_in(scratch)
    return target


def get_acquainted(
    spec: str,
    *,
    named_adapter: str | None,
    options: Mapping[str, Any],
    calibration: Calibration,
    scratch: str,
    build: Callable[[Target, dict[str, Any]], Any] | None = None,
    dispose: Callable[[Any], None] | None = None,
) -> Acquaintance:
    """Import the target in a child, find its adapter and let it run one task.

    :raises TargetError: the target cannot be used; nothing was left behind.
    """
    budgets = Budgets.of(calibration)
    import_budget_s = _IMPORT_S * min(calibration.scale, _MOST_EXCUSED)

    def body(blackboard: Blackboard) -> None:
        blackboard.enter("import", import_budget_s, os.getpid())
        began = monotonic()
        try:
            _prepare(scratch)
            thing = load(spec)
            adapter = choose_adapter(thing, named_adapter, spec)
        except TargetError as error:
            blackboard.write_result({"error": str(error)})
            return
        blackboard.leave()
        import_s = round(monotonic() - began, 3)
        # Should the executor take this process down, so much is known already.
        known: dict[str, Any] = {
            "family": adapter.family if adapter else "native",
            "distribution": distribution_of(thing),
        }
        known["facts"] = {"import_s": import_s}
        blackboard.write_result(known)
        setattr(sys, HOST_MARKER, os.getpid())
        chosen = (adapter or adapters()["native"])()
        chosen.stand_in(scratch)
        target = Target(spec, thing, chosen, dict(options))
        trial = Trial(
            target=target,
            budgets=budgets,
            blackboard=blackboard,
            scratch=scratch,
            warden=os.getppid(),
            build=build,
        )
        try:
            subject = trial.build()
            if adapter is None:
                adapter = recognise(subject.driver.executor, spec)
                known["family"] = adapter.family
                blackboard.write_result(known)
                trial.target = Target(spec, thing, adapter(), dict(options))
                trial.target.adapter.stand_in(scratch)
                # Not another one: some can be made once only, and that is for a rule to say.
                subject = Subject(trial, trial.target.adapter.drive(subject.driver.executor))
            blackboard.write_result({**known, "facts": asdict(_look_at_one_task(subject, import_s))})
        except TargetError as error:
            blackboard.write_result({"error": str(error)})
        except Judgement:
            pass  # the rules will say it better
        if dispose is not None:
            for executor in trial.built:
                dispose(executor)

    account = contain(body, limits=Limits(rule_s=2 * import_budget_s), scratch=scratch)
    result = account.result
    if result is None:
        raise TargetError(f"--executor={spec!r}: {_story_of_import(account)}")
    if "error" in result:
        raise TargetError(result["error"])
    return Acquaintance(
        family=result["family"],
        distribution=result["distribution"],
        facts=Facts(**result.get("facts", {})),
    )


def _look_at_one_task(subject: Subject, import_s: float) -> Facts:
    trial = subject.trial
    subject.start()
    probe = trial.probe()
    began = monotonic()
    subject.run(probe)
    elapsed = monotonic() - began
    run = probe.runs[0] if probe.runs else None
    return Facts(
        tasks_in_host=None if run is None else run.pid == trial.host,
        first_task_s=round(elapsed, 4),
        import_s=import_s,
        forked=None if run is None else run.host_marker == trial.host,
        fork_s=round(fork_here_s() or 0.0, 5),
    )


def _prepare(scratch: str) -> None:
    for adapter in adapters().values():
        adapter().prepare(scratch)


def _story_of_import(account: Account) -> str:
    if account.end == "hang":
        return f"importing it did not end within {account.call_s:.0f} s\n{account.stacks}"
    if account.end == "exit":
        return f"importing it ended the process with status {account.detail}\n{account.output}"
    if account.end == "signal":
        return f"importing it killed the process with {account.detail}\n{account.stacks}"
    return f"importing it failed: {account.end} {account.detail}\n{account.output}"
