"""Statistics of a scan and its mask that need no reference: flags are raised from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lnsegfm.errors import DataError
from lnsegfm.evaluation.components import components
from lnsegfm.imaging.axis_code import DIRECTIONS
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.orientation import axis_codes, turn_to

FOREGROUND = ""
"""Stands for all labels taken together where figures are given by label; no label can be called so."""
SAMPLE = 2_000_000
"""Voxels, about, from which the percentiles of a whole scan are taken: a CT has a hundred million."""
_AXES = ("left-right", "front-back", "head-foot")
AXIAL = _AXES[::-1]
"""The patient's axes along (z, y, x) of an array of axial slices."""
_FACES = (("right", "left"), ("front", "back"), ("foot", "head"))  # towards smaller and larger x, y, z of LPS


@dataclass(frozen=True)
class LabelStatistics:
    """One label of a mask.

    Args:
        volume_ml: Its volume.
        components: Number of its connected components (26 neighbours).
        hu: Median of the scan's HU under it; None without a CT or without a voxel.
        faces: Voxels of it on each face of the scan that it touches, by the face's name.
    """

    volume_ml: float
    components: int
    hu: float | None
    faces: Mapping[str, int]


@dataclass(frozen=True)
class MaskStatistics:
    """One scan and its mask.

    Args:
        spacing_mm: Of the scan, along (z, y, x) of the array.
        extent_mm: Field of view along (z, y, x): voxels times spacing.
        axes: The patient's axis nearest to each array axis: ``head-foot``, ``front-back``, ``left-right``.
        stored: The axis code with which the scan is stored, which may be another one than that it was measured on.
        scan_hu: 0.5th and 99.5th percentile of the whole scan; None without a CT.
        share: Part of the scan's voxels that is foreground, 0 to 1.
        foreground_hu: Median HU under all labels together; None without a CT or without foreground.
        labels: Each label, by name.
    """

    spacing_mm: tuple[float, float, float]
    extent_mm: tuple[float, float, float]
    axes: tuple[str, str, str]
    stored: str
    scan_hu: tuple[float, float] | None
    share: float
    foreground_hu: float | None
    labels: Mapping[str, LabelStatistics]


def measure_mask(
    image: np.ndarray | None,
    mask: np.ndarray,
    grid: Grid,
    labels: Mapping[str, int | tuple[int, ...]],
    *,
    axes: str | None = None,
) -> MaskStatistics:
    """Measure a scan and its mask.

    Args:
        image: HU (z, y, x); None where the scan is no CT, or HU are not wanted.
        mask: Label values (z, y, x); values that ``labels`` does not name count as background.
        grid: The geometry of both.
        labels: Name to value, or to the values of a region.
        axes: The axis code to which scan and mask are turned to be measured, as a network sees them; None leaves them.

    Raises:
        DataError: Image or mask do not fill the grid.
    """
    mask = mask.view(np.uint8) if mask.dtype == np.bool_ else mask
    for what, array in (("Image", image), ("Mask", mask)):
        if array is not None and array.shape != grid.shape:
            raise DataError(f"{what} {array.shape}: it does not fill its grid {grid.shape}. Pass its own grid.")
    stored, turn = axis_codes(grid), turn_to(grid, axes)
    image = None if image is None else turn.forth(image)
    mask, grid = turn.forth(mask), turn.grid(grid)
    patient = _patient_axes(grid)
    covered = {name: values if isinstance(values, tuple) else (values,) for name, values in labels.items()}
    every = sorted({value for values in covered.values() for value in values})
    boxes = ndimage.find_objects(mask, max_label=every[-1])
    by_name = {
        name: _measure_label(image, mask, grid, patient, values, _around([boxes[value - 1] for value in values]))
        for name, values in covered.items()
    }
    foreground = np.isin(mask, every)
    depth, height, width = (n * spacing for n, spacing in zip(grid.shape, grid.spacing_mm, strict=True))
    first, second, third = (_AXES[axis] for axis, _ in patient)
    return MaskStatistics(
        spacing_mm=grid.spacing_mm,
        extent_mm=(depth, height, width),
        axes=(first, second, third),
        stored=stored,
        scan_hu=None if image is None else _scan_range(image),
        share=float(foreground.mean()),
        foreground_hu=float(np.median(image[foreground])) if image is not None and foreground.any() else None,
        labels=by_name,
    )


def _measure_label(
    image: np.ndarray | None,
    mask: np.ndarray,
    grid: Grid,
    patient: tuple[tuple[int, int], ...],
    values: tuple[int, ...],
    box: tuple[slice, ...] | None,
) -> LabelStatistics:
    if box is None:
        return LabelStatistics(0.0, 0, None, {})
    here = mask[box] == values[0] if len(values) == 1 else np.isin(mask[box], values)
    faces: dict[str, int] = {}
    for array_axis, (axis, sign) in enumerate(patient):
        ends = ((box[array_axis].start == 0, 0, -sign), (box[array_axis].stop == mask.shape[array_axis], -1, sign))
        for touches, index, towards in ends:
            if touches:
                faces[_FACES[axis][towards > 0]] = int(np.take(here, index, axis=array_axis).sum())
    return LabelStatistics(
        volume_ml=float(here.sum() * grid.voxel_volume_ml),
        components=len(components(here)),
        hu=None if image is None else float(np.median(image[box][here])),
        faces=faces,
    )


def _around(boxes: Sequence[tuple[slice, ...] | None]) -> tuple[slice, ...] | None:
    """The smallest box around several."""
    found = [box for box in boxes if box is not None]
    if not found:
        return None
    return tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*found, strict=True))


def _patient_axes(grid: Grid) -> tuple[tuple[int, int], ...]:
    """For each array axis (z, y, x) the patient's axis (0 is x, 1 is y, 2 is z of LPS) and whether it grows with it."""
    found = {letter: (axis, 2 * sign - 1) for axis, pair in enumerate(DIRECTIONS) for sign, letter in enumerate(pair)}
    return tuple(found[letter] for letter in reversed(axis_codes(grid)))


def _scan_range(image: np.ndarray) -> tuple[float, float]:
    step = max(1, math.ceil((image.size / SAMPLE) ** (1 / 3)))
    low, high = np.percentile(image[::step, ::step, ::step], (0.5, 99.5))
    return float(low), float(high)
