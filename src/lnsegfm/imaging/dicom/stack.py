"""A stack of planes as a series on a grid: evenly spaced, of one patient, not sheared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from pydicom.uid import JPEG2000, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.headers import ImagePlane
from lnsegfm.imaging.dicom.rescale_type import rescale_type_notes
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.dicom.series_traits import series_traits
from lnsegfm.imaging.grid import Grid

SAME_POSITION_MM = 0.01
"""Slices closer than this along the normal are at one position."""
SHEAR_TOLERANCE = 1e-3
"""A stack may lean by this many mm per mm of its height before it counts as sheared."""
MAX_VOXELS = 1 << 31
"""Of a stack: 4 GiB in 16 bit."""

_LOSSY = (JPEG2000, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless)


@dataclass(frozen=True)
class Stack:
    """Planes at right angles to one normal, ascending along it, one a position.

    Args:
        planes: The planes.
        heights_mm: (n,) position of each along the normal.
        axes: (3, 3) with columns: unit vectors along a row, along a column, and the normal.
        notes: Remarks about it, one line each.
    """

    planes: tuple[ImagePlane, ...]
    heights_mm: np.ndarray
    axes: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.planes[0].name

    def height(self, k: int) -> str:
        """Position of slice ``k`` along the normal, for a message."""
        return f"{self.heights_mm[k]:.1f} mm"


def spacing_mm(plane: ImagePlane) -> tuple[float, float]:
    """Distance between rows, and between columns; NaN where the header has none."""
    down, across = plane.pixel_spacing_mm or (math.nan, math.nan)
    return down, across


def plane_axes(plane: ImagePlane) -> Any:
    """Columns: unit vectors along a row, along a column, and the normal; None where the header gives no right angle."""
    return _axes(plane.orientation) if plane.orientation is not None else None


@lru_cache(maxsize=64)  # the slices of a stack have one orientation
def _axes(orientation: tuple[float, ...]) -> np.ndarray | None:
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = float(np.linalg.norm(row)), float(np.linalg.norm(column))
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(float(row @ column))) > 1e-3:
        return None
    row = row / lengths[0]
    column = column - row * (row @ column)
    column = column / np.linalg.norm(column)
    return np.stack([row, column, np.cross(row, column)], axis=1)


def group_by_position(planes: Sequence[ImagePlane]) -> list[list[ImagePlane]]:
    """Planes by their position along the normal, ascending; those at one position together, in a fixed order."""
    normal = plane_axes(planes[0])[:, 2]
    heights = [float(np.array(p.position_mm) @ normal) for p in planes]
    groups: list[list[ImagePlane]] = []
    last = -math.inf
    for height, plane in sorted(
        zip(heights, planes, strict=True), key=lambda at: (at[0], at[1].path, at[1].frame or 0)
    ):
        if height - last <= SAME_POSITION_MM:
            groups[-1].append(plane)
        else:
            groups.append([plane])
            last = height
    return groups


def stack_planes(planes: Sequence[ImagePlane], notes: tuple[str, ...] = ()) -> Stack:
    """Planes of one geometry as a stack; the first of those at one position counts."""
    ordered = tuple(same[0] for same in group_by_position(planes))
    axes = plane_axes(ordered[0])
    heights = np.array([p.position_mm for p in ordered]) @ axes[:, 2]
    return Stack(ordered, heights, axes, notes)


def stack_as_series(stack: Stack, straighten: bool) -> Series:
    """The series that a stack is.

    Raises:
        DicomError: Too few slices, too large, slices missing, of different patients, or sheared.
    """
    first, count = stack.planes[0], len(stack.planes)
    if count < 2:
        why = "a volume needs at least two"
        raise DicomError(f"Series {stack.name} has 1 slice: {why}. Give the complete series.")
    if count * first.rows * first.columns > MAX_VOXELS:
        size = f"{count} x {first.rows} x {first.columns} voxels"
        raise DicomError(f"Series {stack.name} has {size}: more than {MAX_VOXELS}. Export fewer or smaller slices.")
    _check_identity(stack)
    _check_steps(stack)
    offsets = in_plane_offsets(np.array([p.position_mm for p in stack.planes]), stack.axes)
    extent = float(stack.heights_mm[-1] - stack.heights_mm[0])
    lean = float(np.linalg.norm(offsets, axis=1).max())
    sheared = lean > max(SHEAR_TOLERANCE * extent, 2 * SAME_POSITION_MM)
    if sheared and not straighten:
        raise DicomError(_sheared(stack, offsets, extent))
    grid = _grid(stack, offsets if sheared else np.zeros_like(offsets), extent / (count - 1))
    notes = stack.notes
    lossy = sum(p.transfer_syntax in _LOSSY for p in stack.planes)
    if lossy:
        notes = (*notes, f"{lossy} slices are compressed with loss: HU may be off by a few")
    if first.modality == "CT":
        notes = (*notes, *rescale_type_notes(p.rescale_type for p in stack.planes))
    if sheared:
        notes = (*notes, f"sheared by up to {lean:.1f} mm in the plane: resampled onto an orthogonal grid")
    return Series(
        uid=first.series_uid,
        study_uid=first.study_uid,
        frame_of_reference_uid=first.frame_of_reference_uid,
        modality=first.modality,
        description=first.description,
        number=first.number,
        patient_id=first.patient_id,
        slices=tuple(p.as_slice() for p in stack.planes),
        grid=grid,
        notes=notes,
        straightened=sheared,
        traits=series_traits([p.traits for p in stack.planes], grid),
    )


def _check_identity(stack: Stack) -> None:
    for what in ("patient_id", "study_uid"):
        if len({getattr(p, what) for p in stack.planes}) > 1:
            whose = "patients (PatientID)" if what == "patient_id" else "studies (StudyInstanceUID)"
            raise DicomError(f"Series {stack.name} has slices of several {whose}. Export it again, each on its own.")


def _check_steps(stack: Stack) -> None:
    """Refuse a stack whose slices are not evenly spaced, to within 1 % or 0.1 mm, whichever is more."""
    steps = np.diff(stack.heights_mm)
    expected = float(np.sort(steps)[(len(steps) - 1) // 2])  # the lower median: one of the steps there are
    tolerance = min(max(0.1, 0.01 * expected), 0.25 * expected)
    uneven = np.flatnonzero(np.abs(steps - expected) > tolerance)
    if uneven.size:
        k = int(uneven[np.argmax(steps[uneven])])
        more = f", and {uneven.size - 1} more uneven steps" if uneven.size > 1 else ""
        kind = "a" if steps[k] > expected else "only a"
        raise DicomError(
            f"Series {stack.name} has {kind} {steps[k]:.4g} mm gap between slices {k + 1} and {k + 2} "
            f"({expected:.4g} mm expected; at {stack.height(k)} and {stack.height(k + 1)} along the normal{more}). "
            "Export the complete series again, or each evenly spaced part as a series of its own."
        )
    even = np.linspace(stack.heights_mm[0], stack.heights_mm[-1], len(stack.heights_mm))
    drift = np.abs(stack.heights_mm - even)
    if drift.max() > tolerance:
        k = int(drift.argmax())
        raise DicomError(
            f"Series {stack.name} is unevenly spaced: its steps go from {steps.min():.4g} to {steps.max():.4g} mm, "
            f"and slice {k + 1} lies {drift[k]:.2g} mm from an even place. Export it with one distance of slices."
        )


def in_plane_offsets(positions_mm: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """How far each slice has moved in its plane against the first one.

    Args:
        positions_mm: (n, 3), LPS.
        axes: Columns: unit vectors along a row, along a column, and the normal.

    Returns:
        (n, 2) mm along the row and along the column.
    """
    return (positions_mm - positions_mm[0]) @ axes[:, :2]


def _sheared(stack: Stack, offsets: np.ndarray, extent: float) -> str:
    steps = np.diff(offsets, axis=0)
    lean = float(np.linalg.norm(offsets[-1]))
    if np.abs(steps - steps.mean(axis=0)).max() <= 0.1:
        tilt = math.degrees(math.atan2(lean, extent))
        what = f"is sheared: its slices go {lean:.1f} mm sideways over {extent:.1f} mm (a gantry tilt of {tilt:.1f}°)"
    else:
        k = int(np.linalg.norm(steps, axis=1).argmax())
        jump = float(np.linalg.norm(steps[k]))
        what = f"has slices moved against each other in their plane (by {jump:.1f} mm between {k + 1} and {k + 2})"
    return f"Series {stack.name} {what}, so no grid holds its voxels. Have it resampled on purpose: --straighten."


def _grid(stack: Stack, offsets: np.ndarray, step: float) -> Grid:
    first = stack.planes[0]
    down, across = spacing_mm(first)
    pixels = offsets / (across, down)
    low = np.floor(pixels.min(axis=0) + 1e-6)
    high = np.ceil(pixels.max(axis=0) - 1e-6)
    origin = np.array(first.position_mm) + stack.axes[:, :2] @ (low * (across, down))
    more_columns, more_rows = (int(n) for n in high - low)
    rows, columns = first.rows + more_rows, first.columns + more_columns
    if rows * columns * len(stack.planes) > MAX_VOXELS:
        raise DicomError(f"Series {stack.name} is sheared too far to be made straight. Export it again.")
    return Grid(
        shape=(len(stack.planes), rows, columns),
        spacing_mm=(step, down, across),
        origin_mm=(float(origin[0]), float(origin[1]), float(origin[2])),
        direction=tuple(float(v) for v in stack.axes.ravel()),
    )
