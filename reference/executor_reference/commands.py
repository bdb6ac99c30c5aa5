"""What a task may be: an argv, a callable, or a coroutine function."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from executor_reference.task import CALL, EXECUTE, RUN_MODULE, Instruction


@dataclass(frozen=True)
class Argv:
    """A command line, executed as it stands unless it runs a module with this very interpreter."""

    words: tuple[str, ...]

    @property
    def module(self) -> str | None:
        """The module of ``[sys.executable, "-m", module, ...]``, which a forked child can run by itself."""
        if len(self.words) >= 3 and self.words[:2] == (sys.executable, "-m"):
            return self.words[2]
        return None

    @property
    def instruction(self) -> Instruction:
        """What a forked child is to do."""
        return (EXECUTE, self.words) if self.module is None else (RUN_MODULE, self.words[2:])


@dataclass(frozen=True)
class Call:
    """A callable without arguments; what it returns is dropped."""

    function: Callable[[], object]

    @property
    def instruction(self) -> Instruction:
        """What a forked child is to do."""
        return CALL, (self.function, ())


@dataclass(frozen=True)
class Await:
    """A coroutine function without arguments; what it returns is dropped."""

    function: Callable[[], Coroutine[Any, Any, object]]


Command = Argv | Call


def parse(command: object) -> Command:
    """Check what was submitted to an executor without an event loop.

    :raises TypeError: it is neither a sequence of ``str`` nor a callable, or it is a coroutine function,
        which nobody here would await.
    :raises ValueError: an argv that no system call could take.
    """
    parsed = parse_with_coroutines(command)
    if isinstance(parsed, Await):
        raise TypeError(f"a coroutine function needs an event loop, and this executor has none: {command!r}")
    return parsed


def parse_with_coroutines(command: object) -> Command | Await:
    """Check what was submitted to an executor with an event loop.

    :raises TypeError: it is neither a sequence of ``str`` nor a callable nor a coroutine function.
    :raises ValueError: an argv that no system call could take.
    """
    if isinstance(command, (list, tuple)):
        if not all(isinstance(word, str) for word in command):
            raise TypeError(f"an argv is a sequence of str, got {command!r}")
        if not command or not command[0]:
            raise ValueError(f"an argv starts with the name of a program, got {command!r}")
        if any("\0" in word for word in command):
            raise ValueError(f"an argv cannot hold a null character, got {command!r}")
        return Argv(tuple(command))
    if not callable(command):
        raise TypeError(f"a command is an argv or a callable, got {command!r}")
    return Await(command) if _is_coroutine_function(command) else Call(command)


def _is_coroutine_function(command: Callable[..., object]) -> bool:
    plain = command.func if type(command) is functools.partial else command
    if type(plain) is FunctionType and not plain.__dict__:  # nearly always; inspect takes a long way round
        return bool(plain.__code__.co_flags & inspect.CO_COROUTINE)
    return inspect.iscoroutinefunction(command) or inspect.iscoroutinefunction(type(command).__call__)
