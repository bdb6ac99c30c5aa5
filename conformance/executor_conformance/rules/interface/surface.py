"""The constructor and the methods of an executor."""

from __future__ import annotations

from executor_conformance.adapters.api import DEFAULT
from executor_conformance.contract import Call
from executor_conformance.harness.trial import Trial
from executor_conformance.requirements import Capability
from executor_conformance.rules import must
from executor_conformance.verdicts import NotApplicable, expect

#: Calls whose method an executor may declare to lack.
_MAY_LACK = {Call.START: Capability.START, Call.TERMINATE: Capability.TERMINATE}


@must(gateway=True)
def constructor_accepts_parallelism(trial: Trial) -> None:
    """The constructor accepts the number of tasks that may run at once, and returns an executor.

    Why: parallelism is the one setting that every executor has; an executor whose constructor does not accept
    it, or does not return, cannot be used.
    Likely causes: the argument has another name; the constructor needs more arguments (pass them with
    --executor-option, or build the executor in a conftest hook); the constructor waits for something.
    Origin: the executor surface of Airflow (BaseExecutor.__init__ takes parallelism).
    """
    trial.build(slots=1)
    if trial.context.fixed:  # that it was built is judged, too
        raise NotApplicable(trial.context.fixed)


@must(needs=(Capability.CHOSEN_PARALLELISM,))
def parallelism_has_a_default(trial: Trial) -> None:
    """The constructor can be called without parallelism.

    Why: schedulers construct the executor that a configuration file names, without arguments.
    Likely causes: parallelism has no default; the default is computed from something that does not exist.
    Origin: Airflow's ExecutorLoader calls the executor class without arguments.
    """
    trial.build(parallelism=DEFAULT)


@must(runs_tasks=False)
def every_required_method_exists(trial: Trial) -> None:
    """Every required method exists and is callable, except those that the executor declares as missing.

    Why: a scheduler notices a missing method only in the middle of a run, and most of its calls are
    unguarded.
    Likely causes: a method is missing or misspelt; an attribute hides the method of the same name.
    Origin: the executor surface of Airflow; apache/airflow#41992.
    """
    subject = trial.build(slots=1)
    adapter = trial.target.adapter
    lacking = [adapter.name_of(call) for call, ability in _MAY_LACK.items() if not subject.can(ability)]
    required = [name for name in adapter.required_methods if f"{name}()" not in lacking]
    missing = [name for name in required if not callable(getattr(subject.driver.executor, name, None))]
    expect(
        not missing,
        expected=f"the methods {', '.join(required)}",
        actual=f"missing or not callable: {', '.join(missing)}",
    )


@must(needs=(Capability.CHOSEN_PARALLELISM, Capability.PARALLELISM_ATTRIBUTE))
def parallelism_attribute_is_accurate(trial: Trial) -> None:
    """``parallelism`` is the number that was passed to the constructor.

    Why: schedulers and monitoring read it to find out how many tasks may run at once.
    Likely causes: the argument is not stored; a default or a configured value overrides the argument.
    Origin: Airflow reads executor.parallelism for its open-slot metrics.
    """
    for parallelism in (1, 3):
        subject = trial.build(parallelism=parallelism)
        expect(subject.has("parallelism"), expected="an attribute parallelism", actual="it does not exist")
        value = subject.optional("parallelism")
        expect(
            isinstance(value, int) and int(value) == parallelism,
            expected=f"parallelism to be {parallelism}, as passed to the constructor",
            actual=repr(value),
        )
