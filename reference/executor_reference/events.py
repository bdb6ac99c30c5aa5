"""What both executors do with their event buffers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

Event = TypeVar("Event")


def split_events(
    events: Mapping[Any, Event], dag_ids: Collection[str] | None
) -> tuple[dict[Any, Event], dict[Any, Event]]:
    """Split the events of a buffer into those to return and those to keep.

    :param events: key -> event.
    :param dag_ids: return only the events whose key has one of these ``dag_id``; ``None``: return all.
    """
    if dag_ids is None:
        return dict(events), {}
    taken = {key: event for key, event in events.items() if _dag(key) in dag_ids}
    return taken, {key: event for key, event in events.items() if key not in taken}


def _dag(key: Any) -> object:
    return getattr(key, "dag_id", key[0] if isinstance(key, tuple) and key else None)
