"""A stack of planes as a series on a grid: evenly spaced, of one patient, not sheared."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.uid import JPEG2000, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.headers import ImagePlane
from lnsegfm.imaging.dicom.plane_groups import PlaneGroup
from lnsegfm.imaging.dicom.rescale_type import rescale_type_notes
from lnsegfm.imaging.dicom.series_index import Series, SeriesOptions
from lnsegfm.imaging.dicom.series_traits import series_traits
from lnsegfm.imaging.dicom.slice_steps import SAME_POSITION_MM
from lnsegfm.imaging.dicom.uneven_stack import MOST_STEPS, even_planes
from lnsegfm.imaging.grid import Grid

SHEAR_TOLERANCE = 1e-3
"""A stack may lean by this many mm per mm of its height before it counts as sheared."""
TENTHS_MM = 0.18
"""Positions that are all whole tenths of a millimetre are taken as rounded: so far apart in the plane may they be."""
MAX_VOXELS = 1 << 31
"""Of a stack: 4 GiB in 16 bit."""

_LOSSY = (JPEG2000, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless)


def stack_as_series(stack: PlaneGroup, notes: tuple[str, ...], options: SeriesOptions, frames: Sequence[str]) -> Series:
    """The series that a stack is.

    Args:
        stack: One plane at each position.
        notes: Remarks about it, one line each.
        options: Whether a sheared or an uneven stack is taken.
        frames: FrameOfReferenceUID of every image that it was made of, in the order of the slices.

    Raises:
        DicomError: Too few slices, too large, slices missing, of different patients, or sheared.
    """
    first, count = stack.planes[0], len(stack.planes)
    if count < 2:
        why = "a volume needs at least two"
        raise DicomError(f"Series {stack.name} has 1 slice: {why}. Give the complete series.")
    _check_identity(stack)
    extent = float(stack.heights_mm[-1] - stack.heights_mm[0])
    uneven = stack.unevenness()
    if uneven and not options.resample_uneven:
        raise DicomError(
            f"Series {stack.name} {uneven}. Export the complete series again, or each evenly spaced part as a series "
            "of its own; or have it resampled on purpose: --resample-uneven."
        )
    planes, step = even_planes(stack.heights_mm) if uneven else (count, extent / (count - 1))
    if uneven and (widest := float(np.diff(stack.heights_mm).max())) > MOST_STEPS * step:
        raise DicomError(
            f"Series {stack.name} has a gap of {widest:.4g} mm, more than {MOST_STEPS} times the {step:.4g} mm of its "
            "other slices: what lies between is not known. Export the complete series, or its parts as series."
        )
    if max(count, planes) * first.rows * first.columns > MAX_VOXELS:
        size = f"{planes} x {first.rows} x {first.columns} voxels"
        raise DicomError(f"Series {stack.name} has {size}: more than {MAX_VOXELS}. Export fewer or smaller slices.")
    offsets = in_plane_offsets(stack.positions_mm, stack.axes)
    sheared = lean_mm(offsets) > lean_allowed_mm(stack)
    if sheared and not options.straighten:
        raise DicomError(_sheared(stack, offsets, extent))
    grid = _grid(stack, offsets if sheared else np.zeros_like(offsets), planes, step)
    frame, every = _frames(frames)
    return Series(
        uid=first.series_uid,
        study_uid=first.study_uid,
        frame_of_reference_uid=frame,
        modality=first.modality,
        description=first.description,
        number=first.number,
        patient_id=first.patient_id,
        slices=tuple(p.as_slice() for p in stack.planes),
        grid=grid,
        notes=(*notes, *stack.notes, *_notes(stack, offsets, sheared, uneven, grid), *_frame_notes(frames, every)),
        straightened=sheared,
        traits=series_traits([p.traits for p in stack.planes], grid),
        frames_of_reference=every,
        uneven=uneven is not None,
    )


def _notes(stack: PlaneGroup, offsets: np.ndarray, sheared: bool, uneven: str | None, grid: Grid) -> list[str]:
    notes = []
    if lossy := sum(p.transfer_syntax in _LOSSY for p in stack.planes):
        notes.append(f"{lossy} slices are compressed with loss: HU may be off by a few")
    if stack.planes[0].modality == "CT":
        notes += rescale_type_notes(p.rescale_type for p in stack.planes)
    instances = Counter(p.sop_instance_uid for p in stack.planes if p.frame is None and p.sop_instance_uid)
    if shared := sum(n for n in instances.values() if n > 1):
        notes.append(f"{shared} of its slices share a SOPInstanceUID: exports cannot say which slice they mean")
    if sheared:
        notes.append(f"sheared by up to {lean_mm(offsets):.1f} mm in the plane: resampled onto an orthogonal grid")
    if uneven:
        notes.append(
            f"{uneven}: its {len(stack.planes)} slices are interpolated onto {grid.shape[0]} planes "
            f"{grid.spacing_mm[0]:.4g} mm apart"
        )
    return notes


def _frames(frames: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The frame of reference of most slices (of several, the one that comes first), and all of them, that one first."""
    counts = Counter(frame for frame in frames if frame)
    every = tuple(sorted(counts, key=lambda frame: -counts[frame]))  # Counter keeps the order, and so does sorted
    return (every[0] if every else ""), every


def _frame_notes(frames: Sequence[str], every: tuple[str, ...]) -> list[str]:
    missing = sum(not frame for frame in frames)
    if not every or (len(every) == 1 and not missing):
        return []
    carried = f"exports carry that of slice {frames.index(every[0]) + 1}"
    if len(every) > 1:
        what = f"its slices state {len(every)} frames of reference (FrameOfReferenceUID)"
        what += f", and {missing} none" if missing else ""
        return [f"{what}: read as one series, as they are one stack; {carried}"]
    which = "1 of its slices states" if missing == 1 else f"{missing} of its slices state"
    return [f"{which} no frame of reference (FrameOfReferenceUID); {carried}"]


def _check_identity(stack: PlaneGroup) -> None:
    for values, what, keyword in (
        ({p.patient_id for p in stack.planes}, "patients", "PatientID"),
        ({p.study_uid for p in stack.planes}, "studies", "StudyInstanceUID"),
    ):
        if len(values) > 1:
            raise DicomError(
                f"Series {stack.name} has slices of several {what} ({keyword}). Export it again, each on its own."
            )


def in_plane_offsets(positions_mm: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """How far each slice has moved in its plane against the first one.

    Args:
        positions_mm: (n, 3), LPS.
        axes: Columns: unit vectors along a row, along a column, and the normal.

    Returns:
        (n, 2) mm along the row and along the column.
    """
    return np.asarray((positions_mm - positions_mm[0]) @ axes[:, :2])


def lean_mm(offsets: np.ndarray) -> float:
    """The farthest that a slice has moved."""
    return float(np.linalg.norm(offsets, axis=1).max())


def lean_allowed_mm(stack: PlaneGroup) -> float:
    """How far slices may have moved in their plane and still be straight: what rounding makes of positions."""
    extent = float(stack.heights_mm[-1] - stack.heights_mm[0])
    tenths = stack.positions_mm * 10
    rounded = TENTHS_MM if (np.abs(tenths - np.rint(tenths)) < 1e-6).all() else 2 * SAME_POSITION_MM
    return max(SHEAR_TOLERANCE * extent, rounded)


def moves_sideways(stack: PlaneGroup) -> bool:
    """Whether slices have moved in their plane otherwise than evenly, as in a gantry tilt."""
    offsets = in_plane_offsets(stack.positions_mm, stack.axes)
    extent = max(float(stack.heights_mm[-1] - stack.heights_mm[0]), SAME_POSITION_MM)
    even = offsets[-1] * ((stack.heights_mm - stack.heights_mm[0]) / extent)[:, None]
    return lean_mm(offsets - even) > max(lean_allowed_mm(stack), 2 * TENTHS_MM)


def _sheared(stack: PlaneGroup, offsets: np.ndarray, extent: float) -> str:
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


def _grid(stack: PlaneGroup, offsets: np.ndarray, planes: int, step: float) -> Grid:
    first: ImagePlane = stack.planes[0]
    down, across = stack.spacing_mm
    pixels = offsets / (across, down)
    low = np.floor(pixels.min(axis=0) + 1e-6)
    high = np.ceil(pixels.max(axis=0) - 1e-6)
    origin: Any = np.array(first.position_mm) + stack.axes[:, :2] @ (low * (across, down))
    more_columns, more_rows = (int(n) for n in high - low)
    rows, columns = first.rows + more_rows, first.columns + more_columns
    if rows * columns * planes > MAX_VOXELS:
        raise DicomError(f"Series {stack.name} is sheared too far to be made straight. Export it again.")
    return Grid(
        shape=(planes, rows, columns),
        spacing_mm=(step, down, across),
        origin_mm=(float(origin[0]), float(origin[1]), float(origin[2])),
        direction=tuple(float(v) for v in stack.axes.ravel()),
    )
