"""One mask of the parts of a case: structures merged into a map of labels, on the grid of the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lnsegfm.datasets.arrange.mask_parts import MaskPart
from lnsegfm.datasets.arrange.slicer_segments import read_layers
from lnsegfm.datasets.convert.conversion_plan import count_voxels
from lnsegfm.datasets.convert.mask_placement import place_by_position
from lnsegfm.datasets.labels import LabelMap, values_in
from lnsegfm.errors import DataError
from lnsegfm.imaging.grid import Grid


@dataclass(frozen=True)
class MergedMask:
    """The mask of a case.

    Args:
        mask: Label values (z, y, x) on the grid of its image.
        voxels: Voxels of each label.
        shared: Voxels that two labels claim, by the label that has them and the one that has not.
        hidden: Labels that have voxels in their files and none in the mask.
        unchanged: It is what its only file holds, voxel for voxel, on the same grid.
        notes: Remarks, one line each.
    """

    mask: np.ndarray
    voxels: Mapping[str, int]
    shared: Mapping[tuple[str, str], int] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    unchanged: bool = False
    notes: tuple[str, ...] = ()


def merge_parts(parts: tuple[MaskPart, ...], labels: LabelMap, grid: Grid) -> MergedMask:
    """Merge the parts of a case; a voxel that several labels claim is that of the lowest value.

    Args:
        parts: In the order of the labels' values; or one map of all labels.
        labels: Value of each label.
        grid: Of the image.

    Raises:
        DataError: A part that cannot be read, whose voxels are not the image's, or with a value that no label has.
    """
    if parts[0].label is None:
        return _map(parts[0].path, labels, grid)
    highest = max(labels.names.values())
    mask = np.zeros(grid.shape, np.uint8 if highest < 256 else np.uint16)
    opened: dict[Path, list[np.ndarray]] = {}
    shared: dict[tuple[str, str], int] = {}
    notes: list[str] = []
    hidden: list[str] = []
    names = {value: name for name, value in labels.names.items()}
    for part in parts:
        if part.path not in opened:
            opened = {part.path: _placed(part.path, grid, notes)}
        voxels = opened[part.path][part.layer]
        inside = voxels > 0 if part.value is None else voxels == part.value
        if part.value is None and len(values := np.unique(voxels[inside])) > 1:
            notes.append(f"{part.path.name} holds {len(values)} values, all of them taken for {part.label}")
        taken = mask[inside & (mask > 0)]
        for value, count in zip(*np.unique(taken, return_counts=True), strict=True):
            shared[names[int(value)], str(part.label)] = int(count)
        free = inside & (mask == 0)
        mask[free] = labels.names[str(part.label)]
        if inside.any() and not free.any():
            hidden.append(str(part.label))
    counted = count_voxels(mask, highest)
    counts = {name: int(counted[value]) for name, value in labels.names.items()}
    return MergedMask(mask, counts, shared, tuple(hidden), notes=tuple(notes))


def _map(path: Path, labels: LabelMap, grid: Grid) -> MergedMask:
    layers, own = read_layers(path)
    stored = layers[0]
    mask, note = place_by_position(stored, own, grid)
    values = values_in(mask)
    if unknown := sorted(set(values) - labels.allowed):
        raise DataError(
            f"{path.name}: it holds {_listed(unknown)}, which no label has ({labels}). Name it, or correct it."
        )
    if values[0] < 0 or values[-1] > np.iinfo(np.uint16).max:
        raise DataError(f"{path.name}: it holds values from {values[0]} to {values[-1]}. Renumber it from 0 to 65535.")
    counts = {name: int(np.count_nonzero(labels.voxels(mask, name))) for name in labels.names}
    return MergedMask(mask, counts, unchanged=note is None, notes=(note,) if note else ())


def _placed(path: Path, grid: Grid, notes: list[str]) -> list[np.ndarray]:
    layers, own = read_layers(path)
    placed = []
    for layer in layers:
        mask, note = place_by_position(layer, own, grid)
        placed.append(mask)
        if note is not None and f"{path.name}: {note}" not in notes:
            notes.append(f"{path.name}: {note}")
    return placed


def _listed(values: list[int]) -> str:
    return ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
