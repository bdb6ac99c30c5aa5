"""Tasks do not affect each other, and do not inherit what belongs to the executor or its host.

An argv command has a process of its own, so these rules apply to it without exception.  Callables may share a
worker by design, as in ``concurrent.futures``.  Where their pids show that they do, rules that shared workers
cannot keep are not applicable.
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
from executor_conformance.harness import processes
from executor_conformance.harness.probes import Probe
from executor_conformance.harness.subject import Subject
from executor_conformance.harness.trial import Trial
from executor_conformance.probes.steps import HOST_HANDLER, own_terminal, random_values
from executor_conformance.requirements import Capability, Observation
from executor_conformance.rules import must, should
from executor_conformance.verdicts import NotApplicable, expect

_KINDS = ("interface.command-kinds-are-accurate",)
_PROGRAMS = (
    *_KINDS,
    "interface.argv-is-passed-unchanged",
    "states.exit-status-decides-the-outcome",
    "states.no-terminal-event-before-the-task-ends",
)
_SHARED_WORKER = "tasks share a worker by design (same pid)"


def _forms(subject: Subject) -> list[tuple[str, Callable[[Probe], None]]]:
    """The kinds of command that the executor takes, and how each is submitted."""
    forms: list[tuple[str, Callable[[Probe], None]]] = []
    if subject.can(Capability.ARGV):
        forms.append(("argv", subject.submit))
    if subject.can(Capability.CALLABLE):
        forms.append(("callable", subject.submit_callable))
    return forms or [("the executor's only kind of task", subject.submit)]


# -- no leaks from one task to the next ----------------------------------------------------------------------


def _expect_no_leak(trial: Trial, *aspects: tuple[str, str]) -> None:
    """Let a task change some state of its process, and check that the next tasks do not see the change.

    :param aspects: what is changed, by its name in the probe and in messages.
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
                expected=f"{what} that a task ({form}) changed to be unchanged in the next task",
                actual=f"the change was visible; the task ran in process {culprit.runs[0].pid}, "
                f"the next one in process {seen[-1].pid}",
            )
    if not judged:
        raise NotApplicable(_SHARED_WORKER)


@must(after=_KINDS)
def environment_does_not_leak_between_tasks(trial: Trial) -> None:
    """Environment variables that a task sets are not visible to later tasks.

    Why: they hold credentials and connection settings, and the next task may belong to another team.
    Likely causes: tasks that run in the worker's own process, whose environment is not restored; variables
    for a task that are set in the worker instead of in the child.
    Origin: dask/distributed#6749; 4teamwork/opengever.core#3759.
    """
    _expect_no_leak(trial, ("environment", "an environment variable"))


@must(after=_KINDS)
def working_directory_does_not_leak_between_tasks(trial: Trial) -> None:
    """A task that changes its working directory does not change it for later tasks.

    Why: relative paths, and the modules that ``python -m`` finds, depend on the working directory.
    Likely causes: tasks that run in the worker's own process; a worker that changes its directory for a task
    and does not change it back.
    Origin: nipy/nipype#2368; POSIX chdir(2), which affects the whole process.
    """
    _expect_no_leak(trial, ("directory", "the working directory"))


@must(after=_KINDS)
def umask_does_not_leak_between_tasks(trial: Trial) -> None:
    """A task that changes its umask does not change it for later tasks.

    Why: otherwise later tasks create files that only their owner, or everyone, can read.
    Likely causes: tasks that run in the worker's own process; a umask from the configuration of one task that
    is set in the worker.
    Origin: POSIX umask(2), which affects the whole process.
    """
    _expect_no_leak(trial, ("umask", "the umask"))


@must(after=_KINDS)
def resource_limits_do_not_leak_between_tasks(trial: Trial) -> None:
    """A task that lowers its own resource limits does not lower those of later tasks.

    Why: a limit that suits one task kills the next, and a lowered limit often cannot be raised again.
    Likely causes: tasks that run in the worker's own process; limits that are set in the worker instead of in
    the child.
    Origin: POSIX setrlimit(2), which affects the whole process.
    """
    _expect_no_leak(trial, ("limits", "a resource limit"))


@must(after=_KINDS)
def signal_settings_do_not_leak_between_tasks(trial: Trial) -> None:
    """Signals that a task blocks or ignores are neither blocked nor ignored in later tasks.

    Why: a task that ignores SIGINT and SIGTERM can be stopped only with SIGKILL.
    Likely causes: tasks that run in the worker's own process, whose handlers and signal mask are not
    restored; a signal mask that is inherited from the thread that forks.
    Origin: ralphlange/procServ#48; POSIX sigprocmask(2), which is inherited across fork and exec.
    """
    _expect_no_leak(trial, ("signals", "a signal mask or handler"))


@must(after=_KINDS)
def module_changes_do_not_leak_between_tasks(trial: Trial) -> None:
    """Changes that a task makes to a module or to ``sys.path`` are not visible to later tasks.

    Why: a patched library, a cached client or another version first on the path changes how other tasks
    behave.
    Likely causes: tasks that run in the worker's own interpreter, one after the other; a ``sys.path`` that is
    extended for a task and not restored.
    Origin: apache/airflow's move from a new interpreter to a fork for each task, which kept tasks isolated.
    """
    _expect_no_leak(trial, ("modules", "an attribute of a module"), ("path", "sys.path"))


@should(after=_KINDS)
def tasks_do_not_share_random_numbers(trial: Trial) -> None:
    """No two tasks get the same random numbers, UUIDs or names of temporary files, and none gets those of the
    host.

    Why: if they do, samples that should differ are equal, and nothing shows it; unique names are not unique.
    Likely causes: workers or tasks that are copies of one process, with the state of its random number
    generator; a seed that is set for each task.
    Origin: binarymatt/pyres#82; dask/distributed#835; aminalaee/uuid-utils#42.
    """
    drawn = random_values()
    subject = trial.started(parallelism=2, slots=1)
    gate = trial.gate()
    held = trial.probes(trial.slots_up_to(2), gate.step, "random")  # in as many workers as there are
    later = trial.probes(6, "random")
    subject.submit(*held)
    subject.await_started(*held)
    subject.submit(*later)
    gate.open()
    subject.await_terminal(*held, *later)
    drawn += random_values()
    drawn += [note for task in (*held, *later) for run in task.runs for note in run.notes]
    repeated = sorted({one for one in drawn if drawn.count(one) > 1})
    expect(
        not repeated,
        expected="each task to draw random numbers, UUIDs and names of its own",
        actual=f"{len(repeated)} were drawn more than once, such as {', '.join(repeated[:3])}",
    )


@must(after=_KINDS)
def process_settings_do_not_leak_between_tasks(trial: Trial) -> None:
    """A timer, a nice value or a CPU affinity that a task sets does not apply to later tasks.

    Why: the alarm of one task kills the next; a library that pins its task to one processor slows down all
    tasks after it.
    Likely causes: tasks that run in the worker's own process, which restores only some of its state; a nice
    value for one task that is set in the worker.
    Origin: laravel/framework#19586 (the alarm of the previous job); scikit-learn/scikit-learn#11071 (an
    import sets the CPU affinity).
    """
    aspects = [("timer", "an interval timer"), ("nice", "the nice value")]
    if len(os.sched_getaffinity(0)) > 1:
        aspects.append(("affinity", "the CPU affinity"))
    _expect_no_leak(trial, *aspects)


# -- no leaks from the executor or its host to a task --------------------------------------------------------

#: Writes its file descriptors and signal settings to a file.
_INSPECT_ITSELF = """\
import json, os, sys
descriptors = {}
for name in os.listdir("/proc/self/fd"):
    try:
        descriptors[name] = os.readlink("/proc/self/fd/" + name)
    except OSError:
        pass
with open("/proc/self/status") as file:
    status = dict(line.split(":", 1) for line in file)
with open(sys.argv[1] + ".new", "w") as file:
    json.dump({"descriptors": descriptors, "ignored": status["SigIgn"], "blocked": status["SigBlk"]}, file)
os.rename(sys.argv[1] + ".new", sys.argv[1])
"""


def _inspect_program(trial: Trial, subject: Subject) -> dict[str, object]:
    """Descriptors and signal settings of an executed program (not of Python code in a forked child)."""
    path = os.path.join(trial.scratch, "inspected")
    program = trial.program(sys.executable, "-I", "-S", "-c", _INSPECT_ITSELF, path)
    subject.run(program)
    subject.expect_outcome(program, SUCCESS, "a program")
    expect(
        os.path.exists(path),
        expected="a program to have run before it is reported 'success'",
        actual="it had not written its file yet",
    )
    with open(path) as file:
        found: dict[str, object] = json.load(file)
    return found


@must(needs=(Capability.ARGV,), after=_PROGRAMS)
def programs_inherit_no_executor_file_descriptors(trial: Trial) -> None:
    """An executed program inherits only its three standard streams, and none of the executor's files, pipes
    or sockets.

    Why: a daemon that the program leaves behind would keep open a pipe on which the executor waits, and a
    task could read or send messages of other tasks.
    Likely causes: descriptors that were made inheritable for a worker, and that its programs inherit as well;
    ``close_fds=False``; ``dup2()`` without O_CLOEXEC.
    Origin: apache/airflow#44263; apache/airflow#51180; supercollider/supercollider#5897.
    """
    before = set(_links_of_descriptors().values())  # inherited by the host itself
    subject = trial.started(parallelism=1, slots=1)
    subject.run(trial.probe())  # some executors open files with the first task
    descriptors = _inspect_program(trial, subject)["descriptors"]
    assert isinstance(descriptors, dict)
    foreign = {
        number: link
        for number, link in descriptors.items()
        if int(number) > 2 and link not in before and not link.startswith("/proc/")
    }
    expect(
        not foreign,
        expected="a program to inherit its three standard streams and no other file descriptor",
        actual=f"it inherited {len(foreign)} more: "
        + ", ".join(f"{number} -> {link}" for number, link in sorted(foreign.items())[:4]),
    )


@should(after=("isolation.programs-inherit-no-executor-file-descriptors",))
def host_programs_inherit_no_executor_file_descriptors(trial: Trial) -> None:
    """The executor's file descriptors in the host are not inheritable.

    Why: the host starts other programs, too. One that inherits a pipe of the executor keeps it open, and the
    executor waits in vain for its end.
    Likely causes: a descriptor is made inheritable for a worker, and stays so; one from a library in C that
    does not set O_CLOEXEC.
    Origin: sheredom/subprocess.h#114 (children hold the pipes of other children).
    """
    before = _links_of_descriptors()
    subject = trial.started(slots=1)
    gate = trial.gate()
    held = trial.probe(gate.step)
    subject.submit(held)
    subject.await_started(held)
    subject.quiet()
    inheritable = []
    for number, link in _links_of_descriptors().items():
        with contextlib.suppress(OSError):  # closed since
            if before.get(number) != link and os.get_inheritable(int(number)):
                inheritable.append(f"{number} -> {link}")
    expect(
        not inheritable,
        expected="no file descriptor of the executor in the scheduler process to be inheritable",
        actual=", ".join(inheritable[:4]),
    )
    gate.open()
    subject.await_terminal(held)


def _links_of_descriptors() -> dict[str, str]:
    links = {}
    for number in processes.open_descriptors():
        with contextlib.suppress(OSError):
            links[str(number)] = os.readlink(f"/proc/self/fd/{number}")
    return links


@must(after=_PROGRAMS)
def sigint_and_sigterm_work_in_tasks(trial: Trial) -> None:
    """A task starts with SIGINT and SIGTERM neither ignored nor blocked.

    Why: ignored signals stay ignored across fork and exec, so the task and its children can be stopped only
    with SIGKILL.
    Likely causes: workers that ignore SIGINT so that Ctrl-C does not stop them, and whose tasks inherit that;
    signals that are blocked around the fork and never unblocked in the child.
    Origin: treeverse/dvc#2271; ralphlange/procServ#48; Airflow's LocalExecutor has its workers ignore SIGINT.
    """
    judged = False
    subject = trial.started(parallelism=1, slots=1)
    if subject.can(Capability.ARGV):
        judged = True
        found = _inspect_program(trial, subject)
        for how in ("ignored", "blocked"):
            numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if int(str(found[how]), 16) >> n - 1 & 1]
            expect(
                not numbers,
                expected="a program to start with SIGINT and SIGTERM neither ignored nor blocked",
                actual=f"{' and '.join(n.name for n in numbers)} {how}",
            )
    judged |= _expect_no_note(
        trial,
        subject,
        "signals",
        "to start with SIGINT and SIGTERM neither ignored nor blocked",
        lambda note: "host" not in note,
    )
    if not judged:
        raise NotApplicable(_SHARED_WORKER)


@should(
    needs=(Capability.ARGV,),
    after=(*_PROGRAMS, "interface.arbitrary-programs-run-as-given"),
)
def programs_start_with_default_sigpipe(trial: Trial) -> None:
    """An executed program starts with the default action for SIGPIPE, so it ends when its output is no longer
    read.

    Why: if SIGPIPE is ignored, ``vmstat 5 | head -n 1`` never ends, and other pipelines fill the log of their
    task with errors.
    Likely causes: ``os.execvp()`` or ``os.posix_spawn()`` without a reset of SIGPIPE, which Python ignores;
    ``restore_signals=False``.
    Origin: ansible/ansible#44813 (a pipeline that hangs); apenwarr/redo#13.
    """
    path = os.path.join(trial.scratch, "status")
    # not a Python program: Python itself ignores SIGPIPE
    program = trial.program("cp", "/proc/self/status", path)
    subject = trial.started(parallelism=1, slots=1)
    subject.run(program)
    subject.expect_outcome(program, SUCCESS, "cp /proc/self/status ...")
    expect(os.path.exists(path), expected="cp to have written its copy", actual="there is no copy")
    with open(path) as file:
        status = dict(line.split(":", 1) for line in file)
    for how, field in (("ignored", "SigIgn"), ("blocked", "SigBlk")):
        expect(
            not int(status[field], 16) >> (signal.SIGPIPE - 1) & 1,
            expected="a program to start with SIGPIPE neither ignored nor blocked",
            actual=f"SIGPIPE {how}",
        )


def _expect_no_note(
    trial: Trial, subject: Subject, step: str, promise: str, is_violation: Callable[[str], object]
) -> bool:
    """Check that no task with a process of its own recorded a violation; whether there was such a task.

    :param step: the step of the probe that records notes.
    :param promise: what the task is expected to do, for messages.
    """
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
        notes = [note for run in runs for note in run.notes if is_violation(note)]
        expect(
            not notes,
            expected=f"a task ({form}) {promise}",
            actual=", ".join(dict.fromkeys(note.strip() for note in notes)),
        )
    return judged


@should(needs=(Observation.LOCAL_PROCESSES,), after=("isolation.sigint-and-sigterm-work-in-tasks",))
def tasks_do_not_inherit_host_signal_handlers(trial: Trial) -> None:
    """A task does not run the host's handlers for SIGINT and SIGTERM.

    Why: the handler of a scheduler shuts the scheduler down; in a task it runs that clean-up a second time.
    Likely causes: a forked child whose handlers are not reset; workers that reset their handlers, while tasks
    are forked elsewhere.
    Origin: apache/airflow#18989; apache/airflow#14085.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _host_handler)
    subject = trial.started(parallelism=1, slots=1)
    if not _expect_no_note(
        trial,
        subject,
        "signals",
        "not to inherit the scheduler's signal handlers",
        lambda note: "host" in note,
    ):
        raise NotApplicable(_SHARED_WORKER)


def _host_handler(number: int, frame: object) -> None:
    os._exit(1)


_host_handler.__name__ = HOST_HANDLER


@should(needs=(Observation.LOCAL_PROCESSES,), after=_KINDS)
def tasks_do_not_read_host_stdin(trial: Trial) -> None:
    """Tasks do not read the host's standard input.

    Why: a task that reads takes input meant for the scheduler, or waits for a person who is not there.
    Likely causes: a child that inherits standard input; a ``sys.stdin`` that is replaced while descriptor 0
    is not.
    Origin: Airflow's LocalExecutor of 2.x runs commands with the scheduler's standard input.
    """
    reader, writer = os.pipe()
    os.write(writer, b"this line was meant for the scheduler\n" * 100)
    os.dup2(reader, 0)
    subject = trial.started(parallelism=1, slots=1)
    if not _expect_no_note(trial, subject, "stdin", "to have an empty stdin, not the scheduler's", bool):
        raise NotApplicable(_SHARED_WORKER)


@should(needs=(Observation.LOCAL_PROCESSES,), after=_KINDS)
def tasks_do_not_inherit_host_terminal(trial: Trial) -> None:
    """A task has no access to the terminal from which the host was started.  It may have one of its own.

    Why: otherwise Ctrl-C for the scheduler interrupts all tasks as well, and a task can ask for a password on
    the terminal.
    Likely causes: a task without a session of its own (``setsid``, ``start_new_session``); standard streams
    that are redirected while the controlling terminal stays.
    Origin: credentials(7): signals of a terminal go to its foreground process group.
    """

    def judge() -> None:
        _take_a_terminal()
        terminal = own_terminal()
        subject = trial.started(parallelism=1, slots=1)
        if not _expect_no_note(
            trial,
            subject,
            "terminal",
            f"not to have the controlling terminal of the scheduler process (device {terminal})",
            lambda note: note == terminal,
        ):
            raise NotApplicable(_SHARED_WORKER)

    trial.host.in_another_host(judge)


def _take_a_terminal() -> None:
    """Make a new terminal the controlling terminal of this process and its children.

    :raises NotApplicable: this machine does not allow that.
    """
    try:
        os.setsid()
        _, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError as error:
        raise NotApplicable(f"no controlling terminal can be opened: {error}") from None
