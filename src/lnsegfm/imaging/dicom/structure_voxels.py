"""The voxels of one structure: its contours, plane by plane.

The outlines of each plane are combined by the rules of `lnsegfm.imaging.dicom.plane_voxels`; planes go to slices by
those of `lnsegfm.imaging.dicom.contour_planes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from lnsegfm.imaging.box import Box
from lnsegfm.imaging.dicom.contour_planes import (
    ContourPlane,
    closed_contours,
    image_notes,
    planes_by_slice,
    to_index,
)
from lnsegfm.imaging.dicom.contours import fill_polygons
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.outlines import PixelSize
from lnsegfm.imaging.dicom.plane_voxels import LITTLE_LEFT, SLIT_MM, PlaneVoxels, fill_plane
from lnsegfm.imaging.dicom.skipped_slices import fill_note, filled_gaps, find_slice_gaps, gap_notes, slices_in_words
from lnsegfm.imaging.dicom.structure_set import CLOSED_TYPES, ImageOfSeries, Roi
from lnsegfm.imaging.grid import Grid

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series_index import Series

_MOST_ALONE = 100  # outlines of an empty plane that are filled one by one, to tell why it is empty


@dataclass(frozen=True)
class RoiVoxels:
    """The voxels of a structure.

    Args:
        box: The part of the volume that holds its contours; None where it has no voxel.
        voxels: Booleans of the box's shape (z, y, x).
        notes: What was passed over, moved or read by a rule, one line each.
        no_voxel: Why it has no voxel, a clause; empty where it has some.
    """

    box: Box | None
    voxels: np.ndarray = field(repr=False)
    notes: tuple[str, ...] = ()
    no_voxel: str = ""


def image_heights(series: Series) -> dict[ImageOfSeries, float]:
    """Where each image of a series lies on its grid, in slices: what ``roi_voxels`` compares contours with."""
    if series.uneven:  # what was drawn on slice k is moved to plane k
        places = np.arange(len(series.slices), dtype=float)
    else:
        places = to_index(np.array([each.position_mm for each in series.slices]), series.grid)[:, 2]
    return {
        (each.sop_instance_uid, each.frame or 0): float(place)
        for each, place in zip(series.slices, places, strict=True)
        if each.sop_instance_uid
    }


def roi_voxels(
    roi: Roi, grid: Grid, *, images: Mapping[ImageOfSeries, float] | None = None, fill_between: bool = False
) -> RoiVoxels:
    """The voxels of a structure, and what was passed over or read by a rule.

    Contours between slices go to the nearest slice, at most half a slice distance away. Where several planes go to one
    slice the nearest counts, as it describes the slice best; a farther one adds only connected components that nothing
    nearer touches. Points, open contours, closed ones of fewer than three points, and exact repetitions are skipped.

    Args:
        roi: The structure.
        grid: Of the series.
        images: Of ``image_heights``: contours that name one of these images and lie elsewhere are reported.
        fill_between: Fill in slices that were skipped between contoured ones (``skipped_slices``).

    Raises:
        DicomError: The structure is damaged, a contour is not parallel to the slices, none reaches a slice, or more
            outlines cover each other than anybody draws.
    """
    if roi.damage:
        raise DicomError(roi.damage)
    contours, notes = closed_contours(roi, grid)
    if not contours:
        return _without_voxels(notes, _nothing_closed(roi))
    notes += image_notes(roi.name, contours, images or {})
    planes, moved = planes_by_slice(roi.name, contours, grid.shape[0])
    notes += moved
    box = _box([outline for groups in planes.values() for plane in groups for outline in plane.outlines], planes, grid)
    if isinstance(box, str):
        return _without_voxels(notes, box)
    tally = _Tally(roi, grid)
    voxels = np.zeros([part.stop - part.start for part in box], dtype=bool)
    for k, groups in planes.items():
        for number, plane in enumerate(groups):
            filled = tally.fill(k, plane, box)
            own = voxels[k - box[0].start]
            own |= filled if number == 0 else _separate_components(filled, own)
    notes += tally.notes()
    if not voxels.any():
        return _without_voxels(notes, tally.reason)
    single = {k - box[0].start for k, groups in planes.items() if sum(len(each.contours) for each in groups) == 1}
    gaps = find_slice_gaps(voxels, grid.spacing_mm, single)
    notes += tally.empty_slices() + gap_notes(tally.title, voxels, gaps, box[0].start, grid.spacing_mm[0])
    if fill_between and gaps:
        voxels, added = filled_gaps(voxels, gaps, grid.spacing_mm[1:])
        notes += [fill_note(tally.title, added, box[0].start)] if added else []
    return RoiVoxels(box, voxels, tuple(notes))


class _Tally:
    """What the planes of a structure needed, and which of them hold no voxel."""

    def __init__(self, roi: Roi, grid: Grid) -> None:
        self.title, self.contours = f"Structure {roi.name!r}", len(roi.contours)
        self.pixel = PixelSize(grid.spacing_mm[2], grid.spacing_mm[1])
        self.planes: dict[int, list[PlaneVoxels]] = {}
        self.empty: dict[int, str] = {}

    def fill(self, k: int, plane: ContourPlane, box: Box) -> np.ndarray:
        """The voxels of a plane that is read at slice ``k``, within the rows and columns of ``box``."""
        _, along_y, along_x = box
        shape, corner = (along_y.stop - along_y.start, along_x.stop - along_x.start), (along_y.start, along_x.start)
        try:
            filled = fill_plane(plane.outlines, shape, corner, pixel=self.pixel, exclusive_or=plane.exclusive_or)
        except DicomError as error:
            again = "Export it again, or leave this structure out"
            raise DicomError(f"{self.title}: slice {k + 1} cannot be read: {error}. {again}.") from None
        self.planes.setdefault(k, []).append(filled)
        if not filled.voxels.any():
            alone = any(fill_polygons([each], shape, corner).any() for each in plane.outlines[:_MOST_ALONE])
            self.empty[k] = "cancel each other" if alone and len(plane.outlines) > 1 else "hold no voxel centre"
        return filled.voxels

    def notes(self) -> list[str]:
        """A line about each rule that was needed."""
        lines, every = [], [plane for planes in self.planes.values() for plane in planes]
        of_all = f"of {self.contours} contours"
        if repeats := sum(plane.repeats for plane in every):
            lines.append(f"{repeats} {of_all} repeat another one of their slice: counted once.")
        if turns := sum(plane.turns for plane in every):
            lines.append(f"{turns} {of_all} go round more than once: counted once.")
        if joined := sum(plane.joined for plane in every):
            where = slices_in_words([k for k, planes in self.planes.items() if any(plane.joined for plane in planes)])
            lines.append(f"contours that overlap in part are joined ({joined} voxels; {where.rpartition(' ')[0]}).")
        if reaching := sum(plane.reaching_out for plane in every):
            lines.append(f"{reaching} {of_all} reach a little out of the contour around them: read as holes.")
        if bridged := sum(plane.bridged for plane in every):
            lines.append(f"slits narrower than {SLIT_MM:g} mm that lead to holes are closed ({bridged} voxels).")
        if little := [k for k, planes in self.planes.items() if any(plane.little_left for plane in planes)]:
            where = slices_in_words(little).rpartition(" ")[0]
            share = f"less than {100 * LITTLE_LEFT:.0f} %"
            lines.append(f"contours within contours are read as holes and leave {share} of the outer one ({where}).")
        return [f"{self.title}: {line}" for line in lines]

    @property
    def reason(self) -> str:
        """Why nothing holds a voxel, a clause."""
        if "cancel each other" in self.empty.values():
            return "its contours cancel each other"
        return "it is smaller than a voxel: its contours hold no voxel centre"

    def empty_slices(self) -> list[str]:
        """A line about slices that are drawn on and hold no voxel."""
        lines = []
        for why in dict.fromkeys(self.empty.values()):
            where = slices_in_words([k for k, given in self.empty.items() if given == why]).rpartition(" ")[0]
            lines.append(f"{self.title}: its contours on {where} {why}: nothing is read there.")
        return lines


def _nothing_closed(roi: Roi) -> str:
    if not roi.contours:
        return roi.no_contours or "nothing was drawn for it"
    kinds = {contour.kind for contour in roi.contours}
    if kinds == {"POINT"}:
        return "it consists of points"
    if not kinds.intersection(CLOSED_TYPES):
        return f"its contours are of type {', '.join(sorted(kind or 'unknown' for kind in kinds))}, which is not read"
    return "none of its contours is closed and has three points"


def _without_voxels(notes: list[str], why: str) -> RoiVoxels:
    return RoiVoxels(None, np.zeros((0, 0, 0), dtype=bool), tuple(notes), why)


def _box(outlines: list[np.ndarray], planes: Iterable[int], grid: Grid) -> Box | str:
    """The voxels that outlines may hold, or why there are none."""
    points = np.concatenate(outlines)
    size = np.array(grid.shape[:0:-1])
    lowest, highest = points.min(axis=0), points.max(axis=0)
    low = np.clip(np.ceil(lowest), 0, size).astype(int)
    high = np.clip(np.floor(highest) + 1, 0, size).astype(int)
    if (lowest > size - 0.5).any() or (highest < -0.5).any():
        return "its contours lie outside the image, to its side"
    if (low >= high).any():
        return "it is smaller than a voxel: its contours hold no voxel centre"
    ks = list(planes)
    return slice(min(ks), max(ks) + 1), slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def _separate_components(plane: np.ndarray, nearer: np.ndarray) -> np.ndarray:
    """Connected components of ``plane`` that share no voxel with ``nearer``."""
    components, _ = ndimage.label(plane)
    return plane & ~np.isin(components, np.unique(components[nearer]))
