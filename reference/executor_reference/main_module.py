"""Functions of the host's ``__main__`` module, for processes with another ``__main__``."""

from __future__ import annotations

import pickle

TYPE_CHECKING = False  # importing it from typing would import typing
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


NAME = "__main__"


def after_main(function: Callable[[], object]) -> Callable[[], object]:
    """Return a picklable callable that runs the host's main module first, then the function."""
    from multiprocessing import spawn

    known = spawn.get_preparation_data("task")
    main = {name: value for name, value in known.items() if name.startswith(("init_main", "sys_argv"))}
    return _AfterMain(main, pickle.dumps(function))


class _AfterMain:
    """Runs the main module, unless this process has done so, and then a function of that module.

    :param main: the path of the main module and its arguments, from :mod:`multiprocessing.spawn`.
    :param function: the function, pickled.
    """

    def __init__(self, main: dict[str, Any], function: bytes) -> None:
        self._main = main
        self._function = function

    def __call__(self) -> object:
        from multiprocessing import spawn

        spawn.prepare(self._main)
        return pickle.loads(self._function)()
