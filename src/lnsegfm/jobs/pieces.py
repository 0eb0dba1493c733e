"""Work on many items that several processes share: each leaves what it made as a file; whoever finds all gathers it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from lnsegfm.errors import DataError
from lnsegfm.jobs.parts import ListPart, PartsPending
from lnsegfm.progress import Progress
from lnsegfm.storage import read_json, write_json

PIECE_FORMAT = "lnsegfm.piece/1"
T = TypeVar("T")


@dataclass(frozen=True)
class ItemWork(Generic[T]):
    """What is made of items, one by one.

    Args:
        names: The items.
        identity: Changes with an item or with anything else that the work depends on.
        make: Makes what belongs to the item of a number.
        to_json: That as JSON holds it.
        from_json: What ``to_json`` gave.
    """

    names: Sequence[str]
    identity: str
    make: Callable[[int], T]
    to_json: Callable[[T], Any]
    from_json: Callable[[Any], T]

    def each(self, progress: Progress | None, part: ListPart | None = None) -> list[T]:
        """Do the work on all items, or those of a part, one after the other."""
        numbers = range(len(self.names))
        mine = part.take(numbers) if part is not None else numbers
        made = []
        for done, number in enumerate(mine, start=1):
            made.append(self.make(number))
            if progress is not None:
                progress.advance(done, len(mine), self.names[number])
        return made


class WorkSharer(Protocol):
    """Does work on items, wherever that is; gives what was made of each, in their order."""

    def __call__(self, work: ItemWork[T], progress: Progress | None) -> list[T]:
        """Do it."""


def do_here(work: ItemWork[T], progress: Progress | None) -> list[T]:
    """The `WorkSharer` that shares nothing: one item after the other in this process."""
    return work.each(progress)


@dataclass
class Pieces:
    """The files that parts leave for each other.

    Args:
        place: Their folder.
        gathers: Whether a part that finds all others goes on with what all made.
        complete: Whether all was gathered.
    """

    place: Path
    gathers: bool = True
    complete: bool = False

    def do_part(self, part: ListPart, work: ItemWork[T], progress: Progress | None) -> list[T]:
        """Do a part, unless that is done, and give what was made of all items where no part lacks.

        Raises:
            PartsPending: Other parts are not done.
        """
        if (mine := self._read(work, part)) is None:
            mine = work.each(progress, part)
            content = {"format": PIECE_FORMAT, "items": [work.to_json(one) for one in mine]}
            write_json(self._file(work, part), content)
        lacking = [number for number, piece in self._found(work, part.of).items() if piece is None]
        if lacking or not self.gathers:
            raise PartsPending(part, len(mine), lacking)
        return self.gather(work, part.of)

    def gather(self, work: ItemWork[T], parts: int) -> list[T]:
        """What was made of all items.

        Raises:
            DataError: A part lacks.
        """
        found = self._found(work, parts)
        if lacking := [number for number, piece in found.items() if piece is None]:
            numbers = ", ".join(map(str, lacking))
            raise DataError(f"{self.place}: parts {numbers} of {parts} left nothing. Run the same command again.")
        self.complete = True
        waiting = {number: iter(piece or ()) for number, piece in found.items()}
        return [next(waiting[index % parts + 1]) for index in range(len(work.names))]

    def _found(self, work: ItemWork[T], parts: int) -> dict[int, list[T] | None]:
        return {number: self._read(work, ListPart(number, parts)) for number in range(1, parts + 1)}

    def _read(self, work: ItemWork[T], part: ListPart) -> list[T] | None:
        """What a part left; None where it left nothing that can be read."""
        try:
            content = read_json(self._file(work, part))
            if content["format"] != PIECE_FORMAT:
                return None
            found = [work.from_json(each) for each in content["items"]]
        except (DataError, KeyError, TypeError, ValueError, AttributeError):
            return None
        return found if len(found) == len(part.take(work.names)) else None

    def _file(self, work: ItemWork[T], part: ListPart) -> Path:
        return self.place / work.identity[:16] / f"{part.number}-of-{part.of}.json"


@dataclass
class DoneByOthers:
    """A `WorkSharer` that has parts done by other processes, once, and gathers what they left.

    Args:
        pieces: Where they leave it.
        run: Has the work on items of these names done in parts; gives how many parts these were.
    """

    pieces: Pieces
    run: Callable[[Sequence[str]], int]
    _parts: list[int] = field(default_factory=list)

    def __call__(self, work: ItemWork[T], progress: Progress | None) -> list[T]:  # noqa: ARG002
        """Have it done."""
        if not self._parts:
            self._parts.append(self.run(work.names))
        return self.pieces.gather(work, self._parts[0])


def file_identity(file: Path | None) -> list[Any]:
    """A file and its content, as far as size and time tell."""
    try:
        known = file.stat() if file is not None else None
    except OSError:
        known = None
    return [str(file.resolve()) if file is not None else "", *((known.st_size, known.st_mtime_ns) if known else ())]
