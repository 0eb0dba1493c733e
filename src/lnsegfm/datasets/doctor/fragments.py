"""Fragments of a label: connected components that are tiny and next to a much larger one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.imaging.box import Box, bounding_box
from lnsegfm.imaging.grid import Grid

FEWEST_VOXELS, SMALLEST_ML = 3, 0.01  # a sphere of 0.01 ml has a diameter of 2.7 mm: smaller than annotated nodes
SIZE_RATIO = 10  # the largest component has at least this many times the size of a fragment
_MOST_VOXELS = 60_000_000  # of a box that is searched: in a label over a whole huge scan the memory is not worth it


@dataclass(frozen=True)
class Fragments:
    """The fragments of one label.

    Args:
        count: How many.
        voxels: Voxels of all of them.
        largest: Voxels of the label's largest component.
    """

    count: int
    voxels: int
    largest: int


def find_fragments(label: np.ndarray, grid: Grid, *, nodes: bool = False) -> Fragments | None:
    """The fragments of a label; None where it has none.

    A fragment is a connected component (26 neighbours) of fewer than 3 voxels or less than 0.01 ml, where the largest
    one has at least ten times its size.

    Args:
        label: Where the label is: a boolean volume, or a part of one that holds all of it.
        grid: Of the volume; its voxels' size counts.
        nodes: The label is lymph nodes, of which several are usual: a node of one or two coarse voxels is none, so
            only the volume counts.
    """
    components = _search(label, grid, nodes)
    if components is None:
        return None
    _, _, sizes, tiny = components
    return Fragments(int(tiny.sum()), int(sizes[tiny].sum()), int(sizes.max())) if tiny.any() else None


def can_lose_fragments(labels: LabelMap) -> tuple[str, ...]:
    """The labels whose fragments may become background: not a region within another, which would get holes."""
    covered = {name: set(values) for name, values in labels.covered.items()}
    return tuple(name for name, own in covered.items() if not any(own < other for other in covered.values()))


def remove_fragments(mask: np.ndarray, there: np.ndarray, grid: Grid, *, nodes: bool = False) -> np.ndarray:
    """A copy of a mask (z, y, x) in which the fragments of one label are background; all else stays as it is.

    Args:
        mask: With the values of all labels.
        there: Where it has the label, boolean.
        grid: Of both.
        nodes: Whether the label is of lymph nodes, which may be small.
    """
    components, cleaned = _search(there, grid, nodes), mask.copy()
    if components is not None:
        box, numbered, _, tiny = components
        cleaned[box][np.concatenate([[False], tiny])[numbered]] = 0
    return cleaned


def _search(label: np.ndarray, grid: Grid, nodes: bool) -> tuple[Box, np.ndarray, np.ndarray, np.ndarray] | None:
    """The label's box, its numbered components there, their sizes, and which of them are fragments."""
    box = bounding_box(label)
    if box is None or label[box].size > _MOST_VOXELS:
        return None
    numbered, count = ndimage.label(label[box], structure=np.ones((3, 3, 3)))
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)[1:]
    small = sizes * grid.voxel_volume_ml < SMALLEST_ML
    if not nodes:
        small |= sizes < FEWEST_VOXELS
    return box, numbered, sizes, small & (sizes * SIZE_RATIO <= sizes.max())
