"""The kinds of commands: an argv, a callable, or a coroutine function."""

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
    """A command line: the program and its arguments.

    It is executed unchanged, except that a forked child runs a module of this interpreter itself.
    """

    words: tuple[str, ...]

    @property
    def module(self) -> str | None:
        """The module in ``[sys.executable, "-m", module, ...]``, else ``None``.

        A forked child can run it without executing a new interpreter.
        """
        if len(self.words) >= 3 and self.words[:2] == (sys.executable, "-m"):
            return self.words[2]
        return None

    @property
    def instruction(self) -> Instruction:
        """What a forked child has to do."""
        return (EXECUTE, self.words) if self.module is None else (RUN_MODULE, self.words[2:])


@dataclass(frozen=True)
class Call:
    """A callable without arguments; its return value is ignored."""

    function: Callable[[], object]

    @property
    def instruction(self) -> Instruction:
        """What a forked child has to do."""
        return CALL, (self.function, ())


@dataclass(frozen=True)
class Await:
    """A coroutine function without arguments; its return value is ignored."""

    function: Callable[[], Coroutine[Any, Any, object]]


Command = Argv | Call


def parse(command: object) -> Command:
    """Check a command for an executor without an event loop.

    :raises TypeError: the command is neither a sequence of ``str`` nor a callable, or it is a coroutine
        function, which this executor could not await.
    :raises ValueError: the argv is empty, has no program, or contains a null character, so ``exec`` cannot
        take it.
    """
    parsed = parse_with_coroutines(command)
    if isinstance(parsed, Await):
        raise TypeError(f"a coroutine function needs an event loop, and this executor has none: {command!r}")
    return parsed


def parse_with_coroutines(command: object) -> Command | Await:
    """Check a command for an executor with an event loop.

    :raises TypeError: the command is neither a sequence of ``str``, nor a callable, nor a coroutine function.
    :raises ValueError: as for :func:`parse`.
    """
    if isinstance(command, (list, tuple)):
        if not all(isinstance(word, str) for word in command):
            raise TypeError(f"an argv must be a sequence of str, got {command!r}")
        if not command or not command[0]:
            raise ValueError(f"an argv must start with the name of a program, got {command!r}")
        if any("\0" in word for word in command):
            raise ValueError(f"an argv must not contain a null character, got {command!r}")
        return Argv(tuple(command))
    if not callable(command):
        raise TypeError(f"a command must be an argv or a callable, got {command!r}")
    return Await(command) if _is_coroutine_function(command) else Call(command)


def _is_coroutine_function(command: Callable[..., object]) -> bool:
    plain = command.func if type(command) is functools.partial else command
    if type(plain) is FunctionType and not plain.__dict__:  # the common case; inspect is much slower
        return bool(plain.__code__.co_flags & inspect.CO_COROUTINE)
    return inspect.iscoroutinefunction(command) or inspect.iscoroutinefunction(type(command).__call__)
