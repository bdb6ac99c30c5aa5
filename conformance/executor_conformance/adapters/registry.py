"""The adapters that are installed, and which of them fits an executor."""

from __future__ import annotations

import difflib
import enum
import functools
import inspect
from collections.abc import Iterable
from importlib import metadata
from typing import Any

from executor_conformance.adapters.api import Adapter
from executor_conformance.contract import Call
from executor_conformance.requirements import Capability

ENTRY_POINTS = "executor_conformance.adapters"


class AdapterError(Exception):
    """No adapter fits, or an installed one is wrong; the text is for the user."""


def adapters() -> dict[str, type[Adapter]]:
    """Family -> adapter class, from the entry points; without those that are :func:`unusable`."""
    return _load()[0]


def unusable() -> dict[str, str]:
    """Installed adapters that cannot be used: family -> the reason, for the user.

    Any installed package may provide one, so it is an error only for those who ask for it.
    """
    return _load()[1]


@functools.cache  # the files of every installed distribution are looked at
def _load() -> tuple[dict[str, type[Adapter]], dict[str, str]]:
    found: dict[str, type[Adapter]] = {}
    wrong: dict[str, str] = {}
    for point in metadata.entry_points(group=ENTRY_POINTS):
        what = f"adapter {point.name!r} ({point.value})"
        try:
            adapter = point.load()
            check(adapter, what)
        except AdapterError as error:
            wrong[point.name] = str(error)
        except Exception as error:  # whatever a module of somebody else raises on import
            wrong[point.name] = f"{what} cannot be imported: {type(error).__name__}: {error}"
        else:
            found[point.name] = adapter
    return found, wrong


def check(adapter: Any, what: str) -> None:
    """Check what an adapter class declares.

    :raises AdapterError: it is no adapter, or names a call or a capability that does not exist.
    """
    if not (inspect.isclass(adapter) and issubclass(adapter, Adapter)):
        raise AdapterError(f"{what} is {adapter!r}, not a subclass of executor_conformance.adapters.Adapter")
    _check_keys(adapter.names, Call, f"{what}: names")
    check_capabilities(adapter.lacks, f"{what}: lacks")


def check_capabilities(lacks: Iterable[Any], where: str) -> None:
    """Check the keys of ``lacks``, of an adapter or a target.

    :raises AdapterError: one of them is no capability.
    """
    _check_keys(lacks, Capability, where)


def _check_keys(keys: Iterable[Any], kind: type[enum.Enum], where: str) -> None:
    for key in keys:
        if not isinstance(key, kind):
            known = {member.name: member for member in kind} | {str(member.value): member for member in kind}
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.4)
            hint = f"; did you mean {kind.__name__}.{known[near[0]].name}?" if near else ""
            raise AdapterError(f"{where} has the key {key!r}, which is not a {kind.__name__}{hint}")


def choose(thing: Any, named: str | None, spec: str) -> type[Adapter] | None:
    """The adapter for a class or an instance; ``None`` for a function, whose product must be seen first.

    :raises AdapterError: there is no adapter with that name, or none recognizes the class.
    """
    known = adapters()
    if named is not None:
        if named in unusable():
            raise AdapterError(f"--executor-adapter={named!r}: {unusable()[named]}")
        if named not in known:
            near = difflib.get_close_matches(named, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise AdapterError(
                f"--executor-adapter={named!r}: no such adapter{hint} (installed: {', '.join(sorted(known))})"
            )
        return known[named]
    if inspect.isroutine(thing) or (callable(thing) and not inspect.isclass(thing)):
        return None
    return recognize(thing, spec)


def recognize(thing: Any, spec: str) -> type[Adapter]:
    """The adapter whose family this class or instance belongs to.

    :raises AdapterError: there is none.
    """
    known = adapters()
    # The general family last: a subclass of Airflow's BaseExecutor may well look native too.
    for name in sorted(known, key=lambda family: (family == "native", family)):
        if known[name].recognizes(thing):
            return known[name]
    what = thing.__name__ if inspect.isclass(thing) else f"an instance of {type(thing).__name__}"
    raise AdapterError(
        f"--executor={spec!r}: no adapter recognizes {what} (installed: {', '.join(sorted(known))}). A "
        "native executor has execute_async(), sync() and end(); use --executor-adapter for one of another "
        "family that was not detected"
    )
