"""Pieces of the lines that people read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def printable(text: str) -> str:
    """A line without what would move a terminal's cursor: messages hold names from files of strangers."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def listed(names: Sequence[str], shown: int = 8) -> str:
    """Names in a line, the first of them and how many there are besides: ``a, b and 3 others``."""
    if len(names) <= shown:
        return ", ".join(names)
    return f"{', '.join(names[:shown])} and {counted(len(names) - shown, 'other')}"


def counted(number: int, noun: str) -> str:
    """How many there are of a noun whose plural has an s: ``1 case``, ``2 cases``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that two records state differently: ``iterations 400, not 500``.

    Args:
        before: The record that is there.
        now: Its counterpart, of plain values.

    Returns:
        A line for each setting that differs. What one of the two does not state, as versions differ in what they
        record, and what is empty in both, however it is written, is left out.
    """
    then, here = (json.loads(json.dumps(record, default=str)) for record in (before, now))
    both = [key for key in here if key in then]
    return [
        f"{key} {_setting(then[key])}, not {_setting(here[key])}"
        for key in both
        if then[key] != here[key] and (then[key] or here[key])
    ]


def _setting(value: Any) -> str:
    """A value as a person would write it."""
    if value is None or value in ([], {}):
        return "none"
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_setting(inner)}" for key, inner in value.items())
    return listed([str(each) for each in value], 3) if isinstance(value, list) else str(value)
