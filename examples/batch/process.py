"""Our server in a process of its own, so that what it costs is not counted as the client's."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from examples.batch.conduct import Conduct, as_options
from executor_reference.linux import die_with_parent

_ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def served(conduct: Conduct, core: int | None = None) -> Iterator[str]:
    """The address of a server that lives as long as this context, and no longer than this thread."""
    command = [sys.executable, "-m", "examples.batch.server", *as_options(conduct)]
    if core is not None:
        command.append(f"--core={core}")
    with subprocess.Popen(
        command,
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=functools.partial(die_with_parent, os.getpid()),
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            if not address:
                raise RuntimeError("the server did not start; it has said why")
            yield address
        finally:
            process.terminate()


def truth_of(address: str) -> dict[str, Any]:
    """What our server knows.

    :raises OSError: it is no server of ours.
    """
    with urllib.request.urlopen(f"{address}/truth") as answer:
        truth: dict[str, Any] = json.load(answer)
    return truth
