"""Where contours and frames lie on a series: on its slices and within its images, or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.annotation import Annotation
from lnsegfm.imaging.dicom.contour_planes import TILT, to_index
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.drawn_structure import DrawnStructure
from lnsegfm.imaging.dicom.seg_geometry import FramePlane, place_on_grid
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.dicom.structure_set import CLOSED_TYPES
from lnsegfm.imaging.dicom.uneven_stack import points_on_slices, slice_grid

ON_SLICE = 0.1
"""A contour this close to a slice, in slice distances, lies on it; rounded coordinates are."""
MARGIN = 1.0
"""Voxels that a contour may reach beyond the image: outlines of a patient that the field of view cuts."""
SHARE = 0.9
"""Part of the contours or frames of a structure that must lie on the slices."""


@dataclass(frozen=True)
class TreeGeometry:
    """The series of a tree, and where structures lie on them. A file is read when it is first asked for.

    Args:
        series: The series.
    """

    series: Sequence[Series]
    _contents: dict[Path, dict[int | None, list[np.ndarray | FramePlane]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @cached_property
    def images(self) -> list[frozenset[str]]:
        """SOPInstanceUIDs of the slices of each series."""
        return [frozenset(each.sop_instance_uid for each in s.slices if each.sop_instance_uid) for s in self.series]

    def lies_on(self, annotation: Annotation, structure: DrawnStructure, place: int) -> bool:
        """Whether nine of ten closed contours, or frames, of a structure lie on slices of a series, within its images.

        A structure without any lies nowhere.
        """
        series, parts = self.series[place], self._parts(annotation).get(structure.number, [])
        on = [_contour_on(p, series) if isinstance(p, np.ndarray) else _frame_on(p, series) for p in parts]
        return bool(on) and float(np.mean(on)) >= SHARE

    def _parts(self, annotation: Annotation) -> dict[int | None, list[np.ndarray | FramePlane]]:
        if annotation.path not in self._contents:
            try:
                self._contents[annotation.path] = _read_parts(annotation)
            except DataError:  # reading its voxels tells what is wrong
                self._contents[annotation.path] = {}
        return self._contents[annotation.path]


def _read_parts(annotation: Annotation) -> dict[int | None, list[np.ndarray | FramePlane]]:
    """Contours (n, 3), or planes of frames, by number of the structure."""
    if annotation.kind == "SEG":
        from lnsegfm.imaging.dicom.seg_read import read_seg

        frames = read_seg(annotation.path).frames
        numbers = {structure.number for structure in annotation.structures}
        return {n: [frame.plane for frame in frames if frame.segment in (n, None)] for n in numbers}
    from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct

    return {
        roi.number: [c.points_mm for c in roi.contours if c.kind in CLOSED_TYPES and len(c.points_mm) > 2]
        for roi in read_rtstruct(annotation.path).rois
    }


def _contour_on(points_mm: np.ndarray, series: Series) -> bool:
    index = to_index(points_mm, series.grid)
    if np.ptp(index[:, 2]) > TILT:
        return False
    _, rows, columns = series.grid.shape
    low, high = index[:, :2].min(axis=0), index[:, :2].max(axis=0)
    if (low < -0.5 - MARGIN).any() or (high > np.array([columns, rows]) - 0.5 + MARGIN).any():
        return False
    return _on_slice(points_mm.mean(axis=0), series)


def _frame_on(plane: FramePlane, series: Series) -> bool:
    x, y, z = (
        points_on_slices(np.array([plane.position_mm]), series)[0].tolist() if series.uneven else plane.position_mm
    )
    try:
        place_on_grid(replace(plane, position_mm=(x, y, z)), slice_grid(series))
    except DicomError:
        return False
    return _on_slice(np.array(plane.position_mm), series)


def _on_slice(point_mm: np.ndarray, series: Series) -> bool:
    normal = np.array(series.grid.direction).reshape(3, 3)[:, 2]
    heights = np.array([each.position_mm for each in series.slices]) @ normal
    return float(np.abs(heights - point_mm @ normal).min()) <= ON_SLICE * series.grid.spacing_mm[0]
