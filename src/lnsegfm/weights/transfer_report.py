"""What became of a base's weights in a network: counts for each stretch of it, names, and the tables people read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

SHOWN = 5


class TransferStatus(StrEnum):
    """What became of one tensor of the network."""

    MATCHED = "matched"
    """Taken over as it is."""
    ADAPTED = "adapted"
    """Made to fit: rows of a head, input channels, extent of kernels, positions."""
    FRESH = "fresh"
    """Left at the network's own initialisation."""


@dataclass(frozen=True)
class StatusCounts:
    """How many of something had which fate."""

    matched: int = 0
    adapted: int = 0
    fresh: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.matched + self.adapted + self.fresh

    def plus(self, fate: TransferStatus, number: int = 1) -> StatusCounts:
        """With some more."""
        return StatusCounts(**{**asdict(self), fate.value: getattr(self, fate) + number})

    def __add__(self, other: StatusCounts) -> StatusCounts:
        return StatusCounts(self.matched + other.matched, self.adapted + other.adapted, self.fresh + other.fresh)

    def shares(self) -> tuple[str, str, str]:
        """Each as a share of all."""
        return percent(self.matched, self.total), percent(self.adapted, self.total), percent(self.fresh, self.total)


@dataclass(frozen=True)
class TransferGroup:
    """A stretch of the network that a person knows: ``encoder.stages``, ``swinViT.layers1``, ``head``.

    Args:
        name: Its name.
        tensors: Its tensors, each counted once, whatever number of names it has.
        parameters: Their entries; running statistics have none.
        notes: What was done, and why something is fresh; each said once.
    """

    name: str
    tensors: StatusCounts
    parameters: StatusCounts
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Transfer:
    """What became of the base's weights. Tensors are counted once, whatever number of names they have.

    Args:
        groups: The network, stretch by stretch, in its order.
        matched: Names of tensors taken over as they are.
        adapted: Names of tensors that were made to fit.
        fresh: Names of tensors left at the network's own initialisation.
        unused: Names of base tensors that the network has no place for.
        labels_kept: Labels whose head comes from the base.
        labels_new: Labels whose head is fresh, in part at least.
        share: Share of the parameters that the base should have, head excluded, that are matched or adapted.
    """

    groups: tuple[TransferGroup, ...]
    matched: tuple[str, ...]
    adapted: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    labels_kept: tuple[str, ...]
    labels_new: tuple[str, ...]
    share: float

    @property
    def parameters(self) -> StatusCounts:
        """Parameters of the whole network by fate."""
        return sum((group.parameters for group in self.groups), StatusCounts())

    def summary(self) -> str:
        """One line for a person."""
        matched, adapted, fresh = self.parameters.shares()
        line = f"{len(self.matched)} tensors matched ({matched} of the parameters)"
        line += f", {len(self.adapted)} adapted" + (f" ({adapted})" if self.adapted else "")
        line += f", {len(self.fresh)} new" + (f" ({fresh})" if self.fresh else "")
        if self.unused:
            line += f", {len(self.unused)} of the base unused"
        kept = ", ".join(self.labels_kept) or "none"
        line += f"; heads kept: {kept}"
        return line + (f"; fresh heads: {', '.join(self.labels_new)}" if self.labels_new else "")

    def lines(self) -> tuple[str, ...]:
        """A table for a person: a line for each group, then the whole network and what is unused."""
        whole = sum((group.tensors for group in self.groups), StatusCounts())
        rows = [("part", "tensors", "parameters", "matched", "adapted", "new", "")]
        for group in (*self.groups, TransferGroup("all", whole, self.parameters)):
            number = f"{group.parameters.total:,}"
            rows.append(
                (group.name, str(group.tensors.total), number, *group.parameters.shares(), "; ".join(group.notes))
            )
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        lines = []
        for name, *numbers, notes in rows:
            cells = [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True)]
            lines.append("  ".join([name.ljust(widths[0]), *cells, notes]).rstrip())
        if self.unused:
            lines.append(f"unused of the base: {listed(self.unused, ', ')}")
        return tuple(lines)

    def to_json(self) -> dict[str, Any]:
        """Counts, groups, names of what is not plainly matched, labels."""
        return {**asdict(self), "matched": len(self.matched), "parameters": asdict(self.parameters)}


def listed(things: Sequence[str], separator: str = "; ") -> str:
    """The first few of many, and how many more there are."""
    more = f" and {len(things) - SHOWN} more" if len(things) > SHOWN else ""
    return separator.join(things[:SHOWN]) + more


def percent(part: int, whole: int) -> str:
    """A share for a person; 0 % is none and 100 % is all, never nearly so."""
    if part in (0, whole):
        return "100 %" if part else "0 %"
    return f"{min(max(100 * part / whole, 0.1), 99.9):.1f} %"
