"""One of several parts of a list, for people with a scheduler of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from lnsegfm.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class ListPart:
    """Every ``of``-th item of a list, beginning with the ``number``-th.

    Args:
        number: Which part, from 1.
        of: How many there are.

    Raises:
        ConfigError: There is no such part.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise ConfigError(f"--part {self}: parts are numbered from 1 to their number. Write --part 1/4.")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> ListPart:
        """Read ``i/n``.

        Raises:
            ConfigError: Something else.
        """
        match = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text)
        if match is None:
            raise ConfigError(f"--part {text}: not I/N. Write --part 1/4 for the first of four parts.")
        return cls(int(match[1]), int(match[2]))

    def take(self, items: Sequence[T]) -> list[T]:
        """The items of this part; the parts of a list hold each item once."""
        return list(items[self.number - 1 :: self.of])


class PartsPending(Exception):
    """A part is done, and others are not yet.

    Args:
        part: The part.
        items: How many items it has.
        lacking: Numbers of the parts that are not done.
        what: What was done with the items, in a word, where the work has several steps.
    """

    def __init__(self, part: ListPart, items: int, lacking: Sequence[int], what: str = "") -> None:
        super().__init__(f"part {part} is done, {len(lacking)} of {part.of} parts are not")
        self.part, self.items, self.lacking, self.what = part, items, tuple(lacking), what

    def to_json(self) -> dict[str, object]:
        """For a program to read."""
        step = {"step": self.what} if self.what else {}
        return {"part": str(self.part), "items": self.items, "lacking": list(self.lacking), **step}
