"""An adapter looked into: what it holds of each stretch of the network, and how far that moved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lnsegfm.networks.spatial_adapter import NAME as SPATIAL
from lnsegfm.weights.adapter import Adapter
from lnsegfm.weights.state import raw

FORMS = ("whole", "entries", "factors")


@dataclass(frozen=True)
class Movement:
    """How far a stretch of the network moved. Tensors that the base lacks, or has in another shape, are new.

    Args:
        entries: Entries of the stretch.
        moved: Those that differ from the base's, the new ones included.
        new: Those of new tensors.
        relative_change: Root mean square of the differences over that of the base, new tensors left aside; None where
            there is nothing to compare, or the base is zero.
    """

    entries: int
    moved: int
    new: int
    relative_change: float | None


@dataclass(frozen=True)
class AdapterGroup:
    """What an adapter holds of a stretch of the network.

    Args:
        name: Two parts of its tensors' names, or one that has a number of its own.
        tensors: Its tensors, each counted once, whatever number of names it has.
        held: Tensors that the adapter holds, by form: ``whole``, ``entries``, ``factors``.
        numbers: New values in them.
        bytes: Of values and places.
        movement: How far it moved, where the base is at hand.
    """

    name: str
    tensors: int
    held: Mapping[str, int]
    numbers: int
    bytes: int
    movement: Movement | None = None

    def to_json(self) -> dict[str, Any]:
        """As a table of plain values."""
        return {**vars(self), "movement": vars(self.movement) if self.movement else None}


def adapter_groups(adapter: Adapter, base: Mapping[str, Tensor] | None = None) -> tuple[AdapterGroup, ...]:
    """An adapter, stretch by stretch in the network's order.

    Args:
        adapter: The adapter.
        base: The weights that it was made from.

    Raises:
        TransferError: ``base`` is another one, or the adapter is damaged.
    """
    model = None if base is None else adapter.apply(base)
    held = {found.name: found for found in adapter.held}
    found = []
    for name, members in _members(adapter).items():
        inside = [held[member] for member in members if member in held]
        movement = None if base is None or model is None else _movement(base, {m: model[m] for m in members})
        forms = {form: sum(one.form == form for one in inside) for form in FORMS}
        numbers, size = sum(one.numbers for one in inside), sum(one.bytes for one in inside)
        found.append(AdapterGroup(name, len(members), forms, numbers, size, movement))
    return tuple(found)


def _members(adapter: Adapter) -> dict[str, list[str]]:
    """Tensors by stretch. Of several names of a tensor the shortest tells best where it lies."""
    nicest: dict[str, str] = {}
    for name in adapter.card["names"]:
        first = adapter.same.get(name, name)
        nicest[first] = min(nicest.get(first, name), name, key=len)
    members: dict[str, list[str]] = {}
    for first, name in nicest.items():
        members.setdefault(_stretch(name), []).append(first)
    return members


def _stretch(name: str) -> str:
    path = name.split(".")[:-1] or [name]
    if SPATIAL in path:
        return SPATIAL
    return path[0] if path[0][-1:].isdigit() else ".".join(path[:2])


def _movement(base: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> Movement:
    moved = new = 0
    difference = size = 0.0
    for name, tensor in model.items():
        old = base.get(name)
        if old is None or old.shape != tensor.shape or old.dtype != tensor.dtype:
            new += tensor.numel()
            continue
        moved += int((raw(old) != raw(tensor)).any(dim=1).sum())
        if tensor.is_floating_point():
            before = old.detach().cpu().double()
            difference += float((tensor.detach().cpu().double() - before).square().sum())
            size += float(before.square().sum())
    total = sum(tensor.numel() for tensor in model.values())
    return Movement(total, moved + new, new, math.sqrt(difference / size) if size else None)
