"""Is a structure set what it was made of? Read back before it is put in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lnsegfm.imaging.box import Box
from lnsegfm.imaging.dicom.contour_thinning import farthest_mm
from lnsegfm.imaging.dicom.contours import trace_outlines
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.rtstruct_options import Thinning
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.rtstruct_rois import NewRoi
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.dicom.structure_masks import roi_voxels, to_index
from lnsegfm.imaging.dicom.structure_set import Roi, mismatch
from lnsegfm.imaging.dicom.uneven_stack import roi_on_slices

_ROUNDED_MM = 1e-4
"""What rounded coordinates may add to a distance."""
_REPORT = "Nothing was written; please report it with the series' spacing and orientation."


@dataclass(frozen=True)
class RoiDifference:
    """How a structure that was read back differs from its mask.

    Args:
        voxels: How many are in one of the two only.
        volume: How much larger it is, as a share of the mask's volume.
    """

    voxels: int = 0
    volume: float = 0.0


def require_same_structures(
    place: Path, path: Path, rois: Sequence[NewRoi], series: Series, thin: Thinning | None
) -> Mapping[str, RoiDifference]:
    """Refuse a file that does not give back what it was made of; give how each structure differs.

    Args:
        place: The file as it is.
        path: What it will be called.
        rois: Its structures.
        series: What they were drawn on.
        thin: The bounds of contours that were thinned; None asks for every voxel.

    Raises:
        DicomError: It does not.
    """
    read = read_rtstruct(place)
    if (why := mismatch(read, series)) is not None:
        raise DicomError(f"{path}: read back, {why}. Nothing was written.")
    read_rois = {roi.number: roi for roi in read.rois}
    differences: dict[str, RoiDifference] = {}
    for new in rois:
        roi = read_rois.get(new.number)
        if roi is None or roi.name != new.name:
            raise DicomError(f"{path}: read back, structure {new.name!r} is not there. Nothing was written.")
        roi = roi_on_slices(roi, series)
        again = roi_voxels(roi, series.grid)
        different = _differing(new, again.box, again.voxels)
        volume, count = int(np.count_nonzero(new.voxels)), int(np.count_nonzero(again.voxels))
        differences[new.name] = RoiDifference(different, (count - volume) / max(1, volume))
        if thin is None and different:
            raise DicomError(f"{path}: read back, {different} voxels of structure {new.name!r} differ. {_REPORT}")
        if thin is not None and new.box is not None:
            change = abs(differences[new.name].volume)
            if change > thin.share:
                raise DicomError(f"{path}: read back, the volume of {new.name!r} differs by {change:.2%}. {_REPORT}")
            _require_near(path, new, roi, series, thin)
    return differences


def _require_near(path: Path, new: NewRoi, roi: Roi, series: Series, thin: Thinning) -> None:
    assert new.box is not None
    spacing = series.grid.spacing_mm[1:]
    by_slice: dict[int, list[np.ndarray]] = {}
    for contour in roi.contours:
        index = to_index(contour.points_mm, series.grid)
        by_slice.setdefault(round(float(index[:, 2].mean())), []).append(index[:, :2])
    along_z, along_y, along_x = new.box
    for k, plane in enumerate(new.voxels, start=along_z.start):
        exact = [polygon + np.array((along_x.start, along_y.start)) for polygon in trace_outlines(plane)]
        drawn = by_slice.get(k, [])
        if not exact and not drawn:
            continue
        if not exact or not drawn:
            raise DicomError(f"{path}: read back, slice {k + 1} of {new.name!r} differs. {_REPORT}")
        off = max(
            farthest_mm(np.concatenate(exact), drawn, spacing), farthest_mm(np.concatenate(drawn), exact, spacing)
        )
        if off > thin.mm + _ROUNDED_MM:
            raise DicomError(f"{path}: read back, a contour of {new.name!r} is {off:.3g} mm off. {_REPORT}")


def _differing(new: NewRoi, box: Box | None, voxels: np.ndarray) -> int:
    """Number of voxels that are in one of the two only."""
    if new.box is None or box is None:
        return int(new.voxels.sum()) + int(voxels.sum())
    both = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(new.box, box, strict=True))
    sums = np.zeros([part.stop - part.start for part in both], dtype=bool)
    for part, own in ((new.box, new.voxels), (box, voxels)):
        inside = tuple(slice(o.start - b.start, o.stop - b.start) for o, b in zip(part, both, strict=True))
        sums[inside] ^= own
    return int(np.count_nonzero(sums))
