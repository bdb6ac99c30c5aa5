"""Tests of what both executors do with their event buffers."""

from __future__ import annotations

from executor_reference.events import split_events

EVENTS = {("b", 1): "first", ("a", 2): "second", ("b", 3): "third", "a key of another kind": "fourth"}


def test_all_events_are_taken_without_a_filter() -> None:
    assert split_events(EVENTS, None) == (EVENTS, {})


def test_both_parts_keep_their_order() -> None:
    taken, kept = split_events(EVENTS, {"b"})
    assert list(taken) == [("b", 1), ("b", 3)]
    assert list(kept) == [("a", 2), "a key of another kind"]
