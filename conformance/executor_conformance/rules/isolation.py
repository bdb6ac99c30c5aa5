"""What one task does, the next does not see; what belongs to the executor or its host, a task does not get.

An argv command has a process of its own, so for it there is no exception.  Callables may share a worker by
design, as in ``concurrent.futures``: where that is seen by their pid, what cannot hold there does not apply.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import sys
import termios
from collections.abc import Callable

from executor_conformance.contract import SUCCESS
from executor_conformance.driving import Capability
from executor_conformance.harness import processes
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.trial import Subject, Trial, expect
from executor_conformance.probe import HOST_HANDLER
from executor_conformance.rules import must, should
from executor_conformance.verdicts import NotApplicable

_KINDS = ("interface.command-kinds-tell-the-truth",)
_PROGRAMS = (*_KINDS, "interface.passes-arguments-unchanged", "states.every-exit-status-tells")
_SHARED = "its tasks share a worker by design, as was seen by their pid"


def _forms(subject: Subject) -> list[tuple[str, Callable[[Probe], None]]]:
    """The kinds of command that it takes, and how each is submitted."""
    forms: list[tuple[str, Callable[[Probe], None]]] = []
    if subject.can(Capability.ARGV):
        forms.append(("argv", subject.submit))
    if subject.can(Capability.CALLABLE):
        forms.append(("callable", subject.submit_callable))
    return forms or [("in the only form it has", subject.submit)]


# -- what one task changes, the next does not see ------------------------------------------------------------


def _expect_no_trace(trial: Trial, *aspects: tuple[str, str]) -> None:
    """After a task that changed it, the tasks that follow find it unchanged.

    :param aspects: what is changed, as the probe and as a message calls it.
    """
    judged = False
    subject = trial.started(parallelism=1)
    for form, submit in _forms(subject):
        for aspect, what in aspects:
            before, culprit, *after = (
                trial.probe(step)
                for step in (f"look={aspect}", f"mark={aspect}", f"look={aspect}", f"look={aspect}")
            )
            for probe in (before, culprit, *after):
                submit(probe)
                subject.await_terminal(probe)
            seen = [run for probe in (before, *after) for run in probe.runs]
            workers = {run.pid for run in culprit.runs}
            if form != "argv" and any(run.pid in workers for run in seen):
                continue
            judged = True
            if any("marked" in run.notes for run in before.runs):
                continue
            expect(
                not any("marked" in run.notes for run in seen),
                awaited=f"{what} that one task ({form}) changed to be unchanged for the next",
                seen=f"the next found it changed; its process was {seen[-1].pid}, and {culprit.runs[0].pid} "
                "that of the task which changed it",
            )
    if not judged:
        raise NotApplicable(_SHARED)


@must(after=_KINDS)
def the_environment_is_each_tasks_own(trial: Trial) -> None:
    """What a task sets in its environment, the tasks after it do not see.

    Why: credentials and connection settings travel there; the next task is another team's.
    Likely causes: tasks run in the worker's own process and its environment is not restored; what a task
    needs is set in the worker instead of in the child.
    Origin: dask/distributed#6749; 4teamwork/opengever.core#3759.
    """
    _expect_no_trace(trial, ("environment", "a variable of the environment"))


@must(after=_KINDS)
def the_working_directory_is_each_tasks_own(trial: Trial) -> None:
    """When a task changes its working directory, the tasks after it do not start there.

    Why: relative paths, and the modules that ``python -m`` finds, depend on it.
    Likely causes: tasks run in the worker's own process; the worker changes its directory for a task and
    never goes back.
    Origin: nipy/nipype#2368; POSIX chdir(2), which is for the whole process.
    """
    _expect_no_trace(trial, ("directory", "the working directory"))


@must(after=_KINDS)
def the_umask_is_each_tasks_own(trial: Trial) -> None:
    """When a task changes its umask, the tasks after it do not have it.

    Why: files appear that nobody else, or everybody, can read.
    Likely causes: tasks run in the worker's own process; the umask of one task's configuration is set in the
    worker.
    Origin: POSIX umask(2), which is for the whole process.
    """
    _expect_no_trace(trial, ("umask", "the umask"))


@must(after=_KINDS)
def resource_limits_are_each_tasks_own(trial: Trial) -> None:
    """When a task limits its own resources, the tasks after it are not limited.

    Why: a limit that suits one task kills the next, and what was lowered can often not be raised again.
    Likely causes: tasks run in the worker's own process; limits are set in the worker, not in the child.
    Origin: POSIX setrlimit(2), which is for the whole process.
    """
    _expect_no_trace(trial, ("limits", "a resource limit"))


@must(after=_KINDS)
def signal_settings_are_each_tasks_own(trial: Trial) -> None:
    """When a task blocks or ignores signals, the tasks after it do not.

    Why: a task that cannot be interrupted survives every polite way to stop it.
    Likely causes: tasks run in the worker's own process, and neither handlers nor mask are restored; the mask
    of the thread that forks is inherited.
    Origin: ralphlange/procServ#48; POSIX sigprocmask(2), which is inherited over fork and exec.
    """
    _expect_no_trace(trial, ("signals", "a signal's mask or handler"))


@must(after=_KINDS)
def modules_are_each_tasks_own(trial: Trial) -> None:
    """What a task changes in a module or in ``sys.path``, the tasks after it do not see.

    Why: a patched library, a cached client or another version first on the path changes what others do.
    Likely causes: tasks run in the worker's own interpreter, one after the other; ``sys.path`` is extended
    for a task and not restored.
    Origin: apache/airflow's move from a new interpreter to a fork for each task, which kept tasks apart.
    """
    _expect_no_trace(trial, ("modules", "an attribute of a module"), ("path", "sys.path"))


# -- what belongs to the executor, a task does not get -------------------------------------------------------

_WRITE_WHAT_IT_HAS = """\
import json, os, sys
have = {}
for name in os.listdir("/proc/self/fd"):
    try:
        have[name] = os.readlink("/proc/self/fd/" + name)
    except OSError:
        pass
with open("/proc/self/status") as file:
    status = dict(line.split(":", 1) for line in file)
with open(sys.argv[1] + ".new", "w") as file:
    json.dump({"descriptors": have, "ignored": status["SigIgn"], "blocked": status["SigBlk"]}, file)
os.rename(sys.argv[1] + ".new", sys.argv[1])
"""


def _what_a_program_has(trial: Trial, subject: Subject) -> dict[str, object]:
    """Descriptors and signals of an executed program (not of Python code in a forked child)."""
    path = os.path.join(trial.scratch, "what-it-has")
    program = trial.program(sys.executable, "-I", "-S", "-c", _WRITE_WHAT_IT_HAS, path)
    subject.run(program)
    subject.expect_outcome(program, SUCCESS, "a program")
    expect(
        os.path.exists(path),
        awaited="a program to have run when its 'success' was reported",
        seen="it has not written its file yet",
    )
    with open(path) as file:
        has: dict[str, object] = json.load(file)
    return has


@must(needs=(Capability.ARGV,), after=_PROGRAMS)
def a_program_gets_no_descriptor_of_the_executor(trial: Trial) -> None:
    """An executed program has its three standard streams, and none of the executor's files, pipes or sockets.

    Why: a daemon that it leaves would hold the pipe whose end the executor waits for, and a task could read
    or answer for others.
    Likely causes: descriptors are made inheritable for a worker, and the worker's programs inherit them;
    ``close_fds=False``; dup2() without O_CLOEXEC.
    Origin: apache/airflow#44263; apache/airflow#51180; supercollider/supercollider#5897.
    """
    before = set(_links_of_descriptors().values())  # what the host was given by whoever started it
    subject = trial.started(parallelism=1)
    subject.run(trial.probe())  # so that what comes with the first task is there
    descriptors = _what_a_program_has(trial, subject)["descriptors"]
    assert isinstance(descriptors, dict)
    foreign = {
        number: link
        for number, link in descriptors.items()
        if int(number) > 2 and link not in before and not link.startswith("/proc/")
    }
    expect(
        not foreign,
        awaited="a program with its standard streams and nothing else",
        seen=f"{len(foreign)} more: "
        + ", ".join(f"{number} is {link}" for number, link in sorted(foreign.items())[:4]),
    )


def _links_of_descriptors() -> dict[str, str]:
    links = {}
    for number in processes.open_descriptors():
        with contextlib.suppress(OSError):
            links[str(number)] = os.readlink(f"/proc/self/fd/{number}")
    return links


@must(after=_PROGRAMS)
def a_task_can_be_interrupted(trial: Trial) -> None:
    """A task starts with SIGINT and SIGTERM neither ignored nor blocked.

    Why: what is ignored stays so over fork and exec: no polite way to stop it, or its children, works.
    Likely causes: workers ignore SIGINT, so that Ctrl-C leaves them alone, and start the task like that;
    signals are blocked around the fork and never unblocked in the child.
    Origin: treeverse/dvc#2271; ralphlange/procServ#48; Airflow's LocalExecutor has its workers ignore SIGINT.
    """
    judged = False
    subject = trial.started(parallelism=1)
    if subject.can(Capability.ARGV):
        judged = True
        has = _what_a_program_has(trial, subject)
        for how in ("ignored", "blocked"):
            numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if int(str(has[how]), 16) >> n - 1 & 1]
            expect(
                not numbers,
                awaited="a program with default SIGINT and SIGTERM",
                seen=f"{', '.join(n.name for n in numbers)} {how}",
            )
    judged |= _expect_no_note(
        trial, subject, "signals", "with default SIGINT and SIGTERM", lambda note: "host" not in note
    )
    if not judged:
        raise NotApplicable(_SHARED)


@should(
    needs=(Capability.ARGV,),
    after=(*_PROGRAMS, "interface.runs-other-programs-as-they-stand"),
)
def a_program_dies_of_a_closed_pipe(trial: Trial) -> None:
    """An executed program starts with SIGPIPE not ignored, so it ends when nobody reads what it writes.

    Why: ``vmstat 5 | head -n 1`` never ends, and other pipelines fill their task's log with errors.
    Likely causes: Python ignores SIGPIPE, and what is ignored stays so over ``os.execvp()`` and
    ``os.posix_spawn()``; ``restore_signals=False``.
    Origin: ansible/ansible#44813 (a pipeline that hangs); apenwarr/redo#13.
    """
    path = os.path.join(trial.scratch, "status")
    # no Python, which ignores it itself
    program = trial.program("cp", "/proc/self/status", path)
    subject = trial.started(parallelism=1)
    subject.run(program)
    subject.expect_outcome(program, SUCCESS, "cp /proc/self/status ...")
    expect(os.path.exists(path), awaited="the program to have made its copy", seen="there is none")
    with open(path) as file:
        status = dict(line.split(":", 1) for line in file)
    for how, field in (("ignored", "SigIgn"), ("blocked", "SigBlk")):
        expect(
            not int(status[field], 16) >> (signal.SIGPIPE - 1) & 1,
            awaited="a program with a default SIGPIPE",
            seen=f"SIGPIPE {how}",
        )


def _expect_no_note(
    trial: Trial, subject: Subject, step: str, awaited: str, counts: Callable[[str], object]
) -> bool:
    """No task of those that have a process of their own notes what ``counts``; whether there was one."""
    judged = False
    for form, submit in _forms(subject):
        first, second = trial.probes(2, step)
        for probe in (first, second):
            submit(probe)
            subject.await_terminal(probe)
        runs = [*first.runs, *second.runs]
        if form != "argv" and len({run.pid for run in runs}) < len(runs):
            continue
        judged = True
        notes = [note for run in runs for note in run.notes if counts(note)]
        expect(not notes, awaited=f"a task ({form}) {awaited}", seen=", ".join(dict.fromkeys(notes)))
    return judged


@should(after=("isolation.a-task-can-be-interrupted",))
def the_hosts_signal_handlers_are_not_the_tasks(trial: Trial) -> None:
    """A task does not run the host's handlers when it is sent SIGINT or SIGTERM.

    Why: the scheduler's handler ends the scheduler: in a task it runs the scheduler's clean-up a second time.
    Likely causes: the child is forked and nothing resets its handlers; only workers reset theirs, and tasks
    are forked elsewhere.
    Origin: apache/airflow#18989; apache/airflow#14085.
    """
    trial.need_processes()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _host_handler)
    subject = trial.started(parallelism=1)
    if not _expect_no_note(
        trial, subject, "signals", "without the host's handlers", lambda note: "host" in note
    ):
        raise NotApplicable(_SHARED)


def _host_handler(number: int, frame: object) -> None:
    os._exit(1)


_host_handler.__name__ = HOST_HANDLER


@should(after=_KINDS)
def a_task_does_not_read_the_hosts_input(trial: Trial) -> None:
    """What stands in the host's standard input is not for the tasks.

    Why: a task that reads takes what was typed for the scheduler, or waits for a person who is not there.
    Likely causes: the child inherits standard input; it is replaced in Python only, not as a descriptor.
    Origin: Airflow's LocalExecutor of 2.x runs commands with the scheduler's standard input.
    """
    trial.need_processes()
    reader, writer = os.pipe()
    os.write(writer, b"typed for the host\n" * 100)
    os.dup2(reader, 0)
    subject = trial.started(parallelism=1)
    if not _expect_no_note(trial, subject, "stdin", "that finds nothing of the host's to read", bool):
        raise NotApplicable(_SHARED)


@should(after=_KINDS)
def a_task_does_not_have_the_hosts_terminal(trial: Trial) -> None:
    """A host that was started from a terminal keeps it to itself.

    Why: Ctrl-C for the scheduler interrupts all tasks as well, and a task can ask for a password there.
    Likely causes: the task has no session of its own (setsid, start_new_session); only its standard streams
    are taken from the terminal.
    Origin: credentials(7): signals of a terminal go to its foreground process group.
    """
    trial.need_processes()

    def judge() -> None:
        _take_a_terminal()
        subject = trial.started(parallelism=1)
        if not _expect_no_note(
            trial, subject, "terminal", "without the host's terminal", lambda note: note != "none"
        ):
            raise NotApplicable(_SHARED)

    trial.in_another_host(judge)


def _take_a_terminal() -> None:
    """Have a terminal control this process and what it forks.

    :raises NotApplicable: the machine does not offer one.
    """
    try:
        os.setsid()
        _, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError as error:
        raise NotApplicable(f"no terminal can be made here: {error}") from None
