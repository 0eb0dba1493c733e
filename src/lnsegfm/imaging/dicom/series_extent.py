"""What part of the patient a series shows, and what of it others show too."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from lnsegfm.imaging.grid import Grid

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series_index import Series

MISSING_SHARE = 0.1
"""Share of its range that a series may show beyond others and still count as shown by them: reformats are padded."""
TARGETED_SHARE = 2 / 3
"""A field of view narrower than this share of another's is targeted at a part of the body."""

Range = tuple[float, float]


def extent_mm(series: Series) -> tuple[Range, Range, Range]:
    """Range of a series along x, y and z of the patient (LPS), from voxel edge to voxel edge."""
    return _extent(series.grid)


@lru_cache(maxsize=4096)  # each series of a study is compared with each other one
def _extent(grid: Grid) -> tuple[Range, Range, Range]:
    steps = np.array(grid.direction).reshape(3, 3) * np.array(grid.spacing_mm[::-1])
    ends = [(-0.5, size - 0.5) for size in grid.shape[::-1]]
    corners = np.array([np.array(grid.origin_mm) + steps @ np.array(corner) for corner in product(*ends)])
    x, y, z = ((float(low), float(high)) for low, high in zip(corners.min(0), corners.max(0), strict=True))
    return x, y, z


def normal_axis(series: Series) -> int:
    """The axis of the patient (0 x, 1 y, 2 z) that is nearest to the normal of its slices."""
    return int(np.abs(np.array(series.grid.direction).reshape(3, 3)[:, 2]).argmax())


def missing_mm(series: Series, others: Sequence[Series]) -> float:
    """How many mm along the slices of ``others`` a series shows and none of them does; 0 within the tolerance."""
    axis = normal_axis(others[0])
    low, high = extent_mm(series)[axis]
    missing, reached = 0.0, low
    for start, end in sorted(extent_mm(other)[axis] for other in others):
        missing += max(min(start, high) - reached, 0.0)
        reached = max(reached, min(end, high))
    missing += max(high - reached, 0.0)
    coarser = max(each.traits.resolution_mm for each in (series, *others))
    return missing if missing > max(MISSING_SHARE * (high - low), coarser) else 0.0


def is_targeted(series: Series, other: Series) -> bool:
    """Whether a series shows a narrow part of the field of view of another one in the same plane."""
    if normal_axis(series) != normal_axis(other) or series.traits.plane != other.traits.plane:
        return False
    axes = [axis for axis in range(3) if axis != normal_axis(other)]
    own, wide = extent_mm(series), extent_mm(other)
    narrow = any(_length(own[axis]) < TARGETED_SHARE * _length(wide[axis]) for axis in axes)
    return narrow and all(_length(own[axis]) <= 1.05 * _length(wide[axis]) for axis in axes)


def _length(ends: Range) -> float:
    return ends[1] - ends[0]
