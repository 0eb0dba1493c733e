"""How long work tells that it is under way. The library never prints; the command line shows what it is told."""

from __future__ import annotations

from typing import Protocol


def counted(number: int, thing: str) -> str:
    """How many there are of a thing whose plural has an s: ``1 case``, ``2 cases``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


class Progress(Protocol):
    """What a caller may want to know while it waits."""

    def stage(self, text: str) -> None:
        """A new piece of work begins, or something is worth saying."""

    def advance(self, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` of the present piece are finished; ``note`` says how it goes."""


class Silent:
    """Tells nobody."""

    def stage(self, text: str) -> None:
        """Say nothing."""

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Say nothing."""
