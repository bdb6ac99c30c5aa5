"""Memory shared by a contained rule and its warden.

The host writes which call of the executor it is in, and at the end its result.  Shared memory rather than a
pipe: an executor that closes every descriptor of its host cannot close this.
"""

from __future__ import annotations

import json
import mmap
import struct
from typing import Any, NamedTuple

from executor_conformance.harness.linux import monotonic

_SIZE = 4 << 20
_NUMBER = struct.Struct("=Q")  # of the call in progress; 0: none
_CALL = struct.Struct("=dddQ3H")  # entered, allowance, backlog, pid of the caller, lengths of the three texts
_CALL_AT = 64
_TEXTS_AT = 128
#: Bytes for the texts of a call: kind, name, history.
_TEXT_SIZES = (64, 512, 1024)
_ABANDON_AT = 2048
_RESULT = struct.Struct("=QI")  # 1 when written, length
_RESULT_AT = 4096


class CallInProgress(NamedTuple):
    """A call of the executor that has not returned.

    :param number: counts the calls of one rule.
    :param entered: seconds, on the monotonic clock.
    :param allowance_s: seconds after which it counts as hung.
    :param backlog: tasks in flight per slot.
    :param pid: of the process that made it.
    :param kind: the call of the contract, under which hangs are counted.
    :param name: what the executor's family calls it, for messages.
    :param history: the calls before it, for messages.
    """

    number: int
    entered: float
    allowance_s: float
    backlog: float
    pid: int
    kind: str
    name: str
    history: str


class Blackboard:
    """One page for the call in progress, the rest for the result."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SIZE)
        self.calls = 0  # that this process has made

    def close(self) -> None:
        self._memory.close()

    def enter(
        self,
        kind: str,
        *,
        name: str = "",
        history: str = "",
        allowance_s: float,
        backlog: float = 0.0,
        pid: int,
    ) -> None:
        """The host enters a call that has ``allowance_s`` seconds to return."""
        # The warden reads while this is written.  The number is cleared first and set last, each in one
        # store, so whatever the warden reads between two equal numbers is consistent.
        self.leave()
        self.calls += 1
        lengths = []
        at = _TEXTS_AT
        for text, size in zip((kind, name or kind, history), _TEXT_SIZES, strict=True):
            data = text.encode("utf-8", "replace")[:size]
            self._memory[at : at + len(data)] = data
            lengths.append(len(data))
            at += size
        _CALL.pack_into(self._memory, _CALL_AT, monotonic(), allowance_s, backlog, pid, *lengths)
        _NUMBER.pack_into(self._memory, 0, self.calls)

    def leave(self) -> None:
        """The call returned."""
        _NUMBER.pack_into(self._memory, 0, 0)

    def call(self) -> CallInProgress | None:
        """The call in progress, as the warden sees it."""
        (number,) = _NUMBER.unpack_from(self._memory, 0)
        entered, allowance, backlog, pid, *lengths = _CALL.unpack_from(self._memory, _CALL_AT)
        texts = []
        at = _TEXTS_AT
        for length, size in zip(lengths, _TEXT_SIZES, strict=True):
            texts.append(bytes(self._memory[at : at + min(length, size)]).decode("utf-8", "replace"))
            at += size
        if number == 0 or _NUMBER.unpack_from(self._memory, 0) != (number,):
            return None
        return CallInProgress(number, entered, allowance, backlog, pid, *texts)

    def write_result(self, data: dict[str, Any]) -> None:
        """Store the result; what does not fit is cut from its evidence."""
        room = _SIZE - _RESULT_AT - _RESULT.size
        text = json.dumps(data).encode()
        if len(text) > room:
            text = json.dumps({**data, "evidence": str(data.get("evidence", ""))[: 64 << 10]}).encode()[:room]
        start = _RESULT_AT + _RESULT.size
        self._memory[start : start + len(text)] = text
        _RESULT.pack_into(self._memory, _RESULT_AT, 1, len(text))

    def result(self) -> dict[str, Any] | None:
        """The result, or ``None`` if the host never wrote one."""
        written, length = _RESULT.unpack_from(self._memory, _RESULT_AT)
        if not written:
            return None
        start = _RESULT_AT + _RESULT.size
        data: dict[str, Any] = json.loads(bytes(self._memory[start : start + length]))
        return data

    def abandon(self) -> None:
        """Ask the warden to stop the rule now."""
        self._memory[_ABANDON_AT] = 1

    @property
    def abandoned(self) -> bool:
        return self._memory[_ABANDON_AT] == 1
