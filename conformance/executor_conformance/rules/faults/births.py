"""The death of a worker that was started for a task, while other workers were already running."""

from __future__ import annotations

from executor_conformance.harness import processes
from executor_conformance.harness.slow_caller import SlowCaller
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.harness.workers import need_separate_processes, workers_of
from executor_conformance.requirements import Observation
from executor_conformance.rules import must
from executor_conformance.rules.faults.killing import (
    kill_new_process,
    let_reruns_end,
)
from executor_conformance.rules.faults.recovery import await_failure, await_outcome, expect_capacity
from executor_conformance.verdicts import NotApplicable

#: How many tasks run when a worker is killed.  The third worker is neither the first one nor the first one
#: that is started while another task runs.
_TASKS = 3
#: The caller pauses for this many seconds, or as long as this many forks take: long enough for a thread that
#: it wakes to take a look around and to wait again.
_PAUSE_S, _PAUSE_FORKS = 0.02, 8
_MAX_PAUSES = 4


@must(needs=(Observation.LOCAL_PROCESSES,), after=("faults.a-killed-worker-fails-its-task",))
def a_later_worker_death_is_detected(trial: Trial) -> None:
    """When tasks are submitted one after the other and one of their workers is killed, its task is reported
    ``failed`` while the others still run, whether its worker was started first or last.

    Why: the other tasks may run for days, and nothing else wakes the executor.
    Likely causes: a thread that waits for workers is woken before the new worker is in its list, and never
    again; only workers that ``start()`` created are watched.
    Origin: Python 3.12's ProcessPoolExecutor with a spawn or forkserver context (docs/findings); since
    python/cpython#108513, its manager thread may wait again before submit() has added the new process.
    """
    pause_s = max(_PAUSE_S, _PAUSE_FORKS * trial.budgets.fork_s)
    with SlowCaller(pause_s, _MAX_PAUSES) as caller:
        for position in reversed(range(_TASKS)):  # the last one is the most likely to be forgotten
            subject = trial.started(parallelism=_TASKS)
            gate = trial.gate()
            held = trial.probes(_TASKS, gate.step)
            for probe in held:
                with caller.slow():
                    subject.submit(probe)
                subject.await_started(probe)
            need_separate_processes(held[0], held[1])
            subject.quiet()
            processes.kill(workers_of(trial, held)[position])
            doomed = held[position]
            let_reruns_end(trial, doomed)
            what = f"the task whose worker was killed, number {position + 1} of {_TASKS} tasks that ran"
            await_failure(subject, doomed, what)


@must(
    needs=(Observation.LOCAL_PROCESSES,),
    after=(
        "faults.a-killed-worker-fails-its-task",
        "faults.capacity-is-restored-after-worker-deaths",
        "faults.survives-the-death-of-an-idle-worker",
    ),
)
def submit_survives_the_death_of_a_new_worker(trial: Trial) -> None:
    """If the worker that a submitted task needs is killed as soon as it exists, the task runs in another
    worker or is reported ``failed``, and ``parallelism`` tasks run at once again.

    Why: memory is scarcest when a process starts, and a broken import ends each new worker at once.
    Likely causes: the task is bound to a worker that never reads it; deaths count only after a first message
    from the worker.
    Origin: kevoreilly/CAPEv2#3142; livekit/agents#5868.
    """
    position = _position_of_the_new_worker(trial)
    for _ in range(_TASKS):  # the kernel decides how far the worker gets
        subject, before = _settled(trial)
        gate = trial.gate()
        doomed = trial.probe(gate.step)
        killer = trial.host.meanwhile(lambda: kill_new_process(trial, position, before))  # noqa: B023
        subject.submit(doomed)
        trial.wait_for(lambda: not processes.is_alive(killer), pump=subject.pump)  # noqa: B023
        trial.host.kill_own(killer)
        gate.open()
        await_outcome(subject, doomed, "a task whose new worker was killed at once")
        expect_capacity(trial, subject, 2, "after a new worker was killed at once")


def _position_of_the_new_worker(trial: Trial) -> int:
    """Which of the processes that the first submission creates is the worker, counted from 0.

    :raises NotApplicable: the worker existed before the first submission.
    """
    subject, before = _settled(trial)
    gate = trial.gate()
    held = trial.probes(2, gate.step)
    subject.submit(held[0])
    subject.await_started(held[0])
    created = sorted(
        (process for process in trial.host.processes() if process.pid not in before),
        key=lambda process: (process.started, process.pid),
    )
    subject.submit(held[1])
    subject.await_started(held[1])
    need_separate_processes(*held)
    worker = workers_of(trial, held)[0]
    for position, process in enumerate(created):
        if process.pid == worker:
            return position
    raise NotApplicable("submitting a task creates no worker")


def _settled(trial: Trial) -> tuple[Subject, set[int]]:
    """A started executor, and the pids of its processes when it has created all that it creates by itself."""
    subject = trial.started(parallelism=2)
    subject.quiet()
    return subject, {process.pid for process in trial.host.processes()}
