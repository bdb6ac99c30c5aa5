"""Tests of what is hidden, and of what is not."""

from __future__ import annotations

from typing import Any

import pytest

from executor_conformance.plugin.secrets import Secrets


@pytest.mark.parametrize(
    "name",
    [
        *(
            "token",
            "api_token",
            "accessToken",
            "PASSWORD",
            "db_passwd",
            "pwd",
            "client_secret",
            "credentials",
        ),
        *("key", "api_key", "apikey", "apiKey", "private_key", "secret_access_key"),
    ],
)
def test_secret_names(name: str) -> None:
    assert Secrets({}).is_secret(name)


@pytest.mark.parametrize("name", ["routing_key", "keys", "key_size", "monkey", "parallelism", "url"])
def test_other_names(name: str) -> None:
    assert not Secrets({}).is_secret(name)
    assert Secrets({}, [name]).is_secret(name)


@pytest.mark.parametrize(
    ("options", "text", "shown"),
    [
        ({"token": "hunter2"}, "connecting with hunter2", "connecting with ***"),
        ({"token": "hunter2"}, "make(token='hunter2', n=2)", "make(token=***, n=2)"),
        ({"token": "task"}, "4 tasks, one task", "4 tasks, one ***"),
        ({"token": "ab"}, "make(token='ab'), absent", "make(token=***), absent"),
        ({"token": 1234}, "make(token=1234), 1234 s", "make(token=***), 1234 s"),
        ({"urls": ["amqp://a:b@c"]}, "to ['amqp://a:b@c']", "to ['***']"),
        ({"config": {"password": "hunter2"}}, "{'password': 'hunter2'}", "{'password': '***'}"),
        ({"token": "0123456789abcdefghij"}, "run --token 0123456789abcdefg", "run --token ***"),
    ],
)
def test_texts(options: dict[str, Any], text: str, shown: str) -> None:
    assert Secrets(options, ["urls"]).hide(text) == shown


def test_options_are_shown_without_their_secrets() -> None:
    options = {"api_key": "hunter2", "config": {"password": "hunter2", "size": 2}, "url": "x"}
    shown = {"api_key": "***", "config": {"password": "***", "size": 2}, "url": "x"}
    assert Secrets(options).shown(options) == shown
    assert Secrets(options).shown_line("api_key=hunter2") == "api_key=***"
    assert Secrets(options).shown_line('config={password="hunter2"}') == 'config={password="***"}'
