"""Tests of commands, orders, keys, and the table of states."""

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
def test_module_of_this_interpreter_is_recognized(words: tuple[str, ...], module: str | None) -> None:
    assert parse(list(words)) == Argv(words)
    assert Argv(words).module == module


def test_argv_is_copied() -> None:
    words = ["echo", "a"]
    command = parse(words)
    words.append("b")
    assert command == Argv(("echo", "a"))


def test_callable_is_kept() -> None:
    assert parse(print) == Call(print)


class _Word(str):
    """A subclass of str, which marshal rejects."""


class _Class:
    @staticmethod
    def method() -> str:
        return "reached"


@pytest.mark.parametrize(
    ("function", "returns", "by_name"),
    [
        pytest.param(_Class.method, "reached", True, id="static method"),
        pytest.param(functools.partial(shlex.join, ["a b"]), "'a b'", False, id="list argument"),
        pytest.param(functools.partial(shlex.quote, "a b"), "'a b'", True, id="str argument"),
        pytest.param(functools.partial(shlex.quote, s="a b"), "'a b'", False, id="keyword argument"),
        pytest.param(functools.partial(shlex.quote, _Word("a b")), "'a b'", False, id="subclass of str"),
        pytest.param(functools.partial(bytes, bytearray(b"a")), b"a", False, id="class"),
        pytest.param(os.getpid, os.getpid(), False, id="built-in function"),
    ],
)
def test_order_transfers_a_callable(function: Callable[[], object], returns: object, by_name: bool) -> None:
    what, how = marshal.loads(orders.pack(Call(function).instruction))
    found, arguments = find_function(how)
    assert (what, found(*arguments)) == (CALL, returns)
    assert isinstance(orders.portable(function), tuple) is by_name


def test_order_transfers_an_argv() -> None:
    order = orders.pack(parse([_Word("echo"), "\udcff"]).instruction)
    assert marshal.loads(order) == (EXECUTE, ("echo", "\udcff"))


def test_task_key_has_the_fields_of_airflow() -> None:
    assert TaskKey._fields == ("dag_id", "task_id", "run_id", "try_number", "map_index")
    assert TaskKey("dag", "task", "run") == ("dag", "task", "run", 1, -1)


def test_only_terminal_states_have_no_transitions() -> None:
    assert set(TRANSITIONS) == {QUEUED, RUNNING, SUCCESS, FAILED}
    assert {SUCCESS, FAILED} == TERMINAL
    assert all(following <= set(TRANSITIONS) for following in TRANSITIONS.values())
    assert all(TRANSITIONS[state] for state in TRANSITIONS if state not in TERMINAL)
