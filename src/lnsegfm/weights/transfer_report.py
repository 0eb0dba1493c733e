"""Report of a transfer of base weights into a network: counts by module group, names, and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

SHOWN = 5


class TransferStatus(StrEnum):
    """How one tensor of the network was initialised."""

    MATCHED = "matched"
    """Copied from the base unchanged."""
    ADAPTED = "adapted"
    """Copied from the base and adapted: rows of a head, input channels, kernel size, positions."""
    FRESH = "fresh"
    """Left at the network's own initialisation."""


@dataclass(frozen=True)
class StatusCounts:
    """Numbers by status."""

    matched: int = 0
    adapted: int = 0
    fresh: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.matched + self.adapted + self.fresh

    def plus(self, status: TransferStatus, number: int = 1) -> StatusCounts:
        """With some more of one status."""
        return StatusCounts(**{**asdict(self), status.value: getattr(self, status) + number})

    def __add__(self, other: StatusCounts) -> StatusCounts:
        return StatusCounts(self.matched + other.matched, self.adapted + other.adapted, self.fresh + other.fresh)

    def shares(self) -> tuple[str, str, str]:
        """Each as a share of all."""
        return percent(self.matched, self.total), percent(self.adapted, self.total), percent(self.fresh, self.total)


@dataclass(frozen=True)
class TransferGroup:
    """A module group of the network, such as ``encoder.stages``, ``swinViT.layers1`` or ``head``.

    Args:
        name: Its name.
        tensors: Its tensors; a tensor with several names counts once.
        parameters: Their entries; running statistics have none.
        notes: What was adapted and why something is fresh; each once.
    """

    name: str
    tensors: StatusCounts
    parameters: StatusCounts
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Transfer:
    """What was transferred from a base into a network. A tensor with several names counts once.

    Args:
        groups: The module groups of the network, in its order.
        matched: Names of tensors copied unchanged.
        adapted: Names of tensors copied and adapted.
        fresh: Names of tensors left at the network's own initialisation.
        unused: Names of base tensors that the network does not have.
        labels_kept: Labels whose head comes from the base.
        labels_new: Labels that the base does not know: their heads start from its background's, or fresh.
        share: Share of the parameters that the base should have, without the head, that are matched or adapted.
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
        """Parameters of the whole network by status."""
        return sum((group.parameters for group in self.groups), StatusCounts())

    def summary(self) -> str:
        """The report in one line."""
        matched, adapted, fresh = self.parameters.shares()
        line = f"{len(self.matched)} tensors matched ({matched} of the parameters)"
        line += f", {len(self.adapted)} adapted" + (f" ({adapted})" if self.adapted else "")
        line += f", {len(self.fresh)} new" + (f" ({fresh})" if self.fresh else "")
        if self.unused:
            line += f", {len(self.unused)} of the base unused"
        kept = ", ".join(self.labels_kept) or "none"
        line += f"; heads kept: {kept}"
        return line + (f"; new heads: {', '.join(self.labels_new)}" if self.labels_new else "")

    def lines(self) -> tuple[str, ...]:
        """The report as a table: a line for each module group, then the whole network and what is unused."""
        whole = sum((group.tensors for group in self.groups), StatusCounts())
        rows = [("module group", "tensors", "parameters", "matched", "adapted", "new", "")]
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


def listed(names: Sequence[str], separator: str = "; ") -> str:
    """The first few of many, and the number of the others."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return separator.join(names[:SHOWN]) + more


def percent(part: int, whole: int) -> str:
    """A share as text; 0 % is none and 100 % is all, never nearly so."""
    if part in (0, whole):
        return "100 %" if part else "0 %"
    return f"{min(max(100 * part / whole, 0.1), 99.9):.1f} %"
