"""Generates random programs with Hypothesis."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable

from executor_conformance.harness.trial import NO_LIMIT, Trial
from executor_conformance.programs.exploring import Explorer
from executor_conformance.programs.program import DAGS, Program, Step
from executor_conformance.verdicts import NotApplicable

#: Hypothesis takes at most this many steps per program, and this many after the executor has ended.
_STEPS, _STEPS_AFTER_THE_END = 12, 3
#: This many programs are generated in advance.
_PREPARING = 10
#: A program that does not end the executor continues with one of these.
_FINALES = ((), ("end", "drain-dag"), ("end", "late", "drain-dag"), ("terminate", "drain-dag"))


def explore(trial: Trial, *, kills: bool, seed: int, limited: bool = True, share: float = 1.0) -> Explorer:
    """Run programs that Hypothesis generates.

    :param kills: the programs kill workers.
    :param seed: the same seed generates the same programs.
    :param limited: the executor has a few slots; otherwise it is in unlimited mode.
    :param share: the share of the trial's number of programs to run.
    """
    import hypothesis

    slots = trial.slots(0) if limited else NO_LIMIT  # 0: a few, as the program chooses
    if kills and slots == 1:
        raise NotApplicable(f"{trial.context.fixed}, and one task runs at a time")
    programs = max(round(share * trial.context.programs), 1)
    explorer = Explorer(trial, programs)
    try:
        _generate(explorer.try_out, programs, kills=kills, seed=seed, limited=limited, slots=slots)
    except hypothesis.errors.Flaky:
        if explorer.found is None:
            raise
    return explorer


@functools.cache
def prepare() -> None:
    """Import Hypothesis and let it generate a few programs, which are not run.

    This takes half a second: with one of the first draws, Hypothesis looks for constants in the source of the
    user's modules.  The hosts of all rules are forked from one process; done there, it is done for all.
    """
    with warnings.catch_warnings():
        # About plugins of Hypothesis; the user may have made warnings errors.
        warnings.simplefilter("ignore")
        _generate(lambda program: False, _PREPARING, kills=False, seed=0, limited=True)


def _generate(
    try_out: Callable[[Program], bool],
    count: int,
    *,
    kills: bool,
    seed: int,
    limited: bool,
    slots: int = 0,
) -> None:
    """Let Hypothesis generate programs until one is found to violate a rule.

    :param try_out: runs a program; whether it violates a rule.
    :param count: how many programs, at most.
    :param slots: the parallelism of all programs; 0: they have various.
    """
    import hypothesis
    from hypothesis import stateful
    from hypothesis import strategies as st

    class Found(Exception):
        pass

    class Machine(stateful.RuleBasedStateMachine):
        """Adds steps to a program, and runs it when it is complete.

        The names of its rules must not change: Hypothesis orders rules by name, so a seed would then generate
        other programs.
        """

        def __init__(self) -> None:
            super().__init__()
            self.parallelism = self.first_kill = 1
            self.steps: list[Step] = []
            self.tasks = self.held = self.steps_since = 0
            self.ended = self.has_second = False
            self.finale: tuple[str, ...] = ()
            self.last_dag = DAGS[0]

        @stateful.initialize(
            parallelism=st.just(slots) if slots or not limited else st.integers(2 if kills else 1, 3),
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

        def is_running(self) -> bool:
            return not self.ended

        def has_tasks(self) -> bool:
            return not self.ended and self.tasks > 0

        @stateful.precondition(is_running)
        @stateful.rule(dag=st.sampled_from(DAGS), count=st.integers(1, 3))
        def hold(self, dag: str, count: int) -> None:
            self.tasks += count
            self.held += count
            for _ in range(count):
                self.add("hold", dag=dag)

        @stateful.precondition(is_running)
        @stateful.rule(do=st.sampled_from(["submit", "fail"]), dag=st.sampled_from(DAGS))
        def submit(self, do: str, dag: str) -> None:
            self.tasks += 1
            self.add(do, dag=dag)

        @stateful.precondition(lambda self: not self.ended and self.held > 0)
        @stateful.rule(do=st.sampled_from(["release", "settle"]), task=st.integers(0, 3))
        def release(self, do: str, task: int) -> None:
            self.held -= do == "release"
            self.add(do, task)

        @stateful.precondition(has_tasks)
        @stateful.rule(do=st.sampled_from(["pump", "work", "drain", "drain-dag"]), dag=st.sampled_from(DAGS))
        def look(self, do: str, dag: str) -> None:
            self.add(do, dag=dag)

        @stateful.precondition(has_tasks)
        @stateful.rule(task=st.integers(0, 3))
        def retry(self, task: int) -> None:
            self.add("retry", task)

        @stateful.precondition(lambda self: kills and not self.ended and self.held > 1)
        @stateful.rule(task=st.integers(0, 2))
        def kill(self, task: int) -> None:
            self.held -= 1
            self.add("kill", task)

        @stateful.precondition(lambda self: not (kills or self.has_second) and self.has_tasks())
        @stateful.rule()
        def second(self) -> None:
            self.has_second = True
            self.add("second")

        @stateful.precondition(lambda self: not self.ended and len(self.steps) >= _STEPS // 2)
        @stateful.rule(do=st.sampled_from(["end", "terminate"]))
        def close(self, do: str) -> None:
            self.ended = True
            self.add(do)

        @stateful.precondition(lambda self: self.ended)
        @stateful.rule(
            do=st.sampled_from(["end", "terminate", "late", "drain", "drain-dag"]), dag=st.sampled_from(DAGS)
        )
        def after_the_end(self, do: str, dag: str) -> None:
            self.steps_since += 1
            if self.steps_since <= _STEPS_AFTER_THE_END and not kills:
                self.add(do, dag=dag)

        def teardown(self) -> None:
            if sys.exc_info()[0] is not None or not self.tasks:
                return  # Hypothesis abandoned this program, or it does nothing
            if kills and all(step.do != "kill" for step in self.steps):
                end = next(
                    (at for at, step in enumerate(self.steps) if step.do in ("release", "end", "terminate")),
                    len(self.steps),
                )
                self.steps.insert(min(self.first_kill, end), Step("kill"))
            if not (kills or self.ended):
                for do in self.finale:
                    self.add(do, dag=self.last_dag)
            if try_out(Program(self.parallelism, tuple(self.steps))):
                raise Found

    settings = hypothesis.settings(
        max_examples=count,
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
    except Found:
        pass
