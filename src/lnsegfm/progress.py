"""How long work tells that it is under way. The library never prints; the command line shows what it is told."""

from __future__ import annotations

from typing import Protocol


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
