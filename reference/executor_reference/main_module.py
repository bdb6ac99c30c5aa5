"""Functions of the script that was started, ``__main__``, for processes whose ``__main__`` is another."""

from __future__ import annotations

import pickle

TYPE_CHECKING = False  # typing's own would import typing
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


NAME = "__main__"


def after_main(function: Callable[[], object]) -> Callable[[], object]:
    """The same function, for a process that has to run the host's main module first."""
    from multiprocessing import spawn

    known = spawn.get_preparation_data("task")
    main = {name: value for name, value in known.items() if name.startswith(("init_main", "sys_argv"))}
    return _AfterMain(main, pickle.dumps(function))


class _AfterMain:
    """Runs the main module, unless this process has, then a function of it.

    :param main: where that module is and its arguments, as :mod:`multiprocessing.spawn` tells it.
    """

    def __init__(self, main: dict[str, Any], function: bytes) -> None:
        self._main = main
        self._function = function

    def __call__(self) -> object:
        from multiprocessing import spawn

        spawn.prepare(self._main)
        return pickle.loads(self._function)()
