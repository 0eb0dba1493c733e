"""Contours in every way in which one shape may be written, and structure sets that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from lnsegfm.imaging.dicom.rtstruct_write import write_rtstruct
from lnsegfm.imaging.dicom.series_index import Series


def blob(x: float, y: float, radii: Sequence[float]) -> np.ndarray:
    """A star-shaped outline: one radius a direction."""
    angle = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    return np.stack((x + radii * np.cos(angle), y + radii * np.sin(angle)), axis=1)


def circle(x: float, y: float, radius: float, points: int = 40) -> np.ndarray:
    return blob(x, y, np.full(points, radius))


def again(outline: np.ndarray, *, start: int = 0, back: bool = False, closed: bool = False) -> np.ndarray:
    """The same outline from another point on, the other way round, with its first point at the end."""
    turned = np.roll(outline, -start, axis=0)
    turned = turned[::-1] if back else turned
    return np.concatenate((turned, turned[:1])) if closed else turned


def with_points(outline: np.ndarray, places: Sequence[float]) -> np.ndarray:
    """The outline with more points on its sides, at parts of its number of points."""
    at = np.sort(np.concatenate((np.arange(len(outline)), [p % len(outline) for p in places])))
    side, part = np.floor(at).astype(int), at - np.floor(at)
    return outline[side] + part[:, None] * (np.roll(outline, -1, axis=0)[side] - outline[side])


def keyhole(outer: np.ndarray, hole: np.ndarray, more: int = 0) -> np.ndarray:
    """One outline that reaches a hole through a slit, both ways of which coincide; ``more`` points lie on the slit."""
    slit = np.linspace(outer[0], hole[0], more + 2)[1:-1]
    return np.concatenate((outer, outer[:1], slit, hole, hole[:1], slit[::-1]))


def write_contours(
    path: Path, series: Series, rois: dict[str, list[tuple[int, np.ndarray]]], kind: str = "CLOSED_PLANAR"
) -> Path:
    """A structure set of outlines (slice, points as (x, y) in mm) on a series whose slices are axial."""
    voxels = np.zeros(series.grid.shape, np.uint8)
    voxels[0, 0, : len(rois)] = np.arange(1, len(rois) + 1)  # what is replaced by the outlines
    write_rtstruct(path, voxels, {name: k for k, name in enumerate(rois, start=1)}, series)
    data = pydicom.dcmread(path)
    for item, outlines in zip(data.ROIContourSequence, rois.values(), strict=True):
        item.ContourSequence = [_contour(series, k, outline, kind) for k, outline in outlines]
    data.save_as(path)
    return path


def _contour(series: Series, k: int, outline: np.ndarray, kind: str) -> Dataset:
    contour, image = Dataset(), Dataset()
    image.ReferencedSOPClassUID = series.slices[k].sop_class_uid
    image.ReferencedSOPInstanceUID = series.slices[k].sop_instance_uid
    contour.ContourImageSequence = [image]
    contour.ContourGeometricType = kind
    points = np.column_stack((outline, np.full(len(outline), series.slices[k].position_mm[2])))
    contour.NumberOfContourPoints = len(points)
    contour.ContourData = [f"{v:.6f}".rstrip("0").rstrip(".") for v in points.ravel()]
    return contour
