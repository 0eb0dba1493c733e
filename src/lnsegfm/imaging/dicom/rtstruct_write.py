"""Write RT Structure Sets (DICOM PS3.3 A.19); each is read back before it is put in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from scipy import ndimage

from lnsegfm.imaging.box import Box
from lnsegfm.imaging.dicom.contours import trace_outlines
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.rtstruct_header import NOT_CLINICAL, dataset_with_identity
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.dicom.structure_masks import roi_voxels
from lnsegfm.imaging.dicom.structure_set import mismatch
from lnsegfm.imaging.dicom.uneven_stack import roi_on_slices, written_on_slices
from lnsegfm.storage import atomic_write

COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
"""Colours that the colour-blind tell apart: Okabe and Ito, https://jfly.uni-koeln.de/color, without black."""
DECIMALS = 6
"""Of a coordinate in mm: a nanometre, with room for 100 m and a sign in the 16 characters of a DICOM number."""
_ON_GRID = 0.1  # of the slice distance: how far a slice may be from its plane of the grid
_DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"  # PS3.3 C.8.8.5 asks for this class, retired as it is


@dataclass(frozen=True)
class _NewRoi:
    """A structure to be written: its name, its box in the volume (None: it has no voxel), and its voxels there."""

    number: int
    name: str
    colour: tuple[int, int, int]
    box: Box | None
    voxels: np.ndarray


def write_rtstruct(
    path: Path,
    mask: np.ndarray,
    labels: Mapping[str, int],
    series: Series,
    *,
    instances: np.ndarray | None = None,
    names: Mapping[int, str] | None = None,
    structure_set: str = "lnsegfm",
    description: str = "",
    algorithm: str = "lnsegfm",
    software: str | None = None,
    interpreted_type: str = "ORGAN",
    stamp: datetime | None = None,
    seed: str | None = None,
) -> None:
    """Write a mask as a structure set of the series that it was made of.

    Contours follow voxel edges on the series' slices, holes as contours of their own, so that whoever takes the voxels
    whose centres lie inside an odd number of contours gets the mask. The file is read back by ``read_rtstruct`` and
    only renamed to ``path`` if that is so for every voxel.

    Args:
        path: The file.
        mask: Label values (z, y, x) on ``series.grid``.
        labels: Values by label; each becomes a structure of its name. 0 is background. A label without a voxel becomes
            a structure without contours.
        series: What the mask was made of. Patient and study are those of its first slice.
        instances: Numbers of the instances (nodes) of labels, 0 where there is none. Each becomes a structure; what is
            left of a label, if anything, becomes one by the label's name.
        names: Names of instances by number; ``<label>_<number>`` unless given.
        structure_set: StructureSetLabel, at most 16 characters.
        description: Follows "Not for clinical use." in the description.
        algorithm: What made the contours, for ROIGenerationDescription; the algorithm's type is AUTOMATIC.
        software: SoftwareVersions; this package's version unless given.
        interpreted_type: RTROIInterpretedType. ORGAN says anatomy; GTV would say that somebody found a tumour in it.
        stamp: When it was made; now unless given.
        seed: Gives the same UIDs every time. New ones unless given.

    Raises:
        DicomError: The mask does not fit the series or the labels, the series lacks what a structure set refers to, or
            reading back gives other voxels. Nothing is written then.
    """
    _check(mask, labels, series, instances)
    mask, instances, series = written_on_slices(mask, instances, series)
    rois = list(_new_rois(mask, labels, instances, names or {}))
    if wrong := [p.name for p in rois if not 0 < len(p.name) <= 64 or "\\" in p.name or not p.name.isprintable()]:
        raise DicomError(
            f"Structure name {wrong[0][:80]!r}: DICOM takes 1 to 64 characters, no backslash. Rename the label."
        )
    if len(structure_set) > 16:
        raise DicomError(f"Structure set label {structure_set!r}: DICOM takes at most 16 characters. Shorten it.")
    data = dataset_with_identity(series, stamp or datetime.now(), seed)
    data.SoftwareVersions = software or version("lnsegfm")
    data.StructureSetLabel = structure_set
    data.StructureSetDescription = f"{NOT_CLINICAL} {description}".strip()
    data.ReferencedFrameOfReferenceSequence = [_frame_of_reference_item(series)]
    data.StructureSetROISequence = [_roi_item(roi, series, algorithm) for roi in rois]
    data.ROIContourSequence = [_contours_item(roi, series) for roi in rois]
    data.RTROIObservationsSequence = [_observation_item(roi, interpreted_type) for roi in rois]
    with atomic_write(path) as place:
        data.save_as(place, enforce_file_format=True)
        _read_back(place, path, rois, series)


def _check(mask: np.ndarray, labels: Mapping[str, int], series: Series, instances: np.ndarray | None) -> None:
    for what, array in (("Mask", mask), ("Instances", instances)):
        if array is None:
            continue
        if array.dtype != np.bool_ and not np.issubdtype(array.dtype, np.integer):
            raise DicomError(f"{what} of {array.dtype}: voxels hold whole numbers. Pass an array of integers.")
        if array.shape != series.grid.shape:
            given, wanted = ("x".join(map(str, shape)) for shape in (array.shape, series.grid.shape))
            raise DicomError(
                f"{what} of {given} voxels: series {series.name} has {wanted} (z, y, x). "
                "Resample it onto the series' grid."
            )
    if len(set(labels.values())) < len(labels) or any(value < 0 for value in labels.values()):
        raise DicomError(f"Labels {dict(labels)}: each has a value of its own, from 0. Correct the values.")
    lacking = [
        what
        for what, has in (
            ("SeriesInstanceUID", series.uid),
            ("StudyInstanceUID", series.study_uid),
            ("FrameOfReferenceUID", series.frame_of_reference_uid),
            ("SOPInstanceUID of every slice", all(s.sop_instance_uid and s.sop_class_uid for s in series.slices)),
        )
        if not has
    ]
    if lacking:
        raise DicomError(
            f"Series {series.name}: it has no {', no '.join(lacking)}, and a structure set refers to slices by them. "
            "Write another format, or export the series with its UIDs."
        )
    off = np.zeros(1) if series.uneven else np.abs(_off_plane_mm(series))
    if off.max() > _ON_GRID * series.grid.spacing_mm[0]:
        k = int(off.argmax())
        raise DicomError(
            f"Series {series.name}: slice {k} is {off[k]:.3g} mm from its plane of the grid. Give the slices in the "
            "grid's order."
        )


def _new_rois(
    mask: np.ndarray, labels: Mapping[str, int], instances: np.ndarray | None, names: Mapping[int, str]
) -> Iterator[_NewRoi]:
    by_value = {value: (label, COLOURS[n % len(COLOURS)]) for n, (label, value) in enumerate(_foreground(labels))}
    boxes = _boxes(mask)
    if unknown := sorted(set(boxes) - set(by_value)):
        known = ", ".join(f"{label} {value}" for label, value in _foreground(labels)) or "none"
        raise DicomError(f"Mask value {unknown[0]}: no label has it (labels: {known}). Name every value of the mask.")
    number, labels_of_instances = 0, set()
    numbered = np.zeros((1, 1, 1), dtype=np.uint8) if instances is None else instances
    for instance, place in _boxes(numbered).items():
        voxels = numbered[place] == instance
        values = np.unique(mask[place][voxels])
        if len(values) > 1 or not values[0]:
            raise DicomError(
                f"Instance {instance}: it covers mask values {values.tolist()}. Number voxels of one label."
            )
        label, _ = by_value[int(values[0])]
        labels_of_instances.add(label)
        number += 1
        name = names.get(instance, f"{label}_{instance}")
        yield _NewRoi(number, name, COLOURS[(number - 1) % len(COLOURS)], place, voxels)
    for value, (label, colour) in by_value.items():
        box = boxes.get(value)
        voxels = np.zeros((0, 0, 0), dtype=bool)
        if box is not None:
            voxels = mask[box] == value
            if instances is not None:
                voxels &= instances[box] == 0
        if not voxels.any():
            if label in labels_of_instances:
                continue
            box = None
        number += 1
        yield _NewRoi(number, label, colour, box, voxels)


def _foreground(labels: Mapping[str, int]) -> list[tuple[str, int]]:
    return [(label, value) for label, value in labels.items() if value != 0]


def _boxes(values: np.ndarray) -> dict[int, Box]:
    """The smallest box of each value except 0."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise DicomError(f"Values {low} to {high}: they go from 0 to 65535. Renumber them.")
    number = values.view(np.uint8) if values.dtype == np.bool_ else values
    return {n: box for n, box in enumerate(ndimage.find_objects(number), start=1) if box is not None}


def _frame_of_reference_item(series: Series) -> Dataset:
    of_series, study, frame = Dataset(), Dataset(), Dataset()
    of_series.SeriesInstanceUID = series.uid
    files = {s.sop_instance_uid: s.sop_class_uid for s in series.slices}  # a multi-frame file once
    of_series.ContourImageSequence = [_image(instance, storage) for instance, storage in files.items()]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _DETACHED_STUDY, series.study_uid
    study.RTReferencedSeriesSequence = [of_series]
    frame.FrameOfReferenceUID = series.frame_of_reference_uid
    frame.RTReferencedStudySequence = [study]
    return frame


def _image(instance: str, storage: str, frame: int | None = None) -> Dataset:
    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = storage, instance
    if frame is not None:
        image.ReferencedFrameNumber = frame + 1
    return image


def _roi_item(new: _NewRoi, series: Series, algorithm: str) -> Dataset:
    item = Dataset()
    item.ROINumber, item.ROIName = new.number, new.name
    item.ReferencedFrameOfReferenceUID = series.frame_of_reference_uid
    item.ROIGenerationAlgorithm, item.ROIGenerationDescription = "AUTOMATIC", algorithm[:64]
    return item


def _observation_item(new: _NewRoi, interpreted_type: str) -> Dataset:
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = new.number
    item.RTROIInterpretedType, item.ROIInterpreter = interpreted_type, ""
    return item


def _contours_item(new: _NewRoi, series: Series) -> Dataset:
    item = Dataset()
    item.ROIDisplayColor, item.ReferencedROINumber = list(new.colour), new.number
    contours = []
    if new.box is not None:
        along_z, along_y, along_x = new.box
        corner, off = np.array((along_x.start, along_y.start)), _off_plane_mm(series)
        for k, plane in enumerate(new.voxels, start=along_z.start):
            for polygon in trace_outlines(plane):
                points = _to_mm(polygon + corner, k, float(off[k]), series)
                contours.append(_contour(points, k, series))
        item.ContourSequence = contours
    return item


def _contour(points_mm: np.ndarray, k: int, series: Series) -> Dataset:
    item, of = Dataset(), series.slices[k]
    item.ContourImageSequence = [_image(of.sop_instance_uid, of.sop_class_uid, of.frame)]
    item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(points_mm)
    words = "\\".join(f"{v:.{DECIMALS}f}" for v in (points_mm.round(DECIMALS) + 0.0).flat)  # no -0.000000
    item.add(DataElement("ContourData", "DS", words, already_converted=True))  # pydicom makes an object of each number
    return item


def _to_mm(polygon: np.ndarray, k: int, off_mm: float, series: Series) -> np.ndarray:
    grid = series.grid
    across, down, normal = np.array(grid.direction).reshape(3, 3).T
    column, row = polygon.T[:, :, None]
    plane = np.array(grid.origin_mm) + normal * (k * grid.spacing_mm[0] + off_mm)
    return plane + across * (column * grid.spacing_mm[2]) + down * (row * grid.spacing_mm[1])


def _off_plane_mm(series: Series) -> np.ndarray:
    """How far each slice is, along the normal, from its plane of the grid: contours go to the slice's own plane."""
    grid = series.grid
    normal = np.array(grid.direction).reshape(3, 3)[:, 2]
    positions = np.array([s.position_mm for s in series.slices]) - grid.origin_mm
    return positions @ normal - np.arange(grid.shape[0]) * grid.spacing_mm[0]


def _read_back(place: Path, path: Path, rois: Sequence[_NewRoi], series: Series) -> None:
    """Refuse a file that does not give back what it was made of.

    Raises:
        DicomError: It does not.
    """
    read = read_rtstruct(place)
    if (why := mismatch(read, series)) is not None:
        raise DicomError(f"{path}: read back, {why}. Nothing was written.")
    read_rois = {roi.number: roi for roi in read.rois}
    for new in rois:
        roi = read_rois.get(new.number)
        if roi is None or roi.name != new.name:
            raise DicomError(f"{path}: read back, structure {new.name!r} is not there. Nothing was written.")
        again = roi_voxels(roi_on_slices(roi, series), series.grid)
        if differing := _differing(new, again.box, again.voxels):
            raise DicomError(
                f"{path}: read back, {differing} voxels of structure {new.name!r} differ. Nothing was written; "
                "please report it with the series' spacing and orientation."
            )


def _differing(new: _NewRoi, box: Box | None, voxels: np.ndarray) -> int:
    """Number of voxels that are in one of the two only."""
    if new.box is None or box is None:
        return int(new.voxels.sum()) + int(voxels.sum())
    both = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(new.box, box, strict=True))
    sums = np.zeros([part.stop - part.start for part in both], dtype=bool)
    for part, own in ((new.box, new.voxels), (box, voxels)):
        inside = tuple(slice(o.start - b.start, o.stop - b.start) for o, b in zip(part, both, strict=True))
        sums[inside] ^= own
    return int(np.count_nonzero(sums))
