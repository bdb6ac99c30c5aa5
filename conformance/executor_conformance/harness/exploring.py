"""Looks for a program that breaks a promise, and for the shortest one that does.

Hypothesis makes the programs; each is performed in a contained host of its own, so one that hangs or kills
its host is a failure like any other, and is shrunk like any other.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass, field, replace
from typing import Any

from executor_conformance.harness.blackboard import Blackboard
from executor_conformance.harness.containment import Account, Limits
from executor_conformance.harness.linux import monotonic
from executor_conformance.harness.programs import DAGS, Performance, Program, PromiseBroken, Step
from executor_conformance.harness.trial import NO_LIMIT, Trial
from executor_conformance.verdicts import Aside, Blocked, Broken, NotApplicable

#: Seconds for looking (for each program that may be performed) and then for shrinking, at scale 1.
_LOOKING_S, _SHRINKING_S = 0.07, 12.0
_PATIENCE_FOR_FEW = 5
_STEPS = 12
_STEPS_AFTER_THE_END = 3
#: How a program goes on that has not come to an end by itself.
_FINALES = ((), ("end", "drain-dag"), ("end", "late", "drain-dag"), ("terminate", "drain-dag"))
_PATIENCE_IN_SHRINKING = 0.1
#: How often a program may wait in vain before it is stopped.
_WAITS = 8


@dataclass(frozen=True)
class Breach:
    """How a program broke a promise.

    :param promise: the id of the rule, or empty if only a call is known that hung or raised.
    """

    program: Program
    promise: str
    awaited: str
    seen: str
    aside: str = ""
    is_safety: bool = True
    hung_call: str = ""
    evidence: str = ""
    timeline: tuple[str, ...] = ()

    @property
    def kind(self) -> tuple[str, str, str]:
        """Breaches of one kind are shrunk as one."""
        return self.promise, self.aside, self.hung_call


def perform(trial: Trial, program: Program, patience: float = 1.0) -> Breach | None:
    """Perform a program in a contained host of its own; how it broke a promise, or ``None``.

    :param patience: what part of the usual budget is waited for what has to happen.
    :raises NotApplicable: the executor cannot be judged by programs.
    """
    directory = tempfile.mkdtemp(prefix="program-", dir=trial.scratch)
    lines = os.path.join(directory, "timeline")

    def tell(line: str) -> None:
        with open(lines, "a") as file:
            file.write(line + "\n")

    def body(within: Trial, blackboard: Blackboard) -> None:
        try:
            Performance(within, program, tell, patience).run()
        except PromiseBroken as broken:
            result = {"promise": broken.promise, "is_safety": broken.is_safety}
            blackboard.write_result({**result, **_told(broken)})
        except Broken as broken:
            blackboard.write_result({"promise": "", **_told(broken)})
        except NotApplicable as reason:
            blackboard.write_result({"not_applicable": str(reason)})
        except Blocked as blocked:
            blackboard.write_result({"blocked": [blocked.by, blocked.reason]})
        else:
            blackboard.write_result({})

    account = trial.contained(body, scratch=directory, limits=Limits(rule_s=_WAITS * trial.budgets.arrival_s))
    timeline: tuple[str, ...] = ()
    if os.path.exists(lines):
        with open(lines) as file:
            timeline = tuple(file.read().splitlines())
    return _breach(program, account, timeline)


def _told(broken: Broken) -> dict[str, Any]:
    return {
        "awaited": broken.awaited,
        "seen": broken.seen,
        "aside": Aside(broken.aside).value if broken.aside else "",
        "evidence": broken.evidence,
    }


def _breach(program: Program, account: Account, timeline: tuple[str, ...]) -> Breach | None:
    if account.result is not None and account.end == "finished":
        if "not_applicable" in account.result:
            raise NotApplicable(account.result["not_applicable"])
        if "blocked" in account.result:
            raise Blocked(*account.result["blocked"])
        if not account.result:
            return None
        return Breach(program, timeline=timeline, **account.result)
    if account.end not in ("hang", "exit", "signal"):
        return None  # a program that is too long for a slow executor says nothing of it
    kind, _, rest = account.call.partition("\0")
    name = rest.partition("\0")[0] or "the executor"
    hung = account.end == "hang"
    return Breach(
        program,
        promise="",
        awaited=f"{name} to return" if hung else f"{name} to leave its host alone",
        seen=f"no return after {account.call_s:.1f} s" if hung else f"{account.end} {account.detail}",
        aside="hung" if hung else "died",
        is_safety=not hung,
        hung_call=kind if hung else "",
        evidence=f"stacks:\n{account.stacks}" if account.stacks else "",
        timeline=timeline,
    )


@dataclass
class Explorer:
    """Performs programs until one breaks a promise, and makes that one short.

    :param programs: how many, at the most.
    :param unreproduced: how many breaches of the kind "did not happen in time" were not seen again, and were
        therefore not believed.
    """

    trial: Trial
    programs: int
    breach: Breach | None = None
    performed: int = 0
    unreproduced: int = 0
    _known: dict[Program, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._began = monotonic()
        self._looking_s = _LOOKING_S * self.programs * self.trial.budgets.scale

    @property
    def _has_time(self) -> bool:
        """Most programs are performed also where that takes long, if it does not take for ever."""
        few = self.performed < 2 * self.programs / 3
        return monotonic() < self._began + self._looking_s * (_PATIENCE_FOR_FEW if few else 1)

    def try_out(self, program: Program) -> bool:
        """Whether a program breaks a promise; what is not known when the time is up does not."""
        if program not in self._known:
            if not self._has_time:
                return False
            found = self._perform(program)
            self._known[program] = found is not None and self._is_believed(found)
            if self._known[program]:
                self.breach = found
        return self._known[program]

    def _perform(self, program: Program, patience: float = 1.0) -> Breach | None:
        self.performed += 1
        return perform(self.trial, program, patience)

    def _is_believed(self, found: Breach) -> bool:
        """What must never happen is certain once it was seen; what did not happen in time is tried again."""
        if not found.is_safety:
            again = self._perform(found.program)
            if again is None or again.kind != found.kind:
                self.unreproduced += 1
                return False
        return True

    def shrunk(self) -> Breach | None:
        """The breach with as few steps as show it in the time that there is.

        Any part of a program is a program, so leaving out steps is all that it takes: fewer tries than
        Hypothesis needs, which would shrink the choices that led to them.
        """
        if self.breach is None:
            return None
        until = monotonic() + _SHRINKING_S * self.trial.budgets.scale
        shortest = self.breach
        size = len(shortest.program.steps) // 2
        while size > 0 and monotonic() < until:
            at = len(shortest.program.steps) - size
            while at >= 0 and monotonic() < until:
                steps = shortest.program.steps
                shorter = replace(shortest.program, steps=steps[:at] + steps[at + size :])
                # What waits in vain does so for a shorter time here.
                found = self._perform(shorter, _PATIENCE_IN_SHRINKING)
                if found is not None and found.kind == self.breach.kind:
                    shortest = found
                at -= size
            size //= 2
        if shortest is self.breach or shortest.is_safety:
            return shortest
        found = self._perform(shortest.program)  # with all the patience that it deserves
        return found if found is not None and found.kind == self.breach.kind else self.breach


def explore(trial: Trial, *, kills: bool, seed: int, limited: bool = True, share: float = 1.0) -> Explorer:
    """Try out programs that Hypothesis makes.

    :param kills: programs kill workers.
    :param limited: programs are for executors with a few slots; else for one without a limit.
    :param share: of the programs that the trial may perform.
    :param seed: the same seed makes the same programs.
    """
    import hypothesis
    from hypothesis import stateful
    from hypothesis import strategies as st

    programs = max(round(share * trial.programs), 1)
    explorer = Explorer(trial, programs)

    class Breached(Exception):
        pass

    class Machine(stateful.RuleBasedStateMachine):
        """Adds steps to a program, as the pure model allows; performs it when it is complete."""

        def __init__(self) -> None:
            super().__init__()
            self.parallelism = self.first_kill = 1
            self.steps: list[Step] = []
            self.tasks = self.held = self.steps_since = 0
            self.over = self.has_second = False
            self.finale: tuple[str, ...] = ()
            self.last_dag = DAGS[0]

        @stateful.initialize(
            parallelism=st.integers(2 if kills else 1, 3) if limited else st.just(NO_LIMIT),
            first_kill=st.integers(2, 8),
            finale=st.sampled_from(_FINALES),
            dag=st.sampled_from(DAGS),
        )
        def begin(self, parallelism: int, first_kill: int, finale: tuple[str, ...], dag: str) -> None:
            self.parallelism, self.first_kill = parallelism, first_kill
            self.finale, self.last_dag = finale, dag
            if kills:
                self.hold(DAGS[0], 2)

        def add(self, do: str, task: int = 0, dag: str = DAGS[0]) -> None:
            self.steps.append(Step(do, task, dag))

        def is_open(self) -> bool:
            return not self.over

        def is_at_work(self) -> bool:
            return not self.over and self.tasks > 0

        @stateful.precondition(is_open)
        @stateful.rule(dag=st.sampled_from(DAGS), count=st.integers(1, 3))
        def hold(self, dag: str, count: int) -> None:
            self.tasks += count
            self.held += count
            for _ in range(count):
                self.add("hold", dag=dag)

        @stateful.precondition(is_open)
        @stateful.rule(do=st.sampled_from(["submit", "fail"]), dag=st.sampled_from(DAGS))
        def submit(self, do: str, dag: str) -> None:
            self.tasks += 1
            self.add(do, dag=dag)

        @stateful.precondition(lambda self: not self.over and self.held > 0)
        @stateful.rule(do=st.sampled_from(["release", "settle"]), task=st.integers(0, 3))
        def release(self, do: str, task: int) -> None:
            self.held -= do == "release"
            self.add(do, task)

        @stateful.precondition(is_at_work)
        @stateful.rule(do=st.sampled_from(["pump", "work", "drain", "drain-dag"]), dag=st.sampled_from(DAGS))
        def look(self, do: str, dag: str) -> None:
            self.add(do, dag=dag)

        @stateful.precondition(is_at_work)
        @stateful.rule(task=st.integers(0, 3))
        def retry(self, task: int) -> None:
            self.add("retry", task)

        @stateful.precondition(lambda self: kills and not self.over and self.held > 1)
        @stateful.rule(task=st.integers(0, 2))
        def kill(self, task: int) -> None:
            self.held -= 1
            self.add("kill", task)

        @stateful.precondition(lambda self: not (kills or self.has_second) and self.is_at_work())
        @stateful.rule()
        def second(self) -> None:
            self.has_second = True
            self.add("second")

        @stateful.precondition(lambda self: not self.over and len(self.steps) >= _STEPS // 2)
        @stateful.rule(do=st.sampled_from(["end", "terminate"]))
        def close(self, do: str) -> None:
            self.over = True
            self.add(do)

        @stateful.precondition(lambda self: self.over)
        @stateful.rule(
            do=st.sampled_from(["end", "terminate", "late", "drain", "drain-dag"]), dag=st.sampled_from(DAGS)
        )
        def after_the_end(self, do: str, dag: str) -> None:
            self.steps_since += 1
            if self.steps_since <= _STEPS_AFTER_THE_END and not kills:
                self.add(do, dag=dag)

        def teardown(self) -> None:
            if sys.exc_info()[0] is not None or not self.tasks:
                return  # Hypothesis gave this one up, or it does nothing
            if kills and all(step.do != "kill" for step in self.steps):
                end = next(
                    (at for at, step in enumerate(self.steps) if step.do in ("release", "end", "terminate")),
                    len(self.steps),
                )
                self.steps.insert(min(self.first_kill, end), Step("kill"))
            if not (kills or self.over):
                for do in self.finale:
                    self.add(do, dag=self.last_dag)
            if explorer.try_out(Program(self.parallelism, tuple(self.steps))):
                raise Breached

    settings = hypothesis.settings(
        max_examples=programs,
        stateful_step_count=_STEPS,
        deadline=None,
        database=None,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate,),
        verbosity=hypothesis.Verbosity.quiet,
    )
    try:
        stateful.run_state_machine_as_test(hypothesis.seed(seed)(Machine), settings=settings)
    except Breached:
        pass
    except hypothesis.errors.Flaky:
        if explorer.breach is None:
            raise
    return explorer
