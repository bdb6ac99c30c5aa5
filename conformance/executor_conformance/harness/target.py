"""Finds the executor that the user named, and gets acquainted with it, in processes that may be lost."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any
from urllib.parse import unquote, urlsplit

from executor_conformance.driving import Adapter


class TargetError(Exception):
    """The target, an option or an adapter cannot be used; the text is for the user."""


@dataclass(frozen=True)
class Target:
    """What is under test: the callable that makes executors, and its adapter.

    :param spec: ``module:Class`` as the user gave it.
    :param make: called with keyword arguments, returns an executor.
    """

    spec: str
    make: Callable[..., Any]
    adapter: Adapter
    options: Mapping[str, Any] = field(default_factory=dict)
    importable: bool = True

    def arguments(self, parallelism: Any) -> dict[str, Any]:
        """What it is called with; ``parallelism`` may be ``DEFAULT``.

        Where it does not take its family's own name for the parallelism, that of another family: a function
        that returns an executor may have been written before its author knew of families.
        """
        arguments = self.adapter.arguments(parallelism, self.options)
        own = self.adapter.parallelism_argument
        if own in arguments and not _takes(self.make, own):
            for name in sorted({adapter.parallelism_argument for adapter in adapters().values()}):
                if _takes(self.make, name):
                    arguments[name] = arguments.pop(own)
                    break
        return arguments


def load(spec: str) -> Any:
    """Import ``module:attribute.path``.

    :raises TargetError: with what was not found, and what comes near.
    """
    module_name, colon, path = spec.partition(":")
    if not colon or not module_name or not path:
        hint = ""
        if not colon and "." in spec:
            left, _, right = spec.rpartition(".")
            hint = f"; did you mean {left}:{right}?"
        raise TargetError(f"--executor={spec!r} is not of the form module:Class{hint}")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(missing + "."):
            raise TargetError(
                f"--executor={spec!r}: there is no module {missing!r}{_near_module(missing)}; looked in the "
                f"working directory {os.getcwd()} and in the environment of {sys.executable}"
            ) from None
        raise TargetError(
            f"--executor={spec!r}: importing {module_name} failed: {type(error).__name__}: {error}"
        ) from error
    except (Exception, SystemExit) as error:  # a script without a main guard
        raise TargetError(
            f"--executor={spec!r}: importing {module_name} failed: {type(error).__name__}: {error}"
        ) from error
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            near = difflib.get_close_matches(name, [n for n in dir(found) if not n.startswith("_")], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TargetError(f"--executor={spec!r}: {module_name} has no {name!r}{hint}") from None
    if not callable(found):
        raise TargetError(
            f"--executor={spec!r} is {found!r}, which cannot be called: name a class, or a function that "
            "returns an executor"
        )
    return found


def _near_module(name: str) -> str:
    import pkgutil

    top = name.split(".")[0]
    known = {module.name for module in pkgutil.iter_modules()}
    near = difflib.get_close_matches(top, sorted(known), n=1)
    return f"; did you mean {near[0]!r}?" if near and near[0] != top else ""


def _takes(make: Callable[..., Any], name: str) -> bool:
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # written in C, for example
        return True
    return any(
        parameter.kind is parameter.VAR_KEYWORD
        or (parameter.name == name and parameter.kind is not parameter.POSITIONAL_ONLY)
        for parameter in parameters
    )


@functools.cache  # every file of every installed distribution is looked at
def adapters() -> dict[str, type[Adapter]]:
    """Family -> adapter class, from the entry points ``executor_conformance.adapters``."""
    return {
        point.name: point.load() for point in metadata.entry_points(group="executor_conformance.adapters")
    }


def choose_adapter(thing: Any, named: str | None, spec: str) -> type[Adapter] | None:
    """The adapter for a class or an instance; ``None`` for a function whose product must be seen first.

    :raises TargetError: no adapter has that name, or none recognises the class.
    """
    known = adapters()
    if named is not None:
        if named not in known:
            near = difflib.get_close_matches(named, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TargetError(
                f"--executor-adapter={named!r}: no such adapter{hint} (there are: {', '.join(sorted(known))})"
            )
        return known[named]
    if inspect.isroutine(thing) or (callable(thing) and not inspect.isclass(thing)):
        return None
    return recognise(thing, spec)


def recognise(thing: Any, spec: str) -> type[Adapter]:
    """The adapter whose family this class or instance belongs to.

    :raises TargetError: there is none.
    """
    known = adapters()
    # The general families last: a subclass of Airflow's BaseExecutor may well look native too.
    for name in sorted(known, key=lambda family: (family == "native", family)):
        if known[name].recognises(thing):
            return known[name]
    what = thing.__name__ if inspect.isclass(thing) else f"an instance of {type(thing).__name__}"
    raise TargetError(
        f"--executor={spec!r}: {what} is of no family that an adapter knows ({', '.join(sorted(known))}): a "
        "native executor has execute_async, sync and end; name the family with --executor-adapter"
    )


def distribution_of(thing: Any) -> str | None:
    """``"name version"`` of the installed distribution that has this class, or ``None``."""
    module = getattr(thing, "__module__", "") or ""
    package = module.split(".")[0]
    names = metadata.packages_distributions().get(package) or _editable_distributions(package)
    if not names:
        return None
    # Several may share a namespace, as those of Airflow do: the one that has the module's own file is meant.
    own = module.replace(".", "/")
    having = (name for name in names if any(_is_module(own, file) for file in metadata.files(name) or ()))
    name = names[0] if len(names) == 1 else next(having, names[0])
    return f"{name} {metadata.version(name)}"


def _is_module(own: str, file: metadata.PackagePath) -> bool:
    return file.as_posix() in (f"{own}.py", f"{own}/__init__.py")


def _editable_distributions(module: str) -> list[str]:
    """Distributions installed in editable mode from a folder that has this module: they list no files."""
    file = os.path.realpath(getattr(sys.modules.get(module), "__file__", None) or os.devnull)
    found = []
    for distribution in metadata.distributions():
        try:
            source = json.loads(distribution.read_text("direct_url.json") or "{}")
        except ValueError:
            continue
        folder = unquote(urlsplit(source.get("url", "")).path)
        if source.get("dir_info", {}).get("editable") and file.startswith(f"{folder}{os.sep}"):
            found.append(distribution.metadata["Name"])
    return found
