"""Memory shared by a contained rule and its warden.

The rule's process writes here which call of the executor it is in, and at the end its finding.  Shared
memory rather than a pipe: an executor that closes every descriptor of its host cannot close this.
"""

from __future__ import annotations

import json
import mmap
import struct
from typing import Any, NamedTuple

from executor_conformance.harness.linux import monotonic

_SIZE = 4 << 20
_NUMBER = struct.Struct("=Q")  # of the call under way; 0: none
_CALL = struct.Struct("=ddQI")  # entered, allowance, pid of the caller, length of the name
_CALL_AT = 64
_CALL_NAME = 128
_NAME_SIZE = 512
_RESULT = struct.Struct("=QI")  # 1 when written, length
_RESULT_AT = 4096
_ABANDON_AT = 2048


class Call(NamedTuple):
    """A call of the executor that is under way."""

    number: int
    entered: float
    allowance_s: float
    pid: int
    name: str


class Blackboard:
    """One page for the call under way, the rest for the finding."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SIZE)
        self._calls = 0

    def close(self) -> None:
        self._memory.close()

    def enter(self, name: str, allowance_s: float, pid: int) -> None:
        """The rule's process enters a call that has ``allowance_s`` seconds to return."""
        # The warden reads while this is written.  The number is taken away first and put down last, in one
        # store each, so what the warden finds under one and the same number is whole.
        self.leave()
        self._calls += 1
        text = name.encode("utf-8", "replace")[:_NAME_SIZE]
        self._memory[_CALL_NAME : _CALL_NAME + len(text)] = text
        _CALL.pack_into(self._memory, _CALL_AT, monotonic(), allowance_s, pid, len(text))
        _NUMBER.pack_into(self._memory, 0, self._calls)

    def leave(self) -> None:
        """The call returned."""
        _NUMBER.pack_into(self._memory, 0, 0)

    def call(self) -> Call | None:
        """The call under way, as the warden sees it."""
        (number,) = _NUMBER.unpack_from(self._memory, 0)
        entered, allowance, pid, length = _CALL.unpack_from(self._memory, _CALL_AT)
        name = bytes(self._memory[_CALL_NAME : _CALL_NAME + min(length, _NAME_SIZE)])
        if number == 0 or _NUMBER.unpack_from(self._memory, 0) != (number,):
            return None
        return Call(number, entered, allowance, pid, name.decode("utf-8", "replace"))

    def write_result(self, data: dict[str, Any]) -> None:
        """Put down the finding; what does not fit is cut from its longest text."""
        room = _SIZE - _RESULT_AT - _RESULT.size
        text = json.dumps(data).encode()
        if len(text) > room:
            text = json.dumps({**data, "evidence": str(data.get("evidence", ""))[: 64 << 10]}).encode()[:room]
        start = _RESULT_AT + _RESULT.size
        self._memory[start : start + len(text)] = text
        _RESULT.pack_into(self._memory, _RESULT_AT, 1, len(text))

    def result(self) -> dict[str, Any] | None:
        """The finding, or ``None`` if the rule's process never got so far."""
        written, length = _RESULT.unpack_from(self._memory, _RESULT_AT)
        if not written:
            return None
        start = _RESULT_AT + _RESULT.size
        data: dict[str, Any] = json.loads(bytes(self._memory[start : start + length]))
        return data

    def abandon(self) -> None:
        """Tell the warden to stop the rule now."""
        self._memory[_ABANDON_AT] = 1

    @property
    def abandoned(self) -> bool:
        return self._memory[_ABANDON_AT] == 1
