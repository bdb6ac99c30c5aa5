"""What an adapter is.

An :class:`Adapter` knows one family of executors: it recognizes them, lists what the family lacks, and makes
:class:`Driver` objects.  A driver wraps one executor and offers the calls of the contract, whatever the
executor itself calls them.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from executor_conformance.contract import Call, TaskKey
from executor_conformance.requirements import Capability

if TYPE_CHECKING:  # the more a host has imported, the longer its forks take
    import asyncio


class CannotDrive(Exception):
    """The adapter recognizes the executor, and cannot drive it; the text is the reason, for the user."""


@dataclass(frozen=True)
class Work:
    """One unit of work, in every form that some executor takes; ``None`` where there is no such form.

    :param argv: a command line.
    :param function: a picklable callable without arguments.
    :param coroutine: a picklable coroutine function without arguments.
    :param reference: an importable name and plain keyword arguments for it.
    """

    argv: Sequence[str] | None = None
    function: Callable[[], object] | None = None
    coroutine: Callable[[], Coroutine[Any, Any, object]] | None = None
    reference: tuple[str, Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Submission:
    """One call of ``execute_async()``, or of whatever the family has in its place.

    :param priority: not ``None`` for ``queue_command()``.
    :param extra: further keyword arguments: ``queue``, ``executor_config``.
    """

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
    #: What this executor lacks in addition to what its family lacks -> the reason.
    lacks: Mapping[Capability, str] = MappingProxyType({})
    #: The call that :meth:`pump` makes, for messages.
    pump_call: Call = Call.SYNC

    @abc.abstractmethod
    def start(self) -> None:
        """Start it; does nothing in families without a ``start()``."""

    @abc.abstractmethod
    def submit(self, submission: Submission) -> None:
        """Submit one task."""

    @abc.abstractmethod
    def pump(self) -> None:
        """What a scheduler calls in each round of its loop: ``heartbeat()``, else ``sync()``."""

    @abc.abstractmethod
    def sync(self) -> None:
        """Call ``sync()`` itself."""

    @abc.abstractmethod
    def events(self, dag_ids: Sequence[str] | None = None) -> Any:
        """Drain the event buffer; the keys are those that were submitted."""

    @abc.abstractmethod
    def end(self) -> None:
        """Finish what was accepted, and stop."""

    def terminate(self) -> None:
        """Stop now.  An adapter either overrides this or lists ``Capability.TERMINATE`` in ``lacks``."""
        raise NotImplementedError(
            f"{type(self).__name__} has no terminate(), and its adapter does not list Capability.TERMINATE"
        )

    def forget(self) -> None:
        """Keep nothing of the tasks so far: none is in flight, and all their events were taken."""
        return

    def future(self, key: TaskKey) -> asyncio.Future[object] | None:
        """What the executor returned for a caller on an event loop to await, if it returns that."""
        return None

    def optional(self, name: str) -> Any:
        """The optional attribute ``name`` of the contract, or :data:`ABSENT`."""
        return getattr(self.executor, name, ABSENT)

    def holds(self, collection: Any, key: TaskKey) -> bool:
        """Whether ``running`` or ``queued_tasks`` contains this key."""
        return key in collection


class _Absent:
    def __repr__(self) -> str:
        return "<absent>"


#: The executor does not have this optional attribute.
ABSENT = _Absent()

#: The argument is left out, so that the executor's own default applies.
DEFAULT = _Absent()


#: What a family lacks unless it says otherwise.
_WITHOUT_COROUTINES = {
    Capability.COROUTINE: "the family runs no coroutine functions",
    Capability.ASYNC: "the family runs no coroutine functions",
}
_WITHOUT_CALLS = {Capability.CALLS: "the executor is not a concurrent.futures.Executor"}


class Adapter(abc.ABC):
    """One family of executors."""

    family: ClassVar[str]
    #: Whether executors of this family may run coroutine functions.
    takes_coroutines: ClassVar[bool] = False
    #: Whether the executor itself is a ``concurrent.futures.Executor``, to be called as one.
    takes_calls: ClassVar[bool] = False
    #: What the family lacks -> the reason; rules that need it are not applicable.
    lacks: ClassVar[Mapping[Capability, str]] = {}
    #: The methods that every executor of this family has.
    required_methods: ClassVar[tuple[str, ...]] = ()
    #: What its constructors call the number of tasks that may run at once.
    parallelism_argument: ClassVar[str] = "parallelism"
    #: What the family calls the calls of the contract, for messages: ``Call.END`` may be ``"shutdown()"``.
    names: ClassVar[Mapping[Call, str]] = {}
    #: What of the family's own code is replaced by a stub of the suite, and by which; shown in every report.
    stubs: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        if not cls.takes_coroutines:
            cls.lacks = {**_WITHOUT_COROUTINES, **cls.lacks}
        if not cls.takes_calls:
            cls.lacks = {**_WITHOUT_CALLS, **cls.lacks}

    @classmethod
    @abc.abstractmethod
    def recognizes(cls, candidate: object) -> bool:
        """Whether this class (or instance) belongs to the family."""

    def arguments(self, parallelism: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        """Keyword arguments for the target; ``parallelism`` may be :data:`DEFAULT`."""
        chosen = {} if parallelism is DEFAULT else {self.parallelism_argument: parallelism}
        return {**options, **chosen}

    def name_of(self, call: str) -> str:
        """What the family calls this call."""
        names: Mapping[Any, str] = self.names
        return names.get(call, str(call))

    @abc.abstractmethod
    def drive(self, executor: Any) -> Driver:
        """Wrap one executor.

        :raises CannotDrive: it belongs to the family, but the suite has no task that it would run.
        """

    def prepare(self, scratch: str) -> None:
        """Set up the environment before the target is imported; ``scratch`` is a directory of the run."""
        return

    def install_stubs(self, scratch: str) -> None:
        """Do what :attr:`stubs` says: the target is imported, and no executor of it has been started."""
        return
