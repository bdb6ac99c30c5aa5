"""What a run changes in its own environment, and restores at its end."""

from __future__ import annotations

import os
import signal
import sys
from importlib.util import cache_from_source

from executor_conformance.probes import task

_DO_NOT_WRITE, _PREFIX = "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"


class Environment:
    """The changes of one run; :meth:`restore` undoes them."""

    def __init__(self) -> None:
        self._variables: dict[str, str | None] = {}
        self._handler: object = None

    def restore(self) -> None:
        """Leave everything as it was."""
        for name, value in self._variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._variables.clear()
        if self._handler is not None:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            self._handler = None

    def notice_children(self) -> None:
        """Stop ignoring SIGCHLD (as after ``trap '' CHLD``), because the suite waits for its children."""
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            self._handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def compile_probes(self, directory: str) -> None:
        """Let new interpreters cache the compiled probes: in ``directory``, unless they are cached already.

        Installers such as uv do not compile what they install.  If interpreters may not write compiled files
        either, each task in a new interpreter would compile the probe again.
        """
        compiled = cache_from_source(task.__file__)
        if os.path.exists(compiled):
            return
        if sys.dont_write_bytecode or not os.access(os.path.dirname(task.__file__), os.W_OK):
            self._set(_PREFIX, directory)
            self._set(_DO_NOT_WRITE, None)

    def _set(self, name: str, value: str | None) -> None:
        self._variables.setdefault(name, os.environ.get(name))
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
