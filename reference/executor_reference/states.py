"""The life of one try of a task, as a table.

A try that was accepted waits (``queued``), has a slot (``running``), and ends once, as ``success`` or
``failed``.  There is no way back and no second end: a new try is a new key.  ``terminate()`` may end a try
that never had a slot, so ``queued`` leads to ``failed`` too.

The executor moves tasks along this table and nowhere else; the diagram in the documentation is drawn from it.
"""

from __future__ import annotations

QUEUED = "queued"
RUNNING = "running"
SUCCESS = "success"
FAILED = "failed"

TRANSITIONS: dict[str, frozenset[str]] = {
    QUEUED: frozenset({RUNNING, FAILED}),
    RUNNING: frozenset({SUCCESS, FAILED}),
    SUCCESS: frozenset(),
    FAILED: frozenset(),
}

TERMINAL = frozenset(state for state, following in TRANSITIONS.items() if not following)
