"""What an adapter stores of each module group of a network, and how much that group changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lnsegfm.networks.spatial_adapter import NAME as SPATIAL
from lnsegfm.weights.adapter import Adapter
from lnsegfm.weights.state import module_group, raw

FORMS = ("whole", "entries", "factors")


@dataclass(frozen=True)
class GroupChange:
    """How much a module group changed. Tensors that the base lacks, or has in another shape, are new.

    Args:
        entries: Entries of the group.
        changed: Those that differ from the base's, the new ones included.
        new: Those of new tensors.
        relative_change: Root mean square of the differences over that of the base, without new tensors; None where
            there is nothing to compare, or the base is zero.
    """

    entries: int
    changed: int
    new: int
    relative_change: float | None


@dataclass(frozen=True)
class AdapterGroup:
    """What an adapter stores of a module group.

    Args:
        name: Name of the group, see `lnsegfm.weights.state.module_group`.
        tensors: Its tensors; a tensor with several names counts once.
        stored: Tensors that the adapter stores, by form: ``whole``, ``entries``, ``factors``.
        values: New values in them.
        bytes: Of values and indices.
        change: How much the group changed, where the base is given.
    """

    name: str
    tensors: int
    stored: Mapping[str, int]
    values: int
    bytes: int
    change: GroupChange | None = None

    def to_json(self) -> dict[str, Any]:
        """As a table of plain values."""
        return {**vars(self), "change": vars(self.change) if self.change else None}


def adapter_groups(adapter: Adapter, base: Mapping[str, Tensor] | None = None) -> tuple[AdapterGroup, ...]:
    """The module groups of an adapted network, in its order.

    Args:
        adapter: The adapter.
        base: The weights that it was made from.

    Raises:
        TransferError: ``base`` is another one, or the adapter is damaged.
    """
    model = None if base is None else adapter.apply(base)
    stored = {tensor.name: tensor for tensor in adapter.stored}
    groups = []
    for name, members in _members(adapter).items():
        inside = [stored[member] for member in members if member in stored]
        change = None if base is None or model is None else _change(base, {m: model[m] for m in members})
        forms = {form: sum(tensor.form == form for tensor in inside) for form in FORMS}
        values, size = sum(tensor.values for tensor in inside), sum(tensor.bytes for tensor in inside)
        groups.append(AdapterGroup(name, len(members), forms, values, size, change))
    return tuple(groups)


def _members(adapter: Adapter) -> dict[str, list[str]]:
    """Tensors by group. Of several names of a tensor the shortest describes best where it belongs."""
    shortest: dict[str, str] = {}
    for name in adapter.card["names"]:
        first = adapter.same.get(name, name)
        shortest[first] = min(shortest.get(first, name), name, key=len)
    members: dict[str, list[str]] = {}
    for first, name in shortest.items():
        group = SPATIAL if SPATIAL in name.split(".")[:-1] else module_group(name)
        members.setdefault(group, []).append(first)
    return members


def _change(base: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> GroupChange:
    changed = new = 0
    difference = size = 0.0
    for name, tensor in model.items():
        old = base.get(name)
        if old is None or old.shape != tensor.shape or old.dtype != tensor.dtype:
            new += tensor.numel()
            continue
        changed += int((raw(old) != raw(tensor)).any(dim=1).sum())
        if tensor.is_floating_point():
            before = old.detach().cpu().double()
            difference += float((tensor.detach().cpu().double() - before).square().sum())
            size += float(before.square().sum())
    total = sum(tensor.numel() for tensor in model.values())
    return GroupChange(total, changed + new, new, math.sqrt(difference / size) if size else None)
