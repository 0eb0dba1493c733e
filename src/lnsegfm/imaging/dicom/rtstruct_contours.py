"""The contours of a structure: outlines of its planes as polygons, in patient coordinates, as items of a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from scipy import ndimage

from lnsegfm.imaging.dicom.contour_thinning import thinned
from lnsegfm.imaging.dicom.contours import fill_polygons, trace_outlines
from lnsegfm.imaging.dicom.keyholes import hole_owners, keyholed, walked
from lnsegfm.imaging.dicom.rtstruct_options import Thinning
from lnsegfm.imaging.dicom.rtstruct_profiles import RtstructProfile
from lnsegfm.imaging.dicom.rtstruct_rois import NewRoi, off_plane_mm
from lnsegfm.imaging.dicom.series_index import Series

DECIMALS = 6
"""Of a coordinate in mm: a nanometre, with room for 100 m and a sign in the 16 characters of a DICOM number."""
_SHIFTS = ((0.0, 0.0), (1e-4, -2e-4), (-1e-4, 2e-4))
"""Readers decide otherwise than we do on voxel centres on a slanted side: whoever is right, the bound is kept."""
_LEVELS = (1.0, 0.5, 0.25, 0.125)
"""Shares of the distance that are tried until a structure's volume stays within its bound."""


@dataclass(frozen=True)
class RoiContours:
    """The contours of a structure.

    Args:
        planes: Slice and polygons (n, 2) as (column, row) of the grid.
        points: How many there are.
        exact_points: How many there are along voxel edges.
    """

    planes: tuple[tuple[int, tuple[np.ndarray, ...]], ...] = ()
    points: int = 0
    exact_points: int = 0


def roi_contours(
    new: NewRoi, profile: RtstructProfile, thin: Thinning | None, spacing_mm: tuple[float, float]
) -> RoiContours:
    """The contours of a structure, thinned as far as its volume allows.

    Args:
        new: The structure.
        profile: How holes are drawn, and points a contour.
        thin: The bounds; None follows voxel edges.
        spacing_mm: Of rows and of columns.
    """
    if new.box is None:
        return RoiContours()
    exact = _contours(new, profile)
    points = _number_of_points(exact)
    volume = int(np.count_nonzero(new.voxels))
    for level in _LEVELS if thin is not None else ():
        assert thin is not None
        for middles in (True, False):
            planes = _contours(new, profile, (thin.mm * level, spacing_mm, middles))
            if (thinned_points := _number_of_points(planes)) >= points:
                continue
            changes = [abs(_filled_voxels(planes, shift) - volume) / volume for shift in _SHIFTS]
            if max(changes) <= thin.share:
                return RoiContours(planes, thinned_points, points)
    return RoiContours(exact, points, points)


def plane_contours(
    plane: np.ndarray, profile: RtstructProfile, thin: tuple[float, tuple[float, float], bool] | None = None
) -> list[np.ndarray]:
    """The polygons of a plane, none of more points than the profile takes; longer ones are cut along voxel edges.

    Args:
        plane: Booleans (rows, columns).
        profile: How holes are drawn, and points a contour.
        thin: Distance in mm, spacing of rows and columns, and the start of `thinned`; None follows voxel edges.
    """
    outlines = trace_outlines(plane)
    if not outlines:
        return []
    owners = hole_owners(outlines)
    drawn = outlines if thin is None else thinned(outlines, thin[0], thin[1], middles=thin[2])
    drawn = [walked(p, hole=owner is not None) for p, owner in zip(drawn, owners, strict=True)]
    if profile.holes == "keyhole":
        drawn = [
            keyholed(polygon, [hole for hole, owner in zip(drawn, owners, strict=True) if owner == number])
            for number, polygon in enumerate(drawn)
            if owners[number] is None
        ]
    if profile.points is None or max(map(len, drawn)) <= profile.points or np.count_nonzero(plane) < 2:
        return drawn
    return [polygon for part in _halves(plane) for polygon in plane_contours(part, profile, thin)]


def _halves(plane: np.ndarray) -> list[np.ndarray]:
    """The components of a plane; the two halves of a plane of one component."""
    components, count = ndimage.label(plane)
    if count > 1:
        return [components == number for number in range(1, count + 1)]
    axis_y, axis_x = ndimage.find_objects(plane.astype(np.uint8))[0]
    first = np.zeros_like(plane)
    if axis_y.stop - axis_y.start >= axis_x.stop - axis_x.start:
        first[: (axis_y.start + axis_y.stop) // 2] = True
    else:
        first[:, : (axis_x.start + axis_x.stop) // 2] = True
    return [plane & first, plane & ~first]


def contours_item(new: NewRoi, contours: RoiContours, series: Series) -> Dataset:
    """The item of ROIContourSequence."""
    item = Dataset()
    item.ROIDisplayColor, item.ReferencedROINumber = list(new.colour), new.number
    off = off_plane_mm(series)
    item.ContourSequence = [
        _contour(_to_mm(polygon, k, float(off[k]), series), k, series)
        for k, polygons in contours.planes
        for polygon in polygons
    ]
    return item


def image_item(instance: str, storage: str, frame: int | None = None) -> Dataset:
    """A reference to an image, or to a frame of it (from 0)."""
    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = storage, instance
    if frame is not None:
        image.ReferencedFrameNumber = frame + 1
    return image


def _contours(
    new: NewRoi, profile: RtstructProfile, thin: tuple[float, tuple[float, float], bool] | None = None
) -> tuple[tuple[int, tuple[np.ndarray, ...]], ...]:
    return tuple(_planes(new, profile, thin))


def _planes(
    new: NewRoi, profile: RtstructProfile, thin: tuple[float, tuple[float, float], bool] | None
) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
    assert new.box is not None
    along_z, along_y, along_x = new.box
    corner = np.array((along_x.start, along_y.start))
    for k, plane in enumerate(new.voxels, start=along_z.start):
        if plane.any():
            yield k, tuple(polygon + corner for polygon in plane_contours(plane, profile, thin))


def _filled_voxels(planes: Sequence[tuple[int, tuple[np.ndarray, ...]]], shift: tuple[float, float]) -> int:
    """How many voxels the contours hold, moved by a part of a voxel."""
    count = 0
    for _, exact in planes:
        polygons = [polygon + shift for polygon in exact]
        points = np.concatenate(polygons)
        low, high = np.floor(points.min(axis=0)).astype(int), np.ceil(points.max(axis=0)).astype(int) + 1
        shape = (int(high[1] - low[1]), int(high[0] - low[0]))
        count += int(np.count_nonzero(fill_polygons(polygons, shape, (int(low[1]), int(low[0])))))
    return count


def _number_of_points(planes: Sequence[tuple[int, tuple[np.ndarray, ...]]]) -> int:
    return sum(len(polygon) for _, polygons in planes for polygon in polygons)


def _contour(points_mm: np.ndarray, k: int, series: Series) -> Dataset:
    item, of = Dataset(), series.slices[k]
    item.ContourImageSequence = [image_item(of.sop_instance_uid, of.sop_class_uid, of.frame)]
    item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(points_mm)
    words = "\\".join(f"{v:.{DECIMALS}f}" for v in (points_mm.round(DECIMALS) + 0.0).flat)  # no -0.000000
    item.add(DataElement("ContourData", "DS", words, already_converted=True))  # pydicom makes an object of each number
    return item


def _to_mm(polygon: np.ndarray, k: int, off_mm: float, series: Series) -> np.ndarray:
    grid = series.grid
    across, down, normal = np.array(grid.direction).reshape(3, 3).T
    column, row = polygon.T[:, :, None]
    plane = np.array(grid.origin_mm) + normal * (k * grid.spacing_mm[0] + off_mm)
    placed: np.ndarray = plane + across * (column * grid.spacing_mm[2]) + down * (row * grid.spacing_mm[1])
    return placed
