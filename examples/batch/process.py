"""Runs the simulated service in its own process, so that its cost does not count as the client's."""

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

from examples.batch.behavior import Behavior, as_options
from executor_reference.linux import die_with_parent

_ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def run_server(behavior: Behavior, core: int | None = None) -> Iterator[str]:
    """Run a server until the context or this thread ends, and return its address.

    :param core: the processor that the server runs on; ``None``: any.
    :raises RuntimeError: the server did not start.
    """
    command = [sys.executable, "-m", "examples.batch.server", *as_options(behavior)]
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
                raise RuntimeError("the server did not start; see its error output")
            yield address
        finally:
            process.terminate()


def fetch_truth(address: str) -> dict[str, Any]:
    """Return what really happened, from the simulated service.

    :raises OSError: the server is not the simulated service.
    """
    with urllib.request.urlopen(f"{address}/truth") as answer:
        truth: dict[str, Any] = json.load(answer)
    return truth
