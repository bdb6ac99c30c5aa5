"""Turns a forked process into a host: the process that runs the rule, and the executor with it."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import resource
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from typing import Any, NoReturn

from executor_conformance.harness.blackboard import Blackboard
from executor_conformance.harness.linux import die_with_parent
from executor_conformance.probes import task

#: The name of a host's temporary directory: short, because executors have sockets there.
_TEMPORARY = "t"

#: Descriptors of the pytest process that a host closes.
private_descriptors: set[int] = set()


def become_host(
    body: Callable[[Blackboard], None],
    blackboard: Blackboard,
    scratch: str,
    output: int | None,
    stacks: int,
    warden: int,
) -> NoReturn:
    """Run ``body`` as a scheduler would run: with a session, streams and a temporary directory of its own.

    :param output: descriptor for standard output and error; ``None``: they stay.
    :param stacks: descriptor of the file to which faulthandler writes on SIGABRT and on a crash.
    :param warden: pid of the parent, with which it dies.
    """
    status = 1
    try:
        os.setsid()
        die_with_parent(signal.SIGKILL, warden)
        for descriptor in private_descriptors:
            os.close(descriptor)
        private_descriptors.clear()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        setattr(sys, "__stdin__", open(0, closefd=False))  # noqa: B010, SIM115 - final to type checkers
        sys.stdin = sys.__stdin__
        if output is not None:
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.close(output)
        # New streams in any case: those of pytest may hold output that it has not written yet.
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            stream = open(descriptor, "w", buffering=1, closefd=False)  # noqa: SIM115 - lives as long as this
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        hide_pytest()
        _forget_log_capture()
        _forget_exception_hooks()
        # Objects of pytest and the suite are never garbage here: a collection, in this process or in one that
        # the executor forks, need not visit them, and so write to each of their pages.
        gc.freeze()
        faulthandler.enable(file=stacks, all_threads=True)
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        # The user's ``filterwarnings = error`` is for the user's tests: the executor is judged as it would
        # run without pytest.
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        os.environ["TMPDIR"] = tempfile.tempdir = os.path.join(scratch, _TEMPORARY)
        os.makedirs(tempfile.tempdir, exist_ok=True)
        coverage = _follow_coverage()
        body(blackboard)
        if coverage is not None:
            coverage.stop()
            coverage.save()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        # Not a normal exit: what pytest registered with atexit is not for this process to run, and threads of
        # the executor must not keep it alive.
        os._exit(status)


def hide_pytest() -> list[Any]:
    """Remove pytest's import hook from this process: it does not support runpy, and a scheduler has none.

    :returns: ``sys.meta_path`` as it was.
    """
    before = list(sys.meta_path)
    sys.meta_path[:] = [finder for finder in before if not _is_pytests(finder)]
    # Tasks run this module, through runpy too, and it was imported by that hook.
    spec = task.__spec__
    if spec is not None and spec.origin is not None and _is_pytests(spec.loader):
        task.__loader__ = spec.loader = SourceFileLoader(spec.name, spec.origin)
    return before


def _forget_exception_hooks() -> None:
    """Print the exceptions of threads and finalizers again: pytest's hooks keep them for a test to fail."""
    if _is_of_pytest(threading.excepthook):
        threading.excepthook = threading.__excepthook__
    if _is_of_pytest(sys.unraisablehook):
        sys.unraisablehook = sys.__unraisablehook__


def _is_of_pytest(hook: Any) -> bool:
    module = getattr(getattr(hook, "func", hook), "__module__", "") or ""
    return module.startswith("_pytest.")


def _forget_log_capture() -> None:
    """Remove the handlers by which pytest keeps every record that is logged during a test."""
    for handler in list(logging.root.handlers):
        if _is_pytests(handler):
            logging.root.removeHandler(handler)


def _is_pytests(thing: object) -> bool:
    return type(thing).__module__.startswith("_pytest.")


def _follow_coverage() -> Any:
    """Continue to measure coverage, in a data file of this process's own."""
    if "coverage" not in sys.modules:
        return None
    import coverage

    current = coverage.Coverage.current()
    if current is None:
        return None
    current.stop()
    options = current.config
    follower = coverage.Coverage(
        data_file=options.data_file,
        data_suffix=True,
        config_file=options.config_file or False,
        branch=options.branch,
        source=options.source,
        source_pkgs=options.source_pkgs,
        omit=options.run_omit,
        include=options.run_include,
    )
    follower.start()
    return follower
