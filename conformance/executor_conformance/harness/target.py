"""The executor that the user named: importing it, and the arguments with which it is called."""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from typing import Any
from urllib.parse import unquote, urlsplit

from executor_conformance.adapters.api import DEFAULT, Adapter
from executor_conformance.adapters.registry import AdapterError, adapters, check_capabilities
from executor_conformance.requirements import Capability

#: An attribute of a target: what its executors lack.
DECLARATION = "conformance_lacks"
#: What the parallelism is commonly called, besides the names that the adapters know.
_NAMES = (
    "parallelism",
    "max_workers",
    "concurrency",
    "max_concurrency",
    "workers",
    "num_workers",
    "n_workers",
    "nworkers",
    "processes",
    "threads",
    "max_threads",
    "n_jobs",
    "pool_size",
    "slots",
)
#: The words of other names for it.
_QUANTITIES = {"max", "maximum", "num", "number", "of", "n", "count", "limit", "concurrent", "parallel"}
_THINGS = {"tasks", "jobs", "slots", "workers", "threads", "processes", "procs", "concurrency", "parallelism"}


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

    @cached_property
    def lacks(self) -> Mapping[Capability, str]:
        """What its executors lack, as its adapter and the target itself say -> the reason."""
        return {**self.adapter.lacks, **declared_lacks(self.make, self.spec)}

    @cached_property
    def parallelism_argument(self) -> str:
        """What it calls the number of tasks that may run at once; empty if it takes no such argument."""
        return parallelism_argument(self.make, self.adapter.parallelism_argument, self.options)

    @property
    def fixed(self) -> str:
        """Why the suite cannot choose the parallelism; empty if it can."""
        lacking = self.lacks.get(Capability.CHOSEN_PARALLELISM, "")
        if lacking or self.parallelism_argument:
            return lacking
        if given := self.options.keys() & {self.adapter.parallelism_argument, *_NAMES}:
            return f"--executor-option sets {', '.join(sorted(given))}"
        return f"{self.name} takes no parallelism argument"

    def arguments(self, parallelism: Any) -> dict[str, Any]:
        """Its keyword arguments; ``parallelism`` may be ``DEFAULT``.

        Where it does not take its family's name for the parallelism, other common names are tried: a
        function that returns an executor may use any of them.
        """
        arguments = self.adapter.arguments(parallelism, self.options)
        own = self.adapter.parallelism_argument
        if own in arguments and self.parallelism_argument not in ("", own):
            arguments[self.parallelism_argument] = arguments.pop(own)
        return arguments

    def missing_arguments(self) -> list[str]:
        """Required arguments that nothing would pass to it."""
        passed = {*self.options, self.parallelism_argument}
        return [
            parameter.name
            for parameter in _parameters(self.make) or ()
            if parameter.default is parameter.empty
            and parameter.kind
            in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            and (parameter.kind is parameter.POSITIONAL_ONLY or parameter.name not in passed)
        ]

    def parameters(self) -> list[str]:
        """The names of its parameters, as far as its signature shows them."""
        return [each.name for each in _parameters(self.make) or ()]

    def unknown_options(self) -> list[str]:
        """Options that it does not take, as far as its signature shows."""
        parameters = _parameters(self.make)
        if parameters is None or any(each.kind is each.VAR_KEYWORD for each in parameters):
            return []
        passed = self.options.keys() & self.adapter.arguments(DEFAULT, self.options).keys()
        return sorted(passed.difference(self.parameters()))


class LateImport:
    """A target that is imported where it is first called.

    For a target that starts threads or processes when it is imported: what is imported before a fork is of no
    use in the child.

    :param parallelism_argument: the argument of the target that sets the parallelism; empty: it has none.
    :param lacks: what its executors were seen or declared to lack -> the reason.
    """

    def __init__(
        self,
        spec: str,
        adapter: Adapter,
        scratch: str,
        parallelism_argument: str,
        lacks: Mapping[Capability, str],
    ) -> None:
        self.conformance_lacks = lacks
        keyword = inspect.Parameter.KEYWORD_ONLY
        arguments = [inspect.Parameter(parallelism_argument, keyword)] if parallelism_argument else []
        self.__signature__ = inspect.Signature(arguments)  # as inspect.signature() is to see it
        self._spec = spec
        self._adapter = adapter
        self._scratch = scratch
        self._make: Callable[..., Any] | None = None

    def __call__(self, **arguments: Any) -> Any:
        if self._make is None:
            self._make = load(self._spec)
            self._adapter.install_stubs(self._scratch)
        return self._make(**arguments)


def late_target(
    spec: str,
    family: str,
    options: Mapping[str, Any],
    scratch: str,
    *,
    parallelism_argument: str,
    lacks: Mapping[Capability, str],
) -> Target:
    """A target that is not imported into this process; the parameters are those of :class:`LateImport`."""
    prepare_import(scratch)
    adapter = adapters()[family]()
    make = LateImport(spec, adapter, scratch, parallelism_argument, lacks)
    return Target(spec, make, adapter, dict(options))


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


def declared_lacks(thing: Any, spec: str) -> Mapping[Capability, str]:
    """What a target declares that its executors lack, in its attribute ``conformance_lacks``.

    :raises AdapterError: it is no mapping from capabilities to reasons.
    """
    lacks = getattr(thing, DECLARATION, {})
    where = f"--executor={spec!r}: {DECLARATION}"
    if not isinstance(lacks, Mapping):
        raise AdapterError(f"{where} is {lacks!r}, not a dict from Capability to a reason")
    check_capabilities(lacks, where)
    return lacks


def parallelism_argument(make: Callable[..., Any], own: str, options: Mapping[str, Any]) -> str:
    """The argument of ``make`` that is the number of tasks that may run at once; empty if it has none.

    :param own: what the family calls it.
    :param options: arguments that the user has set, which are not the suite's to choose.
    """
    parameters = _parameters(make)
    if parameters is None:  # written in C, for example
        return "" if own in options else own
    named = {
        parameter.name: parameter
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    families = sorted({adapter.parallelism_argument for adapter in adapters().values()})
    for name in (own, *families, *(name for name in _NAMES if _is_a_number(named.get(name)))):
        if name in named:
            return "" if name in options else name
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return "" if own in options else own
    # A class with an argument of a name of its own breaks the contract; one without any is of fixed size.
    misnamed = inspect.isclass(make) and any(
        _is_a_number(parameter) and _reads_like_one(name)
        for name, parameter in named.items()
        if name not in options
    )
    return own if misnamed else ""


def _parameters(make: Callable[..., Any]) -> list[inspect.Parameter] | None:
    try:
        return list(inspect.signature(make).parameters.values())
    except (TypeError, ValueError):
        return None


def _is_a_number(parameter: inspect.Parameter | None) -> bool:
    """Whether a parameter may be for an integer, judging by its default and its annotation."""
    if parameter is None:
        return False
    default, annotation = parameter.default, parameter.annotation
    if default is not parameter.empty and default is not None:
        return type(default) is int
    return annotation is parameter.empty or re.search(r"\bint\b", str(annotation)) is not None


def _reads_like_one(name: str) -> bool:
    """Whether a name consists of words such as those of ``max_tasks``."""
    words = set(name.lower().split("_"))
    return words <= _QUANTITIES | _THINGS and bool(words & _THINGS)


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
