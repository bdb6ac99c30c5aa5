"""The steps that a task of the suite can take.

A step is ``name`` or ``name=value``:

====================== ==============================================================================
``gate=PATH``       wait until the FIFO at PATH has a writer (the test opens the gate)
``wait=PATH``       the same, and record the note ``waiting`` when nothing has to be opened or imported for it
``nap=SECONDS``     sleep
``exit=N``          raise ``SystemExit(N)``; ``exit=none`` and ``exit=text`` are its other forms
``_exit=N``         ``os._exit(N)``
``kill=N``          send signal N to itself
``raise=TEXT``      raise ``RuntimeError(TEXT)``
``raise-type=TYPE`` raise an exception of this type, such as ``queue.Empty``
``raise-message=KIND`` raise ``RuntimeError`` with an unusual message: see ``MESSAGES``
``raise-unpicklable`` raise an exception that cannot be pickled
``raise-unloadable`` raise an exception that can be pickled and not unpickled
``recurse``         call itself until the stack is exhausted
``allocate=N``      ask for N bytes with a memory limit 64 MiB above what it uses
``ignore=N``        ignore signal N
``child=PATH``      start a child process that waits at the gate PATH, and record its pid
``detach=PATH``     start a child in a session of its own that waits at the gate PATH, and record its pid
``daemon=PATH``     leave a daemon that waits at the gate PATH
``closeall``        close every descriptor
``say=N``           write N bytes to standard output
``cry=N``           write N bytes to standard error
``return=N``        return N bytes (callables)
``return-value=WHAT`` return one of ``calls.RETURN_VALUES`` (callables)
``return-unpicklable`` return an object that cannot be pickled (callables)
``return-unloadable`` return an object that can be pickled and not unpickled (callables)
``note=TEXT``       record TEXT as it arrived
``mark=WHAT``       change some state of the process: see ``_MARKS``
``look=WHAT``       record ``marked`` or ``clean``: whether an earlier task has changed it
``signals``         record whether SIGINT or SIGTERM is ignored, blocked or handled
``stdin``           record what can be read from standard input without waiting
``terminal``        record what ``own_terminal`` returns
``thread``          record whether it runs in the main thread of its process
``ancestors``       record the pids of the processes above it, the nearest first; 0 is above the first
``collect``         collect garbage, and record the KiB of private memory that the process has then;
                    ``collect=if enabled`` collects nothing if the process has disabled the collection
``random``          record what ``random_values`` returns
``pad=TEXT``        nothing: TEXT makes the command long
====================== ==============================================================================
"""

import os
import sys
import time

from executor_conformance.probes.transport import record, wait_at, wait_at_opened

#: The note of a task that needs nothing more until its gate is open.
WAITING = "waiting"
#: The name of the signal handlers that a rule installs in the host.
HOST_HANDLER = "_executor_conformance_handler"


def _gate(journal: str, probe: str, run_id: str, value: str) -> None:
    wait_at(value)


def _wait(journal: str, probe: str, run_id: str, value: str) -> None:
    wait_at_opened(value, lambda: note(journal, probe, run_id, WAITING))


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


def _child(journal: str, probe: str, run_id: str, value: str, detached: bool = False) -> None:
    child = os.fork()
    if child == 0:
        try:
            if detached:
                os.setsid()
            record(journal, "child", probe, run_id, os.getpid())
            wait_at(value)
        finally:
            os._exit(0)


def _detach(journal: str, probe: str, run_id: str, value: str) -> None:
    _child(journal, probe, run_id, value, detached=True)


def note(journal: str, probe: str, run_id: str, value: str) -> None:
    """Record a text."""
    record(journal, "note", probe, run_id, value.encode("utf-8", "surrogateescape").hex())


def _mark_environment() -> None:
    os.environ["EXECUTOR_CONFORMANCE_MARK"] = "marked"


def _environment_is_marked() -> bool:
    return "EXECUTOR_CONFORMANCE_MARK" in os.environ


def _mark_directory() -> None:
    os.chdir("/proc")


def _directory_is_marked() -> bool:
    return os.getcwd() == "/proc"


def _mark_umask() -> None:
    os.umask(0o135)


def _umask_is_marked() -> bool:
    return _own_status("Umask") == 0o135


def _mark_limits() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (987654321, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _limits_are_marked() -> bool:
    import resource

    return resource.getrlimit(resource.RLIMIT_CPU)[0] == 987654321


def _mark_signals() -> None:
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _signals_are_marked() -> bool:
    import signal

    return bool(
        _own_status("SigBlk") >> signal.SIGUSR1 - 1 & 1 or _own_status("SigIgn") >> signal.SIGUSR2 - 1 & 1
    )


def _mark_modules() -> None:
    import types

    types.__dict__["executor_conformance_mark"] = True


def _modules_are_marked() -> bool:
    import types

    return "executor_conformance_mark" in types.__dict__


def _mark_path() -> None:
    sys.path.insert(0, "/nonexistent/executor-conformance-mark")


def _path_is_marked() -> bool:
    return "/nonexistent/executor-conformance-mark" in sys.path


def _mark_timer() -> None:
    import signal

    signal.setitimer(signal.ITIMER_REAL, 1e6)


def _timer_is_marked() -> bool:
    import signal

    return signal.getitimer(signal.ITIMER_REAL)[0] > 0


def _mark_nice() -> None:
    os.nice(3)


def _nice_is_marked() -> bool:
    return os.nice(0) >= 3


def _mark_affinity() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _affinity_is_marked() -> bool:
    return len(os.sched_getaffinity(0)) == 1


_MARKS = {
    "environment": (_mark_environment, _environment_is_marked),
    "directory": (_mark_directory, _directory_is_marked),
    "umask": (_mark_umask, _umask_is_marked),
    "limits": (_mark_limits, _limits_are_marked),
    "signals": (_mark_signals, _signals_are_marked),
    "modules": (_mark_modules, _modules_are_marked),
    "path": (_mark_path, _path_is_marked),
    "timer": (_mark_timer, _timer_is_marked),
    "nice": (_mark_nice, _nice_is_marked),
    "affinity": (_mark_affinity, _affinity_is_marked),
}


def _mark(journal: str, probe: str, run_id: str, value: str) -> None:
    _MARKS[value][0]()


def _look(journal: str, probe: str, run_id: str, value: str) -> None:
    note(journal, probe, run_id, "marked" if _MARKS[value][1]() else "clean")


def _own_status(field: str) -> int:
    """A field of this thread's status that is a number: octal for ``Umask``, else hexadecimal."""
    with open("/proc/thread-self/status") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == field:
                return int(value, 8 if field == "Umask" else 16)
    raise LookupError(field)


def _signals(journal: str, probe: str, run_id: str, value: str) -> None:
    import signal

    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        for how, is_so in (
            ("ignored", _own_status("SigIgn") >> number - 1 & 1),
            ("blocked", _own_status("SigBlk") >> number - 1 & 1),
            ("handled by the host", getattr(handler, "__name__", "") == HOST_HANDLER),
        ):
            if is_so:
                note(journal, probe, run_id, f"{number.name} {how}")


def _stdin(journal: str, probe: str, run_id: str, value: str) -> None:
    import select

    text = ""
    try:
        if sys.stdin is not None and select.select([sys.stdin], [], [], 0)[0]:
            text = sys.stdin.readline()
    except (OSError, ValueError):
        pass  # closed: there is none
    note(journal, probe, run_id, text)


def _terminal(journal: str, probe: str, run_id: str, value: str) -> None:
    note(journal, probe, run_id, own_terminal())


def own_terminal() -> str:
    """The number of the device that is this process's controlling terminal; 0: it has none."""
    with open("/proc/self/stat") as file:
        return file.read().rpartition(")")[2].split()[4]


def _thread(journal: str, probe: str, run_id: str, value: str) -> None:
    import threading

    here = threading.get_ident() == threading.main_thread().ident
    note(journal, probe, run_id, "main" if here else "another")


def _ancestors(journal: str, probe: str, run_id: str, value: str) -> None:
    above = [os.getppid()]
    try:
        while above[-1] > 0:
            with open(f"/proc/{above[-1]}/stat") as file:
                above.append(int(file.read().rpartition(")")[2].split()[1]))
    except OSError:
        pass  # it may not be looked at
    note(journal, probe, run_id, " ".join(map(str, above)))


def collection_is_enabled() -> bool:
    """Whether this process collects garbage by itself; a threshold of 0 disables the collection, too."""
    import gc

    return gc.isenabled() and gc.get_threshold()[0] > 0


def _collect(journal: str, probe: str, run_id: str, value: str) -> None:
    import gc

    if value != "if enabled" or collection_is_enabled():
        gc.collect()
    # A process can read its own file even if no other process may.
    with open("/proc/self/smaps_rollup") as file:
        private = [int(line.split()[1]) for line in file if line.startswith("Private_")]
    note(journal, probe, run_id, str(sum(private)))


def random_values() -> "list[str]":
    """A random number, a UUID and the name of a temporary file."""
    import random
    import tempfile
    import uuid

    names = tempfile._get_candidate_names()  # type: ignore[attr-defined]
    return [str(random.getrandbits(64)), str(uuid.uuid4()), next(names)]


def _random(journal: str, probe: str, run_id: str, value: str) -> None:
    for one in random_values():
        note(journal, probe, run_id, one)


def _pad(journal: str, probe: str, run_id: str, value: str) -> None:
    return


STEPS = {
    "gate": _gate,
    "wait": _wait,
    "nap": _nap,
    "ignore": _ignore,
    "child": _child,
    "detach": _detach,
    "daemon": _daemon,
    "closeall": _close_all,
    "say": _say,
    "cry": _cry,
    "note": note,
    "mark": _mark,
    "look": _look,
    "signals": _signals,
    "stdin": _stdin,
    "terminal": _terminal,
    "thread": _thread,
    "ancestors": _ancestors,
    "collect": _collect,
    "random": _random,
    "pad": _pad,
}


def _end_by_exit(value: str) -> None:
    if value == "none":
        raise SystemExit
    if value == "None":
        raise SystemExit(None)
    if value == "text":
        raise SystemExit("exit on purpose")
    raise SystemExit(int(value))


def _end_by_kill(value: str) -> None:
    os.kill(os.getpid(), int(value))
    while True:  # the task must not succeed if the signal does not kill it
        time.sleep(1)


def _end_by_raise(value: str) -> None:
    raise RuntimeError(value)


#: Messages of exceptions that are hard to write into a line of text, a database or a format string.
MESSAGES = {
    "several lines": "first line\n\nthird line\r\n",
    "half a surrogate pair": "\ud800",
    "a null character": "before\0after",
    "a megabyte": "m" * (1 << 20),
    "placeholders": "%s %(name)d {0} {name} {",
}


def _end_by_raise_message(value: str) -> None:
    raise RuntimeError(MESSAGES[value])


def _end_by_raise_type(value: str) -> None:
    import importlib

    module, _, name = value.rpartition(".")
    arguments: dict[str, tuple[object, ...]] = {
        "CalledProcessError": (0, "on purpose"),
        "TimeoutExpired": ("on purpose", 1),
    }
    kind = getattr(importlib.import_module(module or "builtins"), name)
    raise kind(*arguments.get(name, ("on purpose",)))


class Unloadable(Exception):
    """Can be pickled, but unpickling calls it without its second argument."""

    def __init__(self, text: str, other: str) -> None:
        super().__init__(text)


def _end_by_raise_unpicklable(value: str) -> None:
    class Local(Exception):
        pass

    raise Local(lambda: None)


def _end_by_raise_unloadable(value: str) -> None:
    raise Unloadable("on", "purpose")


class Fatal(BaseException):
    """Not a subclass of ``Exception``."""


class Falsy(Exception):
    """Its ``bool()`` is false."""

    def __bool__(self) -> bool:
        return False


class WithoutItems(Exception):
    """Its ``len()`` is 0, so its ``bool()`` is false."""

    def __len__(self) -> int:
        return 0


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


ENDINGS = {
    "exit": _end_by_exit,
    "_exit": _end_hard,
    "kill": _end_by_kill,
    "raise": _end_by_raise,
    "raise-type": _end_by_raise_type,
    "raise-message": _end_by_raise_message,
    "raise-unpicklable": _end_by_raise_unpicklable,
    "raise-unloadable": _end_by_raise_unloadable,
    "recurse": _end_by_recursion,
    "allocate": _end_by_allocation,
}
