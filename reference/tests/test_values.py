"""The small parts: commands, keys, and the table of states."""

from __future__ import annotations

import sys

import pytest

from executor_reference import TaskKey
from executor_reference.commands import Argv, Call, parse
from executor_reference.states import FAILED, QUEUED, RUNNING, SUCCESS, TERMINAL, TRANSITIONS


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


def test_a_key_has_the_fields_of_a_task_instance() -> None:
    assert TaskKey._fields == ("dag_id", "task_id", "run_id", "try_number", "map_index")
    assert TaskKey("dag", "task", "run") == ("dag", "task", "run", 1, -1)


def test_the_table_of_states_ends_in_terminal_states() -> None:
    assert set(TRANSITIONS) == {QUEUED, RUNNING, SUCCESS, FAILED}
    assert {SUCCESS, FAILED} == TERMINAL
    assert all(following <= set(TRANSITIONS) for following in TRANSITIONS.values())
    assert all(TRANSITIONS[state] for state in TRANSITIONS if state not in TERMINAL)
