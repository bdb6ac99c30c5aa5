"""The executors that are compared, behind one interface."""

from __future__ import annotations

import abc
import concurrent.futures
import functools
import importlib.util
import itertools
import multiprocessing
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.speed import payload

#: The name of the payload module, for ``python -m``.
_MODULE = payload.__name__


class Session(abc.ABC):
    """A started executor."""

    @abc.abstractmethod
    def submit(self, name: str, *arguments: str) -> None:
        """Submit a function of the payload."""

    @abc.abstractmethod
    def finished(self) -> int:
        """Collect ended tasks; return how many have ended so far.  Never blocks."""

    def wait(self, seconds: float) -> None:
        """Wait until a task may have ended, but at most ``seconds``."""
        time.sleep(seconds)

    @abc.abstractmethod
    def close(self) -> None:
        """Stop the executor."""

    def rate(self, name: str, seconds: float) -> float | None:
        """Return the tasks per second if the session measures that itself, else ``None``."""
        return None


@dataclass(frozen=True)
class Contender:
    """One way to run tasks.

    :param isolates: each task has its own process.
    :param interprets: each task has its own new interpreter.
    :param open: starts the executor with the given parallelism.
    :param needs: a module; if it is not installed, the contender is skipped.
    :param interpreter: the option with the interpreter that has it installed; by default, this one.
    :param environment: environment variables of that interpreter.
    :param tasks: how many tasks to measure the queued time of.
    """

    name: str
    isolates: bool
    interprets: bool
    open: Callable[[int], Session]
    needs: str = ""
    interpreter: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    tasks: int = 200

    @property
    def is_installed(self) -> bool:
        return bool(self.interpreter) or not self.needs or importlib.util.find_spec(self.needs) is not None


class _Native(Session):
    def __init__(self, executor: Any, as_module: bool) -> None:
        self._executor = executor
        self._as_module = as_module
        self._numbers = itertools.count()
        self._finished = 0
        executor.start()

    def submit(self, name: str, *arguments: str) -> None:
        key = ("benchmark", name, "run", next(self._numbers), -1)
        self._executor.execute_async(key, self._command(name, arguments))

    def _command(self, name: str, arguments: tuple[str, ...]) -> Any:
        if self._as_module and arguments:
            return [sys.executable, "-m", _MODULE, *arguments]
        function = getattr(payload, name)
        return functools.partial(function, *arguments) if arguments else function

    def finished(self) -> int:
        self._executor.sync()
        self._finished += len(self._executor.get_event_buffer())
        return self._finished

    def wait(self, seconds: float) -> None:
        self._executor.wait(seconds)

    def close(self) -> None:
        self._executor.end()


class _Futures(Session):
    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._pending: set[Any] = set()
        self._finished = 0

    def submit(self, name: str, *arguments: str) -> None:
        self._pending.add(self._start(getattr(payload, name), arguments))

    def _start(self, function: Callable[..., None], arguments: tuple[str, ...]) -> Any:
        return self._pool.submit(function, *arguments)

    def finished(self) -> int:
        done = {one for one in self._pending if self._is_done(one)}
        self._pending -= done
        self._finished += len(done)
        return self._finished

    def _is_done(self, pending: Any) -> bool:
        return bool(pending.done())

    def close(self) -> None:
        self._pool.shutdown()


class _Pool(_Futures):
    def _start(self, function: Callable[..., None], arguments: tuple[str, ...]) -> Any:
        return self._pool.apply_async(function, arguments)

    def _is_done(self, pending: Any) -> bool:
        return bool(pending.ready())

    def close(self) -> None:
        self._pool.close()
        self._pool.join()


class _Pebble(_Futures):
    def _start(self, function: Callable[..., None], arguments: tuple[str, ...]) -> Any:
        return self._pool.schedule(function, args=arguments)

    def close(self) -> None:
        self._pool.close()
        self._pool.join()


class _Driven(Session):
    """An Airflow executor, driven by the suite's adapter."""

    def __init__(self, family: str, parallelism: int) -> None:
        from executor_conformance.harness.target import import_target

        self._scratch = tempfile.mkdtemp(prefix="speed-")
        target = import_target("airflow.executors.local_executor:LocalExecutor", family, {}, self._scratch)
        executor = target.make(**target.arguments(parallelism))
        self._driver = target.adapter.drive(executor)
        self._numbers = itertools.count()
        self._finished = 0
        self._driver.start()

    def submit(self, name: str, *arguments: str) -> None:
        from executor_conformance.adapters import Submission, Work
        from executor_conformance.contract import TaskKey

        function = getattr(payload, name)
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        work = Work(
            argv=[sys.executable, "-m", _MODULE, *arguments],
            function=functools.partial(function, *arguments),
            reference=(f"benchmarks.speed.payload.{name}", dict(zip(names, arguments, strict=True))),
        )
        key = TaskKey("benchmark", name, f"run-{next(self._numbers)}", 1, -1)
        self._driver.submit(Submission(key, work))
        self._driver.pump()

    def finished(self) -> int:
        self._driver.pump()
        events = self._driver.events()
        self._finished += sum(str(state.value) in ("success", "failed") for state, _ in events.values())
        return self._finished

    def close(self) -> None:
        self._driver.end()
        shutil.rmtree(self._scratch, ignore_errors=True)


_AIRFLOW_2_PROGRAM = """\
#!/bin/sh
# The last argument of the command is the argument of the payload.
for last; do :; done
exec {python} -m {module} $last
"""


class _Airflow2(Session):
    """Airflow 2's LocalExecutor, driven as its scheduler does.  The payload replaces ``airflow tasks run``.

    So the cost of ``airflow tasks run`` itself (seconds of imports, a database) is not included.
    """

    def __init__(self, parallelism: int) -> None:
        self._scratch = tempfile.mkdtemp(prefix="speed-")
        os.environ.setdefault("AIRFLOW_HOME", self._scratch)
        from airflow.cli import cli_parser
        from airflow.cli.commands import task_command
        from airflow.executors.local_executor import LocalExecutor

        cli_parser.get_parser()  # a scheduler has loaded it when it forks
        task_command.task_run = _run_payload
        program = Path(self._scratch, "airflow")
        program.write_text(_AIRFLOW_2_PROGRAM.format(python=shlex.quote(sys.executable), module=_MODULE))
        program.chmod(0o755)
        os.environ["PATH"] = os.pathsep.join([self._scratch, os.environ["PATH"]])
        self._numbers = itertools.count()
        self._finished = 0
        self._executor = LocalExecutor(parallelism)
        self._executor.start()

    def submit(self, name: str, *arguments: str) -> None:
        from airflow.models.taskinstancekey import TaskInstanceKey

        key = TaskInstanceKey("benchmark", name, f"run-{next(self._numbers)}", 1, -1)
        words = ["airflow", "tasks", "run", *key[:3], "--local", "--subdir", *(arguments or [""])]
        self._executor.execute_async(key, words)

    def finished(self) -> int:
        self._executor.sync()
        self._finished += len(self._executor.get_event_buffer())
        return self._finished

    def close(self) -> None:
        self._executor.end()
        shutil.rmtree(self._scratch, ignore_errors=True)


def _run_payload(args: Any) -> None:
    if args.subdir:
        payload.stamp(args.subdir)
    elif args.task_id == payload.ten_milliseconds.__name__:
        payload.ten_milliseconds()


class _BareFork(Session):
    """Only ``fork`` and ``wait``: the lower bound for executors with a process per task and no spares."""

    #: The name of a payload function -> the name of its loop in ``bare.py``.
    _loops: ClassVar = {"nothing": "fork", "ten_milliseconds": "ten_milliseconds"}

    def __init__(self, parallelism: int) -> None:
        self._parallelism = parallelism
        self._running = 0
        self._finished = 0

    def submit(self, name: str, *arguments: str) -> None:
        pid = os.fork()
        if pid == 0:
            getattr(payload, name)(*arguments)
            os._exit(0)
        self._running += 1

    def finished(self) -> int:
        while self._running and os.waitpid(-1, os.WNOHANG)[0] != 0:
            self._running -= 1
            self._finished += 1
        return self._finished

    def close(self) -> None:
        while self._running:
            os.wait()
            self._running -= 1

    def rate(self, name: str, seconds: float) -> float | None:
        """Measure in another process, because this one is large."""
        loop = Path(__file__).with_name("bare.py")
        command = [sys.executable, "-I", "-S", str(loop), self._loops[name]]
        options = [str(seconds), str(self._parallelism), sys.executable]
        return float(subprocess.run([*command, *options], stdout=subprocess.PIPE, check=True).stdout)


class _BareInterpreter(_BareFork):
    """Only ``python -c pass`` and ``wait``."""

    _loops: ClassVar = {"nothing": "interpreter"}

    def submit(self, name: str, *arguments: str) -> None:
        os.posix_spawn(sys.executable, [sys.executable, "-m", _MODULE, *arguments], os.environ)
        self._running += 1


def _reference(method: str, as_module: bool = False, **options: Any) -> Callable[[int], Session]:
    def open_it(parallelism: int) -> Session:
        from executor_reference import LocalExecutor

        return _Native(LocalExecutor(parallelism, method, **options), as_module)

    return open_it


def _process_pool(method: str, **options: Any) -> Callable[[int], Session]:
    return lambda parallelism: _Futures(
        concurrent.futures.ProcessPoolExecutor(
            parallelism, mp_context=multiprocessing.get_context(method), **options
        )
    )


def _multiprocessing_pool(**options: Any) -> Callable[[int], Session]:
    return lambda parallelism: _Pool(multiprocessing.get_context("fork").Pool(parallelism, **options))


def _loky(parallelism: int) -> Session:
    import loky

    return _Futures(loky.ProcessPoolExecutor(parallelism))


def _pebble(**options: Any) -> Callable[[int], Session]:
    def open_it(parallelism: int) -> Session:
        import pebble

        return _Pebble(
            pebble.ProcessPool(parallelism, context=multiprocessing.get_context("fork"), **options)
        )

    return open_it


CONTENDERS = [
    Contender("reference, snapshot", True, False, _reference("snapshot")),
    Contender("reference, forkserver", True, False, _reference("forkserver")),
    Contender("reference, preloaded", True, False, _reference("forkserver", preload=[_MODULE])),
    Contender("reference, python -m", True, False, _reference("forkserver", as_module=True)),
    Contender("reference, fork", True, False, _reference("fork")),
    Contender("reference, spawn", True, True, _reference("spawn", as_module=True), tasks=60),
    Contender("bare fork and wait", True, False, _BareFork),
    Contender("bare python -c pass", True, True, _BareInterpreter, tasks=60),
    Contender("ProcessPoolExecutor, fork", False, False, _process_pool("fork")),
    Contender("ProcessPoolExecutor, forkserver", False, False, _process_pool("forkserver")),
    Contender("ProcessPoolExecutor, spawn", False, False, _process_pool("spawn")),
    Contender("multiprocessing.Pool", False, False, _multiprocessing_pool()),
    Contender(
        "multiprocessing.Pool, one task per child", True, False, _multiprocessing_pool(maxtasksperchild=1)
    ),
    Contender("loky", False, False, _loky, needs="loky"),
    Contender("pebble", False, False, _pebble(), needs="pebble"),
    Contender("pebble, one task per child", True, False, _pebble(max_tasks=1), needs="pebble"),
]


_AIRFLOW_2 = {"AIRFLOW__CORE__LOAD_EXAMPLES": "False", "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING"}
_AIRFLOW_3 = {
    "AIRFLOW__API_AUTH__JWT_SECRET": "benchmark-" * 8,
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
}

CONTENDERS += [
    Contender(
        "Airflow 2 LocalExecutor, fork",
        True,
        False,
        _Airflow2,
        interpreter="airflow2",
        environment=_AIRFLOW_2,
        tasks=30,
    ),
    Contender(
        "Airflow 2 LocalExecutor, new interpreter",
        True,
        True,
        _Airflow2,
        interpreter="airflow2",
        environment={**_AIRFLOW_2, "AIRFLOW__CORE__EXECUTE_TASKS_NEW_PYTHON_INTERPRETER": "True"},
        tasks=30,
    ),
    Contender(
        "Airflow 3 LocalExecutor, callback",
        True,
        False,
        functools.partial(_Driven, "airflow3"),
        interpreter="airflow3",
        environment=_AIRFLOW_3,
        tasks=15,
    ),
]


@contextmanager
def opened(contender: Contender, parallelism: int) -> Iterator[Session]:
    """Open a session, and close it at the end of the context."""
    session = contender.open(parallelism)
    try:
        yield session
    finally:
        session.close()
