"""Pieces of the lines that people read."""

from __future__ import annotations

from collections.abc import Sequence


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
