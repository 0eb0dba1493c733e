"""Stacks of uneven slice distances: onto a grid of one distance, and masks back onto the slices.

HU go to the planes of the grid by linear interpolation between the two slices around each. A mask is never
interpolated: a plane has the mask of the slice nearest to it (of two as near, the lower one), and a slice that of the
nearest of those planes, so that what was drawn on the slices comes back on them unchanged wherever each slice has a
plane.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lnsegfm.imaging.grid import Grid

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.segmentation import Segmentation
    from lnsegfm.imaging.dicom.series_index import Series
    from lnsegfm.imaging.dicom.structure_set import Roi, StructureSet

PLANE_SHARE = 10
"""Of the steps between slices, one in so many may be smaller than the grid's."""
MOST_STEPS = 10
"""A gap of more than so many steps of the grid is not interpolated: nothing of what lies in it is known."""


def even_planes(heights_mm: np.ndarray) -> tuple[int, float]:
    """How many planes a grid over slices at these ascending heights has, and their distance in mm.

    It goes from the first to the last slice, nothing is extrapolated. The distance is the smallest step (of more than
    ten: the one that a tenth of them do not exceed), reduced so that the last slice lies on a plane.
    """
    steps = np.sort(np.diff(heights_mm))
    step = float(steps[(len(steps) - 1) // PLANE_SHARE])
    extent = float(heights_mm[-1] - heights_mm[0])
    intervals = max(1, int(np.ceil(extent / step - 1e-3)))
    return intervals + 1, extent / intervals


def slice_heights_mm(series: Series) -> np.ndarray:
    """(n,) position of each slice along the normal, from the first plane of the grid."""
    normal = np.array(series.grid.direction).reshape(3, 3)[:, 2]
    return np.asarray((np.array([s.position_mm for s in series.slices]) - series.grid.origin_mm) @ normal)


def slice_grid(series: Series) -> Grid:
    """A grid with one plane a slice, on which masks of the slices are arrays; the series' own where it is even.

    The planes of an uneven series do not lie on it: ``roi_on_slices`` and ``segmentation_on_slices`` move what was
    drawn on slice k to plane k.
    """
    if not series.uneven:
        return series.grid
    return replace(series.grid, shape=(len(series.slices), *series.grid.shape[1:]))


def series_of_slices(series: Series) -> Series:
    """The series with ``slice_grid`` as its grid."""
    return replace(series, grid=slice_grid(series)) if series.uneven else series


def interpolated(slices: Iterable[np.ndarray], series: Series) -> Iterator[np.ndarray]:
    """The planes of the grid of an uneven series, each interpolated linearly between two slices.

    Args:
        slices: One array a slice, in order.
        series: Where they and the planes lie.

    Yields:
        float32, or the slice itself where a plane lies on it.
    """
    heights, count = slice_heights_mm(series), series.grid.shape[0]
    places = np.arange(count) * series.grid.spacing_mm[0]
    places[-1] = heights[-1]  # the last plane is the last slice, whatever the last bit says
    done, below = 0, np.empty(0)
    for k, above in enumerate(slices):
        while done < count and places[done] <= heights[k] + 1e-6:
            share = 1.0 if k == 0 else (places[done] - heights[k - 1]) / (heights[k] - heights[k - 1])
            if share > 1 - 1e-6 or np.array_equal(below, above):
                yield above
            else:
                yield (below + np.float32(share) * (above - below.astype(np.float32))).astype(np.float32)
            done += 1
        below = above


def nearest_slices(series: Series) -> np.ndarray:
    """(planes,) the slice nearest to each plane of the grid; of two as near, the lower one."""
    heights = slice_heights_mm(series)
    places = np.arange(series.grid.shape[0]) * series.grid.spacing_mm[0]
    return np.asarray(np.abs(places[:, None] - heights).round(6).argmin(axis=1))


def planes_of_slices(series: Series) -> np.ndarray:
    """(slices,) the plane whose mask each slice has: the nearest of those to which it is the nearest slice.

    Where there is none, as where slices lie closer than planes, it is the nearest plane.
    """
    heights, owner = slice_heights_mm(series), nearest_slices(series)
    places = np.arange(series.grid.shape[0]) * series.grid.spacing_mm[0]
    apart = np.abs(places - heights[:, None]).round(6)
    own = owner == np.arange(len(heights))[:, None]
    return np.asarray(np.where(own.any(axis=1), np.where(own, apart, np.inf).argmin(axis=1), apart.argmin(axis=1)))


def mask_on_planes(mask: np.ndarray, series: Series) -> np.ndarray:
    """A mask of the slices (n, y, x), on the grid of the series: each plane has that of its nearest slice."""
    return mask[nearest_slices(series)] if series.uneven else mask


def mask_on_slices(mask: np.ndarray, series: Series) -> np.ndarray:
    """A mask on the grid of the series, on its slices (n, y, x)."""
    return mask[planes_of_slices(series)] if series.uneven else mask


def written_on_slices(
    mask: np.ndarray, instances: np.ndarray | None, series: Series
) -> tuple[np.ndarray, np.ndarray | None, Series]:
    """A mask and its instances on the grid of a series as what is written: on its slices, with ``series_of_slices``."""
    if not series.uneven:
        return mask, instances, series
    numbered = None if instances is None else mask_on_slices(instances, series)
    return mask_on_slices(mask, series), numbered, series_of_slices(series)


def points_on_slices(points_mm: np.ndarray, series: Series) -> np.ndarray:
    """Points (n, 3) moved along the normal to ``slice_grid``: those on slice k to plane k, linearly between slices."""
    heights, step = slice_heights_mm(series), series.grid.spacing_mm[0]
    normal = np.array(series.grid.direction).reshape(3, 3)[:, 2]
    at = (points_mm - series.grid.origin_mm) @ normal
    places = np.arange(len(heights)) * step
    to = np.interp(at, heights, places)
    to = np.where(at < heights[0], places[0] + at - heights[0], to)
    to = np.where(at > heights[-1], places[-1] + at - heights[-1], to)
    return np.asarray(points_mm + (to - at)[:, None] * normal)


def roi_on_slices(roi: Roi, series: Series) -> Roi:
    """A structure with its contours moved to ``slice_grid``; itself where the series is even.

    The frame of reference of any slice becomes that of the series.
    """
    if series.in_frame(roi.frame_of_reference_uid):
        roi = replace(roi, frame_of_reference_uid=series.frame_of_reference_uid)
    if not series.uneven:
        return roi
    contours = tuple(replace(c, points_mm=points_on_slices(c.points_mm, series)) for c in roi.contours)
    return replace(roi, contours=contours)


def structures_on_slices(structures: StructureSet, series: Series) -> StructureSet:
    """A structure set with each structure as ``roi_on_slices`` gives it."""
    return replace(structures, rois=tuple(roi_on_slices(roi, series) for roi in structures.rois))


def segmentation_on_slices(segments: Segmentation, series: Series) -> Segmentation:
    """A segmentation with its frames moved to ``slice_grid``; itself where the series is even.

    The frame of reference of any slice becomes that of the series. A frame across the slices does not fit that grid.
    """
    if series.in_frame(segments.frame_of_reference_uid):
        segments = replace(segments, frame_of_reference_uid=series.frame_of_reference_uid)
    if not series.uneven:
        return segments
    frames = []
    for frame in segments.frames:
        at = points_on_slices(np.array([frame.plane.position_mm]), series)[0]
        frames.append(replace(frame, plane=replace(frame.plane, position_mm=tuple(at.tolist()))))
    return replace(segments, frames=tuple(frames), slice_distance_mm=None)
