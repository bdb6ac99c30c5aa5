"""Commands reach the task as they were submitted."""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing import resource_tracker

from executor_conformance.contract import SUCCESS
from executor_conformance.harness.trial import Trial
from executor_conformance.probes import module as observing_module
from executor_conformance.probes import task as probe_module
from executor_conformance.requirements import Capability
from executor_conformance.rules import must
from executor_conformance.verdicts import expect

_DIFFICULT_ARGUMENTS = (
    "",
    "two words",
    " leading and trailing ",
    "new\nline",
    "tab\tstop",
    'double "quotes"',
    "single 'quotes'",
    "$HOME `id` $(id) ; & | > < * ? ~ # !",
    "back\\slash",
    "--option=value",
    "-",
    "ünïcode ☃ 漢字",
    "%s {0} {name}",
    "x" * 5000,
)
#: Names of files: one byte that no UTF-8 has, text in Latin-1, and half a character.
_NOT_UTF_8 = (b"\xff", b"caf\xe9 au lait", "\u2603".encode()[:2])


@must(needs=(Capability.QUEUE_AND_CONFIG,))
def queue_and_executor_config_are_accepted(trial: Trial) -> None:
    """``execute_async()`` accepts the keyword arguments ``key``, ``command``, ``queue`` and
    ``executor_config``, even if it ignores the last two.

    Why: schedulers pass all four with every task, so an executor without queues must accept them as well.
    Likely causes: parameters are missing or have other names; a task with an unknown queue vanishes.
    Origin: Airflow calls execute_async(key=, command=, queue=, executor_config=).
    """
    subject = trial.started(slots=1)
    plain, configured = trial.probe(), trial.probe()
    subject.submit(plain, queue=None, executor_config=None)
    subject.submit(configured, queue=None, executor_config={"any": "thing"})
    subject.await_terminal(plain, configured)
    for probe in (plain, configured):
        subject.expect_outcome(probe, SUCCESS)


@must(needs=(Capability.ARGV,), after=("states.no-terminal-event-before-the-task-ends",))
def list_and_tuple_argv_are_accepted(trial: Trial) -> None:
    """An argv may be a list or a tuple.

    Why: by contract an argv is a sequence of str; some callers pass lists, others tuples.
    Likely causes: the command is joined or concatenated with a list; a type check accepts only one of them.
    Origin: the contract; Airflow passes lists, other callers tuples.
    """
    subject = trial.started(slots=1)
    for kind in (list, tuple):
        probe = trial.probe()
        assert probe.work.argv is not None
        subject.submit_raw(probe.key, kind(probe.work.argv))
        subject.await_terminal(probe)
        subject.expect_outcome(probe, SUCCESS, f"a task whose argv is a {kind.__name__}")
        expect(
            probe.finished,
            expected=f"a task whose argv is a {kind.__name__} to run",
            actual="it was reported 'success' but did not run to its end",
        )


@must(needs=(Capability.ARGV,), after=("states.no-terminal-event-before-the-task-ends",))
def argv_is_passed_unchanged(trial: Trial) -> None:
    """Every element of an argv reaches the task unchanged.

    Why: a command is a list of words, not a line for a shell; an executor that joins and splits it runs a
    different command, and opens a security hole.
    Likely causes: the command is joined into a string and passed to a shell; the command is joined, then
    split at white space; words are reformatted or re-encoded on the way.
    Origin: the contract; an argv is executed as given.
    """
    subject = trial.started(slots=1)
    probe = trial.probe(*(f"note={word}" for word in _DIFFICULT_ARGUMENTS))
    subject.run(probe)
    subject.expect_outcome(probe, SUCCESS)
    arrived = probe.runs[0].notes if probe.runs else []
    for number, word in enumerate(_DIFFICULT_ARGUMENTS):
        got = arrived[number] if number < len(arrived) else None
        expect(
            got == word,
            expected=f"the argument {word[:60]!r} to reach the task unchanged",
            actual=f"it arrived as {got[:60]!r}" if got is not None else "it did not arrive",
        )


@must(needs=(Capability.ARGV,), after=("interface.argv-is-passed-unchanged",))
def arguments_need_not_be_utf_8(trial: Trial) -> None:
    """Words of an argv that are not valid UTF-8 reach the task unchanged, and tasks also run if the host's
    environment has such a value.

    Why: file names are bytes; if one is not valid UTF-8, ``os.fsdecode()`` turns it into a ``str`` that
    ``encode()`` rejects.
    Likely causes: words or the environment are encoded as UTF-8 or JSON on their way to a worker; errors of
    the encoding are replaced or ignored.
    Origin: the contract; WeblateOrg/weblate#5041 (a task that fails with "surrogates not allowed"); PEP 383
    (surrogateescape).
    """
    os.environb[b"EXECUTOR_CONFORMANCE_BYTES"] = b"".join(_NOT_UTF_8)
    subject = trial.started(slots=1)
    plain = trial.probe()
    subject.run(plain)
    subject.expect_outcome(
        plain, SUCCESS, "a task of a scheduler process with an environment variable that is not valid UTF-8"
    )
    words = [os.fsdecode(word) for word in _NOT_UTF_8]
    probe = trial.probe(*(f"note={word}" for word in words))
    rejection = subject.rejection(lambda: subject.submit(probe))
    expect(
        rejection is None,
        expected=f"a command with the arguments {words!r} to be accepted",
        actual=f"it was rejected with {rejection!r:.200}",
    )
    subject.await_terminal(probe)
    subject.expect_outcome(probe, SUCCESS, "a task with arguments that are not UTF-8")
    arrived = probe.runs[0].notes if probe.runs else []
    expect(
        arrived == words,
        expected=f"the arguments {words!r} to reach the task unchanged",
        actual=f"they arrived as {arrived!r}",
    )


@must(
    needs=(Capability.ARGV,),
    after=("interface.argv-is-passed-unchanged", "states.no-terminal-event-before-the-task-ends"),
)
def arbitrary_programs_run_as_given(trial: Trial) -> None:
    """An argv other than ``[sys.executable, "-m", ...]`` is executed as given.

    Why: not every task is a Python module; a shell, a binary or another interpreter must work in every mode.
    Likely causes: every command is treated as a Python module; the program is not looked up on PATH.
    Origin: the contract; running Airflow's own command in a fork (commit 4839a5b) must not break other
    commands.
    """
    subject = trial.started(slots=1)
    path = os.path.join(trial.scratch, "written")
    by_path = trial.program("/bin/sh", "-c", 'printf %s "$1" > "$0"', path, "by path")
    subject.run(by_path)
    subject.expect_outcome(by_path, SUCCESS, "/bin/sh -c ...")
    written = open(path).read() if os.path.exists(path) else None  # noqa: SIM115
    expect(
        written == "by path",
        expected="/bin/sh -c ... to write 'by path' to a file",
        actual=f"it wrote {written!r}" if written is not None else "it wrote no file",
    )
    by_name = trial.program("true")
    subject.run(by_name)
    subject.expect_outcome(by_name, SUCCESS, "a program on PATH, given by name")
    script = trial.probe()
    assert script.work.argv is not None
    as_script = trial.program(sys.executable, str(probe_module.__file__), *script.work.argv[3:])
    subject.run(as_script)
    subject.expect_outcome(as_script, SUCCESS, "a Python script")
    expect(
        script.runs and script.runs[0].host_marker == 0,
        expected="a Python script to run in a new interpreter",
        actual="it ran in a forked child of the scheduler process" if script.runs else "it never ran",
    )


@must(
    needs=(Capability.ARGV,),
    after=("interface.argv-is-passed-unchanged", "states.no-terminal-event-before-the-task-ends"),
)
def a_module_runs_as_in_an_interpreter(trial: Trial) -> None:
    """``[sys.executable, "-m", module, ...]`` behaves as it does in a new interpreter, even if it runs in a
    forked child: it is ``__main__`` in the main thread, may use ``multiprocessing`` and ``asyncio``, and ends
    only after its threads have ended, its ``atexit`` functions have run and its buffered output has been
    written.

    Why: a task that works on the command line, and not in the executor, is the hardest to debug.
    Likely causes: workers are daemonic processes, which may not have children; the child calls
    ``os._exit()`` without what an interpreter does first; the module runs in a thread or inside a running
    event loop; the child has closed a descriptor that a module of the host still uses, such as that of
    multiprocessing's resource tracker.
    Origin: apache/airflow#14896 (daemonic processes are not allowed to have children); apache/airflow#13298;
    python/cpython#83856 (atexit functions in forked children).
    """
    resource_tracker.ensure_running()  # as in a host that uses multiprocessing
    subject = trial.started(slots=1)
    command = [sys.executable, "-m", observing_module.__name__]
    path = _new_file(trial, "observed")
    task = trial.program(*command, path)
    subject.run(task)
    subject.expect_outcome(task, SUCCESS, "a Python module")
    missing = _missing_observations(path)
    if missing:
        # Only what works in an interpreter on this machine is expected of the executor.
        path = _new_file(trial, "usual")
        subprocess.run([*command, path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
        unusual = _missing_observations(path)
        missing = {name: found for name, found in missing.items() if name not in unusual}
    expect(
        not missing,
        expected="a Python module to behave as in a new interpreter",
        actual="; ".join(f"{name}: {found}" for name, found in missing.items())[:500],
    )


def _new_file(trial: Trial, name: str) -> str:
    path = os.path.join(trial.scratch, name)
    with open(path, "x"):
        return path


def _missing_observations(path: str) -> dict[str, str]:
    """The observations that were not ``ok``, and what was found instead."""
    with open(path) as file:
        found = dict(line.rstrip("\n").split(": ", 1) for line in file if ": " in line)
    return {
        name: found.get(name, "missing when the process had exited")
        for name in observing_module.OBSERVATIONS
        if found.get(name) != "ok"
    }
