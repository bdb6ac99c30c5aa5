"""What the harness needs of an executor family, and what an adapter offers.

An :class:`Adapter` knows one family of executors: it recognises them, says what that family cannot do, and
builds :class:`Driver` objects.  A driver is one executor under test in the suite's terms: the native
contract, whatever the executor itself calls things.
"""

from __future__ import annotations

import abc
import asyncio
import enum
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

from executor_conformance.contract import TaskKey


class Capability(enum.Enum):
    """Something that a whole family of executors may lack; the value says what it is."""

    START = "a start() of its own"
    TERMINATE = "a terminate() of its own"
    REPEATED_END = "an end() that is called by the scheduler whatever happened before"
    INERT_CONSTRUCTOR = "a constructor that is apart from the start"
    EXIT_STATUS = "tasks that are commands with an exit status"
    ARGV = "argv commands"
    CALLABLE = "callable commands"
    COROUTINE = "coroutine functions as commands"
    ASYNC = "tasks that share an event loop, as is_async says"
    KEYS = "keys chosen by the caller"
    EVENT_FILTER = "an event buffer that can be drained for chosen DAGs"
    QUEUE_AND_CONFIG = "a queue and an executor_config for each task"
    PARALLELISM_ATTRIBUTE = "a public parallelism attribute"
    FINISHES_QUEUED_WORK = "an end() that finishes the work it accepted"
    RUNS_ONCE = "tasks that the executor itself never tries again"
    RESULTS = "results that travel back to the host"
    CALLS = "calls with arguments, as those of concurrent.futures"


@dataclass(frozen=True)
class Work:
    """One unit of work in every form that some executor takes.

    :param argv: the work as a command, or ``None`` where it can only be a callable.
    :param function: the same work as a picklable zero-argument callable, or ``None``.
    :param coroutine: the same work as a picklable coroutine function without arguments, or ``None``.
    :param reference: the same work as an importable name and plain keyword arguments, or ``None``.
    """

    argv: Sequence[str] | None = None
    function: Callable[[], object] | None = None
    coroutine: Callable[[], Coroutine[Any, Any, object]] | None = None
    reference: tuple[str, Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Submission:
    """One call of ``execute_async`` (or of the family's own word for it)."""

    key: TaskKey
    work: Work
    priority: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class Driver(abc.ABC):
    """One executor under test.

    Methods let the executor's exceptions through unchanged.  ``executor`` is the object itself; optional
    attributes of the contract (``slots_available``, ``running``, ...) are read through :meth:`optional`.
    """

    executor: Any
    #: What this executor lacks beside what its whole family does, and why.
    lacks: Mapping[Capability, str] = MappingProxyType({})

    @abc.abstractmethod
    def start(self) -> None:
        """Start it; nothing to do for families without a ``start()``."""

    @abc.abstractmethod
    def submit(self, submission: Submission) -> None:
        """Hand over one task."""

    @abc.abstractmethod
    def pump(self) -> None:
        """One round of what a scheduler does all the while: ``heartbeat()``, else ``sync()``."""

    @abc.abstractmethod
    def sync(self) -> None:
        """Call ``sync()`` itself."""

    @abc.abstractmethod
    def events(self, dag_ids: Sequence[str] | None = None) -> Any:
        """Drain the event buffer; keys are those that were submitted."""

    @abc.abstractmethod
    def end(self) -> None:
        """Finish and stop."""

    @abc.abstractmethod
    def terminate(self) -> None:
        """Stop now."""

    def forget(self) -> None:
        """Keep nothing of the tasks so far: none is in flight, and all their events were taken."""
        return

    def future(self, key: TaskKey) -> asyncio.Future[object] | None:
        """What the executor returned for a caller on an event loop to await, if that is its way."""
        return None

    def optional(self, name: str) -> Any:
        """The optional attribute ``name`` of the contract, or :data:`ABSENT`."""
        return getattr(self.executor, name, ABSENT)

    def holds(self, collection: Any, key: TaskKey) -> bool:
        """Whether ``running`` or ``queued_tasks`` has this key."""
        return key in collection


class _Absent:
    def __repr__(self) -> str:
        return "<absent>"


#: The optional attribute is not there.
ABSENT = _Absent()

#: The argument is left out, so that the executor's own default holds.
DEFAULT = _Absent()


#: What a family lacks unless it says that it does not: most have never heard of it.
_WITHOUT_COROUTINES = {
    Capability.COROUTINE: "the family runs no coroutine functions",
    Capability.ASYNC: "the family runs no coroutine functions",
}
_WITHOUT_CALLS = {Capability.CALLS: "the family is not that of concurrent.futures.Executor"}


class Adapter(abc.ABC):
    """One family of executors."""

    family: ClassVar[str]
    #: Whether executors of this family may run coroutine functions.
    takes_coroutines: ClassVar[bool] = False
    #: Whether the executor itself is a ``concurrent.futures.Executor``, to be called as one.
    takes_calls: ClassVar[bool] = False
    #: What the family lacks, and why; rules that need it are not applicable.
    lacks: ClassVar[Mapping[Capability, str]] = {}
    #: The methods that every executor of this family has.
    required_methods: ClassVar[tuple[str, ...]] = ()
    #: What its constructors call the number of tasks that may run at once.
    parallelism_argument: ClassVar[str] = "parallelism"
    #: How the family calls things, for messages: "end()" may be "shutdown()".
    words: ClassVar[Mapping[str, str]] = {}
    #: What of the family's own the suite puts something else in the place of, and what; told in the report.
    replaces: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        if not cls.takes_coroutines:
            cls.lacks = {**_WITHOUT_COROUTINES, **cls.lacks}
        if not cls.takes_calls:
            cls.lacks = {**_WITHOUT_CALLS, **cls.lacks}

    @classmethod
    @abc.abstractmethod
    def recognises(cls, candidate: object) -> bool:
        """Whether this class (or instance) belongs to the family."""

    def arguments(self, parallelism: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        """Keyword arguments for the target; ``parallelism`` may be :data:`DEFAULT`."""
        chosen = {} if parallelism is DEFAULT else {self.parallelism_argument: parallelism}
        return {**options, **chosen}

    @abc.abstractmethod
    def drive(self, executor: Any) -> Driver:
        """Wrap one executor."""

    def prepare(self, scratch: str) -> None:
        """Set up the environment before the target is imported; ``scratch`` is a directory of the run."""
        return

    def stand_in(self, scratch: str) -> None:
        """Do what :attr:`replaces` says: the target has been imported, and no executor of it been started."""
        return
