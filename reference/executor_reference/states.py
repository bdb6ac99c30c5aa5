"""The states of one try of a task, as a table of transitions.

An accepted try is ``queued``, becomes ``running`` when it gets a slot, and ends exactly once, as ``success``
or ``failed``.  No state is entered twice: the next try of the same task has another key.  ``terminate()`` can
end a try that never had a slot, so ``queued`` may change to ``failed`` directly.

The executors change states only as this table allows.  The events that they report may skip states, so the
contract (``docs/states.md``) allows more transitions than this table.
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
