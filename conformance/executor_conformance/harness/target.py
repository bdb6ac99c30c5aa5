"""The executor that the user named: importing it, and the arguments with which it is called."""

from __future__ import annotations

import difflib
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

from executor_conformance.adapters.api import Adapter
from executor_conformance.adapters.registry import adapters


class TargetError(Exception):
    """The target or an option cannot be used; the text is for the user."""


@dataclass(frozen=True)
class Target:
    """What is under test: the callable that makes executors, and its adapter.

    :param spec: ``module:Class`` as the user gave it.
    :param make: called with keyword arguments; returns an executor.
    """

    spec: str
    make: Callable[..., Any]
    adapter: Adapter
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What messages call it: ``ThreadPoolExecutor``."""
        return self.spec.rpartition(":")[2].rpartition(".")[2]

    def arguments(self, parallelism: Any) -> dict[str, Any]:
        """Its keyword arguments; ``parallelism`` may be ``DEFAULT``.

        Where it does not take its family's name for the parallelism, that of another family is tried: a
        function that returns an executor may use either.
        """
        arguments = self.adapter.arguments(parallelism, self.options)
        own = self.adapter.parallelism_argument
        if own in arguments and not _takes(self.make, own):
            for name in sorted({adapter.parallelism_argument for adapter in adapters().values()}):
                if _takes(self.make, name):
                    arguments[name] = arguments.pop(own)
                    break
        return arguments


def import_target(spec: str, family: str, options: Mapping[str, Any], scratch: str) -> Target:
    """Import the target into this process, and install the stubs of its adapter.

    :param family: of the adapter that drives it.
    :param scratch: a directory of the run, for the adapter.
    :raises TargetError: it cannot be imported.
    """
    prepare_import(scratch)
    target = Target(spec, load(spec), adapters()[family](), dict(options))
    target.adapter.install_stubs(scratch)
    return target


def prepare_import(scratch: str) -> None:
    """Let every adapter set up the environment: which one fits is known only after the import."""
    for adapter in adapters().values():
        adapter().prepare(scratch)


def load(spec: str) -> Any:
    """Import ``module:attribute.path``.

    :raises TargetError: it cannot be imported; the text suggests a similar name.
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
            f"--executor={spec!r} is {found!r}, which is not callable: name a class, or a function that "
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


def distribution_of(thing: Any) -> str | None:
    """``"name version"`` of the installed distribution that has this class, or ``None``."""
    module = getattr(thing, "__module__", "") or ""
    package = module.split(".")[0]
    names = metadata.packages_distributions().get(package) or _editable_distributions(package)
    if not names:
        return None
    # Several may share a namespace, as those of Airflow do: take the one with the module's file.
    own = module.replace(".", "/")
    having = (name for name in names if any(_is_module(own, file) for file in metadata.files(name) or ()))
    name = names[0] if len(names) == 1 else next(having, names[0])
    return f"{name} {metadata.version(name)}"


def _is_module(own: str, file: metadata.PackagePath) -> bool:
    return file.as_posix() in (f"{own}.py", f"{own}/__init__.py")


def _editable_distributions(module: str) -> list[str]:
    """Distributions installed in editable mode from a folder with this module: they list no files."""
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
