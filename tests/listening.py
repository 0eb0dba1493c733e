"""Progress that tests listen to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lnsegfm.progress import Progress


class OnAdvance(Progress):
    """Calls a function with what `Progress.advance` is given."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def advance(self, done: int, total: int, note: str = "") -> None:
        self._function(done, total, note)


class Stages(Progress):
    """Keeps the texts of the stages."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def stage(self, text: str) -> None:
        self.lines.append(text)


class SetClock:
    """A clock that shows what a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now
