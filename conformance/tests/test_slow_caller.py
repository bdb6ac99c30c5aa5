"""Tests of the slow caller, which pauses whenever it may have woken another thread or process."""

from __future__ import annotations

import io
import os
import sys
import threading

import pytest

from executor_conformance.harness import slow_caller
from executor_conformance.harness.slow_caller import SlowCaller

_PAUSE_S = 0.05


def _write(log: io.StringIO) -> None:
    os.write(_devnull, b"x")
    log.write("x")
    threading.Lock().locked()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, in seconds; they take no time in these tests."""
    taken: list[float] = []
    monkeypatch.setattr(slow_caller, "sleep", taken.append)
    return taken


_devnull = os.open(os.devnull, os.O_WRONLY)


def test_pauses_after_calls_that_may_wake_others(pauses: list[float]) -> None:
    log = io.StringIO()
    with SlowCaller(_PAUSE_S, 10) as host:
        _write(log)
        with host.slow():
            _write(log)
            _write(log)
        _write(log)
    assert pauses == [_PAUSE_S] * 2


def test_pauses_in_threads_that_were_started_in_the_block(pauses: list[float]) -> None:
    log = io.StringIO()
    with SlowCaller(_PAUSE_S, 10) as host:
        may_go = threading.Event()
        thread = threading.Thread(target=lambda: (may_go.wait(), _write(log)))
        thread.start()
        with host.slow():
            before = len(pauses)
            sys.setprofile(None)  # from now on only the other thread is profiled
            may_go.set()
            thread.join()
        assert len(pauses) == before + 1
    threading.Thread(target=_write, args=(log,)).start()
    assert len(pauses) == before + 1


def test_number_of_pauses_is_limited_and_profile_is_restored(pauses: list[float]) -> None:
    profile = sys.getprofile()
    log = io.StringIO()
    with SlowCaller(_PAUSE_S, 3) as host:
        with host.slow():
            for _ in range(20):
                _write(log)
        assert sys.getprofile() is profile
        with host.slow():
            _write(log)
    assert len(pauses) == 4
