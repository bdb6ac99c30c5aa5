"""The suite's own task: it records when, where and how it really ran.

Run as ``python -m executor_conformance.probe JOURNAL PROBE STEP...`` or called as :func:`run`.  What it
appends to the journal is the ground truth that reported events are held against, so it writes before it
does anything else.  Only light modules are imported: a new interpreter that runs a probe must measure the
executor, not this file.

A step is ``name`` or ``name=value``:

====================== ==============================================================================
``gate=PATH``       wait until the FIFO at PATH has a writer (the test opens the gate)
``nap=SECONDS``     sleep
``exit=N``          raise ``SystemExit(N)``; ``exit=none`` and ``exit=text`` are its other forms
``_exit=N``         ``os._exit(N)``
``kill=N``          send signal N to itself
``raise=TEXT``      raise ``RuntimeError(TEXT)``
``raise-unpicklable`` raise an exception that cannot be pickled
``raise-unloadable`` raise an exception that can be pickled and not unpickled
``recurse``         call itself without end
``allocate=N``      ask for N bytes when it may have 64 MiB more than it has
``ignore=N``        ignore signal N
``child=PATH``      start a child process that waits at the gate PATH, and record its pid
``daemon=PATH``     leave a daemon that waits at the gate PATH
``closeall``        close every descriptor
``say=N``           write N bytes to standard output
``cry=N``           write N bytes to standard error
``return=N``        return N bytes (callables)
``note=TEXT``       record TEXT as it arrived
====================== ==============================================================================
"""

import _thread
import os
import sys
import time

_monotonic_ns = time.monotonic_ns
_RUNS = iter(range(1, 1 << 62))
#: Set on ``sys`` in the host: only a forked child inherits it, so whether a task was forked is *seen*.
HOST_MARKER = "_executor_conformance_host"


def record(journal: str, kind: str, probe: str, run: str, *fields: object) -> None:
    """Append one line to the journal; one ``write`` to an ``O_APPEND`` file is atomic on Linux."""
    line = "\t".join([kind, probe, run, str(_monotonic_ns()), *map(str, fields)]) + "\n"
    descriptor = os.open(journal, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def wait_at(gate: str) -> None:
    """Block until somebody holds the FIFO open for writing."""
    os.close(os.open(gate, os.O_RDONLY))


def run(journal: str, probe: str, steps: "tuple[str, ...] | list[str]" = ()) -> object:
    """Run the steps as the task ``probe``; returns the probe's name, or the bytes of a ``return`` step."""
    run_id = f"{os.getpid()}.{_thread.get_ident()}.{_monotonic_ns()}.{next(_RUNS)}"
    host = getattr(sys, HOST_MARKER, 0)
    record(journal, "start", probe, run_id, os.getpid(), os.getppid(), os.getpgrp(), os.getsid(0), host)
    result: object = probe
    for step in steps:
        name, _, value = step.partition("=")
        if name == "return":
            result = b"r" * int(value)
        elif name in _ENDINGS:
            record(journal, "finish", probe, run_id)
            _ENDINGS[name](value)
        else:
            _STEPS[name](journal, probe, run_id, value)
    record(journal, "finish", probe, run_id)
    return result


def _gate(journal: str, probe: str, run_id: str, value: str) -> None:
    wait_at(value)


def _nap(journal: str, probe: str, run_id: str, value: str) -> None:
    time.sleep(float(value))


def _ignore(journal: str, probe: str, run_id: str, value: str) -> None:
    import signal

    signal.signal(int(value), signal.SIG_IGN)


def _daemon(journal: str, probe: str, run_id: str, value: str) -> None:
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                wait_at(value)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _close_all(journal: str, probe: str, run_id: str, value: str) -> None:
    os.closerange(0, 1024)


def _say(journal: str, probe: str, run_id: str, value: str) -> None:
    _write(1, int(value))


def _cry(journal: str, probe: str, run_id: str, value: str) -> None:
    _write(2, int(value))


def _write(descriptor: int, left: int) -> None:
    while left > 0:
        left -= os.write(descriptor, b"o" * min(left, 65536))


def _child(journal: str, probe: str, run_id: str, value: str) -> None:
    child = os.fork()
    if child == 0:
        try:
            record(journal, "child", probe, run_id, os.getpid())
            wait_at(value)
        finally:
            os._exit(0)


def _note(journal: str, probe: str, run_id: str, value: str) -> None:
    record(journal, "note", probe, run_id, value.encode("utf-8", "surrogateescape").hex())


_STEPS = {
    "gate": _gate,
    "nap": _nap,
    "ignore": _ignore,
    "child": _child,
    "daemon": _daemon,
    "closeall": _close_all,
    "say": _say,
    "cry": _cry,
    "note": _note,
}


def _end_by_exit(value: str) -> None:
    if value == "none":
        raise SystemExit
    if value == "None":
        raise SystemExit(None)
    if value == "text":
        raise SystemExit("the probe says no")
    raise SystemExit(int(value))


def _end_by_kill(value: str) -> None:
    os.kill(os.getpid(), int(value))
    while True:  # a signal that does not kill must not let the task succeed
        time.sleep(1)


def _end_by_raise(value: str) -> None:
    raise RuntimeError(value)


class Unloadable(Exception):
    """Pickles, but what is unpickled calls it without its second argument."""

    def __init__(self, text: str, other: str) -> None:
        super().__init__(text)


def _end_by_raise_unpicklable(value: str) -> None:
    class Local(Exception):
        pass

    raise Local(lambda: None)


def _end_by_raise_unloadable(value: str) -> None:
    raise Unloadable("on", "purpose")


def _end_by_recursion(value: str) -> None:
    _end_by_recursion(value)


def _end_by_allocation(value: str) -> None:
    import resource

    with open("/proc/self/statm") as file:
        has = int(file.read().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (has + (64 << 20), hard))
    bytearray(int(value))


def _end_hard(value: str) -> None:
    os._exit(int(value))


_ENDINGS = {
    "exit": _end_by_exit,
    "_exit": _end_hard,
    "kill": _end_by_kill,
    "raise": _end_by_raise,
    "raise-unpicklable": _end_by_raise_unpicklable,
    "raise-unloadable": _end_by_raise_unloadable,
    "recurse": _end_by_recursion,
    "allocate": _end_by_allocation,
}


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], sys.argv[3:])
