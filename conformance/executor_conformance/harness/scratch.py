"""Folders for temporary files, with names so short that a socket fits below them.

The path of a socket has 107 characters at most, and TMPDIR may have used up most of them.
"""

from __future__ import annotations

import itertools
import os


def new_folder(parent: str) -> str:
    """Make a folder in ``parent``, with the shortest number that is free as its name."""
    numbers = itertools.count()
    while True:
        path = os.path.join(parent, str(next(numbers)))
        try:
            os.mkdir(path)
        except FileExistsError:
            continue
        os.chmod(path, 0o755)
        return path
