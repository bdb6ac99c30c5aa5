"""The small parts: commands, keys, and the table of states."""

from __future__ import annotations

import functools
import marshal
import os
import shlex
import sys
from collections.abc import Callable

import pytest

from executor_reference import TaskKey, orders
from executor_reference.commands import Argv, Call, parse
from executor_reference.interpreter import find_function
from executor_reference.states import FAILED, QUEUED, RUNNING, SUCCESS, TERMINAL, TRANSITIONS
from executor_reference.task import CALL, EXECUTE


@pytest.mark.parametrize(
    ("words", "module"),
    [
        ((sys.executable, "-m", "package.module"), "package.module"),
        ((sys.executable, "-m", "package.module", "an argument"), "package.module"),
        ((sys.executable, "-m"), None),
        ((sys.executable, "-u", "-m", "package.module"), None),
        ((sys.executable, "script.py"), None),
        (("/another/python", "-m", "package.module"), None),
    ],
)
def test_only_a_module_of_this_interpreter_can_be_run_in_a_fork(
    words: tuple[str, ...], module: str | None
) -> None:
    assert parse(list(words)) == Argv(words)
    assert Argv(words).module == module


def test_a_command_is_a_copy() -> None:
    words = ["echo", "a"]
    command = parse(words)
    words.append("b")
    assert command == Argv(("echo", "a"))


def test_a_callable_stays_what_it_is() -> None:
    assert parse(print) == Call(print)


class _Word(str):
    """Not what marshal takes."""


class _Place:
    @staticmethod
    def of_a_class() -> str:
        return "reached"


@pytest.mark.parametrize(
    ("function", "returns", "named"),
    [
        pytest.param(_Place.of_a_class, "reached", True, id="in a class"),
        pytest.param(functools.partial(shlex.join, ["a b"]), "'a b'", False, id="a list"),
        pytest.param(functools.partial(shlex.quote, "a b"), "'a b'", True, id="an argument"),
        pytest.param(functools.partial(shlex.quote, s="a b"), "'a b'", False, id="by its name"),
        pytest.param(functools.partial(shlex.quote, _Word("a b")), "'a b'", False, id="a subclass"),
        pytest.param(functools.partial(bytes, bytearray(b"a")), b"a", False, id="not a function"),
        pytest.param(os.getpid, os.getpid(), False, id="built in"),
    ],
)
def test_an_order_brings_a_callable_over(
    function: Callable[[], object], returns: object, named: bool
) -> None:
    what, how = marshal.loads(orders.pack(Call(function).instruction))
    found, arguments = find_function(how)
    assert (what, found(*arguments)) == (CALL, returns)
    assert isinstance(orders.portable(function), tuple) is named


def test_an_order_brings_words_over() -> None:
    order = orders.pack(parse([_Word("echo"), "\udcff"]).instruction)
    assert marshal.loads(order) == (EXECUTE, ("echo", "\udcff"))


def test_a_key_has_the_fields_of_a_task_instance() -> None:
    assert TaskKey._fields == ("dag_id", "task_id", "run_id", "try_number", "map_index")
    assert TaskKey("dag", "task", "run") == ("dag", "task", "run", 1, -1)


def test_the_table_of_states_ends_in_terminal_states() -> None:
    assert set(TRANSITIONS) == {QUEUED, RUNNING, SUCCESS, FAILED}
    assert {SUCCESS, FAILED} == TERMINAL
    assert all(following <= set(TRANSITIONS) for following in TRANSITIONS.values())
    assert all(TRANSITIONS[state] for state in TRANSITIONS if state not in TERMINAL)
