"""What a task may be: an argv, or a callable."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass


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


@dataclass(frozen=True)
class Call:
    """A callable without arguments; what it returns is dropped."""

    function: Callable[[], object]


Command = Argv | Call


def parse(command: object) -> Command:
    """Check what was submitted.

    :raises TypeError: it is neither a sequence of ``str`` nor a callable, or it is a coroutine function,
        which nobody here would await.
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
    if inspect.iscoroutinefunction(command) or inspect.iscoroutinefunction(type(command).__call__):
        raise TypeError(f"a coroutine function needs an event loop, and this executor has none: {command!r}")
    return Call(command)
