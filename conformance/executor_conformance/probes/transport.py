"""How a probe reports to the suite, and waits for it: through files that both can open.

The other side is :mod:`executor_conformance.harness.journal`, which reads what is recorded, and
:class:`executor_conformance.harness.probes.Gate`, which opens gates.  The two sides have to agree on the
lines of the journal: ``kind``, probe, run, CLOCK_MONOTONIC nanoseconds and the fields of that kind, separated
by tabs.
"""

import os
import time

TYPE_CHECKING = False  # typing would take longer to import than this module
if TYPE_CHECKING:
    from collections.abc import Callable

_monotonic_ns = time.monotonic_ns


def record(journal: str, kind: str, probe: str, run: str, *fields: object) -> None:
    """Append one line to the journal."""
    append(journal, "\t".join([kind, probe, run, str(_monotonic_ns()), *map(str, fields)]) + "\n")


def append(path: str, text: str) -> None:
    """Append to a file by one ``write``; an ``O_APPEND`` file makes that atomic on Linux."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def wait_at(gate: str) -> None:
    """Block until somebody holds the FIFO open for writing."""
    os.close(os.open(gate, os.O_RDONLY))


def wait_at_opened(gate: str, opened: "Callable[[], None]") -> None:
    """The same, but open the FIFO first, and call ``opened`` before waiting."""
    import select

    descriptor = os.open(gate, os.O_RDONLY | os.O_NONBLOCK)
    try:
        opened()
        select.select([descriptor], [], [])
    finally:
        os.close(descriptor)
