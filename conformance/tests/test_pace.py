"""A host that comes along slowly."""

from __future__ import annotations

import io
import os
import sys
import threading

import pytest

from executor_conformance.harness import pace
from executor_conformance.harness.pace import SlowPace

_REST_S = 0.05


def _tell(log: io.StringIO) -> None:
    os.write(_nowhere, b"pill")
    log.write("told")
    threading.Lock().locked()


@pytest.fixture(autouse=True)
def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The rests that were taken; none takes any time."""
    taken: list[float] = []
    monkeypatch.setattr(pace, "sleep", taken.append)
    return taken


_nowhere = os.open(os.devnull, os.O_WRONLY)


def test_it_rests_when_it_may_have_woken_somebody(rests: list[float]) -> None:
    log = io.StringIO()
    with SlowPace(_REST_S, 10) as host:
        _tell(log)
        with host.slow():
            _tell(log)
            _tell(log)
        _tell(log)
    assert rests == [_REST_S] * 2


def test_so_do_threads_that_were_started_meanwhile(rests: list[float]) -> None:
    log = io.StringIO()
    with SlowPace(_REST_S, 10) as host:
        may_go = threading.Event()
        thread = threading.Thread(target=lambda: (may_go.wait(), _tell(log)))
        thread.start()
        with host.slow():
            before = len(rests)
            sys.setprofile(None)  # from here on only the other thread is looked at
            may_go.set()
            thread.join()
        assert len(rests) == before + 1
    threading.Thread(target=_tell, args=(log,)).start()
    assert len(rests) == before + 1


def test_it_does_not_rest_for_ever_and_leaves_no_trace(rests: list[float]) -> None:
    profile = sys.getprofile()
    log = io.StringIO()
    with SlowPace(_REST_S, 3) as host:
        with host.slow():
            for _ in range(20):
                _tell(log)
        assert sys.getprofile() is profile
        with host.slow():
            _tell(log)
    assert len(rests) == 4
