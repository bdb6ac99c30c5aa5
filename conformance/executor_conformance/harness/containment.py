"""Runs one rule in a process of its own, and ends it whatever the executor does.

Three processes take part:

- the *pytest* process forks a warden and waits for its result (this module);
- the *warden* leads a session of its own, adopts every orphan below it, forks the host, watches the clock,
  the number of processes and the output, and in the end kills everything below it.  It outlives pytest
  when pytest is killed with SIGKILL, and then does the same (:mod:`~executor_conformance.harness.warden`);
- the *host* runs the rule and the executor under test
  (:mod:`~executor_conformance.harness.host_process`).  The kernel kills it when its warden dies.

Should the executor kill the warden, its orphans come to the pytest process, which adopts them for as long as
a rule runs.

They talk through two things only, and have to agree on both: the blackboard, which host and warden share and
on which pytest can ask for an early end, and a pipe on which the warden sends one
:class:`~executor_conformance.harness.containment_result.ContainmentResult` as JSON.
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable

from executor_conformance.harness import processes
from executor_conformance.harness.blackboard import Blackboard, CallInProgress
from executor_conformance.harness.containment_result import ContainmentResult, End, Limits
from executor_conformance.harness.linux import adopt_orphans, fork, monotonic, signals_blocked
from executor_conformance.harness.warden import Assignment, keep_watch

#: Progress is first reported after this many seconds, and then at twice the time of the previous report.
_FIRST_NEWS_S = 5.0

__all__ = ["ContainmentResult", "End", "Limits", "contain"]


def contain(
    body: Callable[[Blackboard], None],
    *,
    limits: Limits,
    scratch: str,
    show_output: bool = False,
    progress: Callable[[CallInProgress | None, float], None] | None = None,
) -> ContainmentResult:
    """Run ``body`` in a contained process.

    :param scratch: a directory for the temporary files of the executor; the caller removes it.
    :param show_output: let the executor print to this process's own standard output (``pytest -s``).
    :param progress: called every few seconds with the call in progress and the seconds so far.
    :returns: what the warden saw.
    """
    blackboard = Blackboard()
    reader, writer = os.pipe()
    mine = set(processes.children(os.getpid()))
    adopt_orphans()
    try:
        with signals_blocked() as mask:
            assignment = Assignment(body, blackboard, limits, scratch, show_output, os.getpid(), mask)
            warden = fork()
            if warden == 0:
                os.close(reader)
                keep_watch(assignment, writer)
        os.close(writer)
        writer = -1
        return _await_result(warden, reader, blackboard, progress)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
        while strays := set(processes.children(os.getpid())) - mine:  # only if the warden was killed
            for stray in strays:
                processes.kill_all([stray, *processes.descendant_pids(stray)])
            for stray in strays:
                os.waitpid(stray, 0)
        adopt_orphans(False)
        blackboard.close()


def _await_result(
    warden: int,
    descriptor: int,
    blackboard: Blackboard,
    progress: Callable[[CallInProgress | None, float], None] | None,
) -> ContainmentResult:
    chunks = []
    try:
        if progress is not None:
            began = monotonic()
            poll = select.poll()
            poll.register(descriptor)
            news_s = _FIRST_NEWS_S
            while not poll.poll(max(began + news_s - monotonic(), 0) * 1000):
                progress(blackboard.call(), monotonic() - began)
                news_s *= 2
        while chunk := os.read(descriptor, 1 << 16):
            chunks.append(chunk)
        os.waitpid(warden, 0)
    except BaseException:
        # Ctrl-C, or a test timeout: the warden cleans up before the exception goes on.
        blackboard.abandon()
        os.waitpid(warden, 0)
        raise
    if chunks:
        return ContainmentResult.from_dict(json.loads(b"".join(chunks)))
    call = blackboard.call()
    return ContainmentResult(
        End.SIGNAL,
        detail="SIGKILL to the suite's own processes",
        result=blackboard.result(),
        call_kind=call.kind if call else "",
        call_backlog=call.backlog if call else 0.0,
        call_name=call.name if call else "",
        call_history=call.history if call else "",
    )
