"""Tables of a study's file: keys that are known, values of their kind, and errors that name file and key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lnsegfm.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ =+-]*")
"""Names of data, bases and methods: they become parts of keys and of files' names."""


@dataclass(frozen=True)
class TomlPart:
    """A table of a TOML file.

    Args:
        content: Its keys and values.
        where: File and table, for messages.
        kind: What it describes, for messages.
    """

    content: Mapping[str, Any]
    where: str
    kind: str

    def __bool__(self) -> bool:
        return bool(self.content)

    def only(self, keys: Iterable[str]) -> None:
        """Refuse keys that are not known.

        Raises:
            ConfigError: There is one; the nearest that is known is named.
        """
        known = list(keys)
        for key in self.content:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                remedy = f"Write {near[0]}." if near else f"Its keys: {', '.join(sorted(known))}."
                raise ConfigError(f"{self.where}: {key}: a {self.kind} has no such key. {remedy}")

    def known(self, key: str, name: str, names: Collection[str]) -> None:
        """Refuse a name that nothing has.

        Raises:
            ConfigError: Nothing has it.
        """
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            remedy = f"Write {near[0]}." if near else f"There are: {', '.join(names)}."
            raise ConfigError(f"{self.where}: {key} = {name!r}: nothing of this name is declared. {remedy}")

    def table(self, key: str, *, needed: bool = False) -> TomlPart:
        """A table below; an empty one where there is none.

        Raises:
            ConfigError: It is none, or is needed and missing.
        """
        found = self.content.get(key, {})
        if not isinstance(found, Mapping):
            raise ConfigError(f"{self.where}: {key}: a table is needed. Write [{key}] and its keys below.")
        if needed and not found:
            raise ConfigError(f"{self.where}: {key}: it is missing. Write a table [{key}...] with at least one entry.")
        return TomlPart(found, f"{self.where}: {key}", key)

    def tables(self) -> dict[str, TomlPart]:
        """The tables below by their names.

        Raises:
            ConfigError: An entry that is no table, or a name that cannot be part of a file's name.
        """
        for name, content in self.content.items():
            _require_name(name, self.where)
            if not isinstance(content, Mapping):
                raise ConfigError(f"{self.where}.{name}: a table is needed. Write [{self.kind}.{name}].")
        return {name: TomlPart(content, f"{self.where}.{name}", self.kind) for name, content in self.content.items()}

    def texts(self) -> dict[str, str]:
        """The entries, all of which are texts.

        Raises:
            ConfigError: One is none.
        """
        for name in self.content:
            _require_name(name, self.where)
        return {name: self.text(name) for name in self.content}

    def text(self, key: str, default: str | None = None) -> str:
        """A text.

        Raises:
            ConfigError: It is none, or missing without a default.
        """
        value = self._value(key, default, 'a text in quotes, such as "folder"')
        if not isinstance(value, str):
            raise self._wrong(key, value, "a text in quotes")
        return value

    def number(self, key: str, *, least: int, default: int | None = None) -> int:
        """A whole number.

        Raises:
            ConfigError: It is none, too small, or missing without a default.
        """
        value = self._value(key, default, "a whole number")
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self._wrong(key, value, f"a whole number from {least}")
        return value

    def numbers(self, key: str, *, least: int) -> tuple[int, ...]:
        """A whole number, or a list of different ones.

        Raises:
            ConfigError: Something else.
        """
        value = self._value(key, None, "a list of whole numbers, such as [1, 5]")
        listed = value if isinstance(value, list) else [value]
        good = [each for each in listed if isinstance(each, int) and not isinstance(each, bool) and each >= least]
        if not listed or len(good) < len(listed) or len(set(good)) < len(good):
            raise self._wrong(key, value, f"different whole numbers from {least}, such as [1, 5]")
        return tuple(good)

    def words(self, key: str) -> tuple[str, ...]:
        """A list of texts; empty where there is none.

        Raises:
            ConfigError: Something else.
        """
        value = self.content.get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self._wrong(key, value, 'a list of texts, such as ["a", "b"]')
        return tuple(value)

    def cases(self, key: str) -> int | tuple[str, ...]:
        """A number of cases, or their names.

        Raises:
            ConfigError: Something else.
        """
        return self.words(key) if isinstance(self.content.get(key, []), list) else self.number(key, least=1)

    def flag(self, key: str) -> bool:
        """True or false; false where it is missing.

        Raises:
            ConfigError: Something else.
        """
        value = self.content.get(key, False)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def _value(self, key: str, default: Any, wanted: str) -> Any:
        value = self.content.get(key, default)
        if value is None:
            raise ConfigError(f"{self.where}: {key}: it is missing. Write {key} = and {wanted}.")
        return value

    def _wrong(self, key: str, value: Any, wanted: str) -> ConfigError:
        return ConfigError(f"{self.where}: {key} = {value!r}: it cannot stand there. Write {wanted}.")


def _require_name(name: str, where: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError(f"{where}: {name!r}: it cannot be a name. Use letters, digits, blanks and . _ = + - in it.")
