"""The pieces of a label: what it holds, and specks that were left beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lnsegfm.imaging.box import Box, bounding_box
from lnsegfm.imaging.grid import Grid

FEWEST_VOXELS, SMALLEST_ML = 3, 0.01  # a ball of 0.01 ml is 2.7 mm across: smaller than any node one annotates
BESIDE = 10  # a speck is a speck beside a piece of at least this many times its size
_MOST_VOXELS = 60_000_000  # of a box that is searched: a label over all of a huge scan has no specks worth the memory


@dataclass(frozen=True)
class Fragments:
    """The tiny pieces of one label.

    Args:
        count: How many.
        voxels: Voxels of all of them.
        largest: Voxels of the label's largest piece.
    """

    count: int
    voxels: int
    largest: int


def find_fragments(there: np.ndarray, grid: Grid, *, nodes: bool = False) -> Fragments | None:
    """The specks of a label; None where it has none.

    A speck is a piece (26 neighbours) of fewer than 3 voxels or less than 0.01 ml, beside one of ten times its size.

    Args:
        there: Where the label is: a boolean volume, or a part of one that holds all of it.
        grid: Of the volume; its voxels' size counts.
        nodes: The label is lymph nodes, of which several are usual: a node of one or two coarse voxels is none, so
            only the volume counts.
    """
    found = _search(there, grid, nodes)
    if found is None:
        return None
    _, _, sizes, tiny = found
    return Fragments(int(tiny.sum()), int(sizes[tiny].sum()), int(sizes.max())) if tiny.any() else None


def remove_fragments(mask: np.ndarray, value: int, grid: Grid, *, nodes: bool = False) -> np.ndarray:
    """A copy of a mask (z, y, x) in which the specks of one label are background; all else stays as it is."""
    found, mended = _search(mask == value, grid, nodes), mask.copy()
    if found is not None:
        box, pieces, _, tiny = found
        mended[box][np.concatenate([[False], tiny])[pieces]] = 0
    return mended


def _search(there: np.ndarray, grid: Grid, nodes: bool) -> tuple[Box, np.ndarray, np.ndarray, np.ndarray] | None:
    """Where the label is, its pieces numbered there, their sizes, and which of them are specks."""
    box = bounding_box(there)
    if box is None or there[box].size > _MOST_VOXELS:
        return None
    pieces, count = ndimage.label(there[box], structure=np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    small = sizes * grid.voxel_volume_ml < SMALLEST_ML
    if not nodes:
        small |= sizes < FEWEST_VOXELS
    return box, pieces, sizes, small & (sizes * BESIDE <= sizes.max())
