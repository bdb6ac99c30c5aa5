"""What a contained rule may use, and what its warden reports about it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Limits:
    """What a contained rule may use.

    :param rule_s: seconds for the whole rule.
    :param processes: how many processes it may have at once.
    :param output_bytes: how much it may print.
    """

    rule_s: float = 60.0
    processes: int = 250
    output_bytes: int = 64 << 20


class End(str, enum.Enum):
    """How a contained rule ended."""

    FINISHED = "finished"
    #: A call of the executor did not return in its time.
    HANG = "hang"
    #: The rule did not end in its time.
    TIMEOUT = "timeout"
    #: The host process exited, or died of a signal.
    EXIT = "exit"
    SIGNAL = "signal"
    #: More processes, or more output, than the limits allow.
    PROCESSES = "processes"
    OUTPUT = "output"
    #: pytest was interrupted, or is gone.
    INTERRUPTED = "interrupted"

    __str__ = str.__str__


@dataclass(frozen=True)
class ContainmentResult:
    """What the warden saw.

    :param detail: the exit status, the signal's name, the number of processes, the amount of output.
    :param result: what the host wrote on the blackboard, if it got that far.
    :param call_kind: the executor's call in progress, by its name in the contract.
    :param call_backlog: tasks in flight per slot when it was made.
    :param call_name: the same call, by the family's name for it.
    :param call_history: the calls before it.
    :param call_s: seconds that the call had taken.
    :param stacks: of all threads of the host.
    :param tree: the processes below the warden, where the host did not finish.
    :param output: what was printed, shortened.
    :param left_behind: processes that were still there when the host had ended.
    :param survivors: processes that could not be killed.
    """

    end: End
    detail: str = ""
    result: Mapping[str, Any] | None = None
    call_kind: str = ""
    call_backlog: float = 0.0
    call_name: str = ""
    call_history: str = ""
    call_s: float = 0.0
    stacks: str = ""
    tree: tuple[str, ...] = ()
    output: str = ""
    left_behind: tuple[str, ...] = ()
    survivors: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ContainmentResult:
        """From JSON of its fields."""
        sequences = {name: tuple(data[name]) for name in ("tree", "left_behind", "survivors")}
        return cls(**{**data, **sequences, "end": End(data["end"])})
