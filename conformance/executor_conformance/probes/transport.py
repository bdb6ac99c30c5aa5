"""How a probe reports to the suite, and waits for it: through files that both can open.

The other side is :mod:`executor_conformance.harness.journal`, which reads what is recorded, and
:class:`executor_conformance.harness.probes.Gate`, which opens gates.  The two sides have to agree on the
lines of the journal: ``kind``, probe, run, CLOCK_MONOTONIC nanoseconds and the fields of that kind, separated
by tabs.
"""

import os
import time

_monotonic_ns = time.monotonic_ns


def record(journal: str, kind: str, probe: str, run: str, *fields: object) -> None:
    """Append one line to the journal; one ``write`` to an ``O_APPEND`` file is atomic on Linux."""
    line = "\t".join([kind, probe, run, str(_monotonic_ns()), *map(str, fields)]) + "\n"
    descriptor = os.open(journal, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def wait_at(gate: str) -> None:
    """Block until somebody holds the FIFO open for writing."""
    os.close(os.open(gate, os.O_RDONLY))
