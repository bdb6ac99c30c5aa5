"""Keeps the values of secret options out of everything that the suite writes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

HIDDEN = "***"
#: A name that contains one of these is secret.
_WORDS = ("token", "password", "passwd", "pwd", "secret", "credential")
#: So is a name whose last word is "key", alone or after one of these: a routing key is not.
_KEYS = frozenset({"", "access", "account", "api", "auth", "encryption", "private", "secret", "signing"})
#: Shorter texts are found in many words, so only the whole argument is hidden.
_SHORTEST = 4
#: At least this much of a secret is hidden where a text was cut.
_PREFIX = 8


class Secrets:
    """The secret options of a run.

    :param options: all options.
    :param named: names that the user gave with ``--conformance-redact``.
    """

    def __init__(self, options: Mapping[str, Any], named: Collection[str] = ()) -> None:
        self._named = frozenset(named)
        self._patterns: list[tuple[re.Pattern[str], str]] = []
        texts: set[str] = set()
        for name, value in self._secret_values(options):
            self._add(re.escape(f"{name}={value!r}"), f"{name}={HIDDEN}")
            texts.update(_texts(value))
        for text in sorted(texts, key=len, reverse=True):
            self._add(re.escape(text), HIDDEN)
            prefix = text[: max(_PREFIX, 2 * len(text) // 3)]
            if len(prefix) < len(text):
                self._add(re.escape(prefix) + r"\S*", HIDDEN)

    def _add(self, pattern: str, replacement: str) -> None:
        self._patterns.append((re.compile(rf"(?<!\w){pattern}(?!\w)"), replacement))

    def _secret_values(self, options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, value in options.items():
            if self.is_secret(name):
                yield name, value
            elif isinstance(value, Mapping):
                yield from self._secret_values(value)

    def is_secret(self, name: str) -> bool:
        """Whether the option of this name is secret."""
        words = [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)]
        is_key = words[-1:] in (["key"], ["apikey"]) and (words[-2:-1] or [""])[0] in _KEYS
        return name in self._named or is_key or any(word in name.lower() for word in _WORDS)

    def hide(self, text: str) -> str:
        """The text with ``***`` in place of each secret."""
        for pattern, replacement in self._patterns:
            text = pattern.sub(lambda _: replacement, text)  # noqa: B023
        return text

    def shown(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options as reports show them."""
        return {
            name: HIDDEN
            if self.is_secret(name)
            else self.shown(value)
            if isinstance(value, Mapping)
            else value
            for name, value in options.items()
        }

    def shown_line(self, line: str) -> str:
        """An option as it was given, ``name=value``, with its secrets hidden."""
        name = line.partition("=")[0].strip()
        return f"{name}={HIDDEN}" if self.is_secret(name) else self.hide(line)


def _texts(value: Any) -> Iterator[str]:
    """The texts in a value that a message could contain; a number could be any other."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str) and len(value) >= _SHORTEST:
        yield value
        yield repr(value)[1:-1]
