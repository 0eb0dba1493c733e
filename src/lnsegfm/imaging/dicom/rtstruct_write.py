"""Write RT Structure Sets (DICOM PS3.3 A.19); each is read back before it is put in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from lnsegfm.imaging.dicom.dicom_errors import DicomError, EmptyStructureSet
from lnsegfm.imaging.dicom.region_layers import MaskLayer, mask_layers
from lnsegfm.imaging.dicom.rtstruct_append import Predecessor, predecessor_of, require_kept, successor
from lnsegfm.imaging.dicom.rtstruct_contours import RoiContours, contours_item, image_item, roi_contours
from lnsegfm.imaging.dicom.rtstruct_header import NOT_CLINICAL, dataset_with_identity
from lnsegfm.imaging.dicom.rtstruct_options import RtstructOptions
from lnsegfm.imaging.dicom.rtstruct_profiles import EXPLICIT_POINTS, RtstructProfile
from lnsegfm.imaging.dicom.rtstruct_readback import RoiDifference, require_same_structures
from lnsegfm.imaging.dicom.rtstruct_rois import NewRoi, require_writable, rois_of_layers
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.dicom.structure_names import fitted_names
from lnsegfm.imaging.dicom.uneven_stack import written_on_slices
from lnsegfm.imaging.dicom.values import quiet
from lnsegfm.storage import atomic_write

_DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"  # PS3.3 C.8.8.5 asks for this class, retired as it is
_SHORT_STRING, _LONG_STRING = 16, 64


@dataclass(frozen=True, kw_only=True)
class WrittenStructures:
    """What a structure set was written with.

    Args:
        names: The name in the file of each structure, by its full name.
        left_out: Labels without a voxel, which have no structure.
        contours: The contours of each structure, by its name in the file.
        differences: How each thinned structure differs from its mask, by its name in the file.
        notes: What differs from the mask or its names, one line each.
    """

    names: Mapping[str, str]
    left_out: tuple[str, ...] = ()
    contours: Mapping[str, RoiContours] = field(default_factory=dict, repr=False)
    differences: Mapping[str, RoiDifference] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def write_rtstruct(
    path: Path,
    mask: np.ndarray,
    labels: Mapping[str, int],
    series: Series,
    *,
    instances: np.ndarray | None = None,
    names: Mapping[int, str] | None = None,
    regions: Mapping[str, Sequence[int]] | None = None,
    structure_set: str = "lnsegfm",
    description: str = "",
    algorithm: str = "lnsegfm",
    software: str | None = None,
    interpreted_type: str | None = None,
    stamp: datetime | None = None,
    seed: str | None = None,
    options: RtstructOptions | None = None,
) -> WrittenStructures:
    """Write a mask as a structure set of the series that it was made of.

    Contours follow voxel edges on the series' slices, holes as contours of their own, so that whoever takes the voxels
    whose centres lie inside an odd number of contours gets the mask. The file is read back by ``read_rtstruct`` and
    only renamed to ``path`` if that is so for every voxel; contours that were thinned must keep their bounds.

    Args:
        path: The file.
        mask: Label values (z, y, x) on ``series.grid``.
        labels: Values by label; each becomes a structure of its name, one without a voxel is left out. 0 is background.
        series: What the mask was made of. Patient and study are those of its first slice.
        instances: Numbers of the instances (nodes) of labels, 0 where there is none. Each becomes a structure; what is
            left of a label, if anything, becomes one by the label's name.
        names: Names of instances by number; ``<label>_<number>`` unless given.
        regions: The values that each label covers where labels overlap (a whole and its core): each is a structure of
            all its voxels, and ``instances`` are (regions, z, y, x), in the order of the labels.
        structure_set: StructureSetLabel, at most 16 characters.
        description: Follows "Not for clinical use." in the description.
        algorithm: What made the contours, for ROIGenerationDescription; the algorithm's type is AUTOMATIC.
        software: SoftwareVersions; this package's version unless given.
        interpreted_type: RTROIInterpretedType; the profile's unless given. ORGAN says anatomy; GTV would say that
            somebody found a tumour in it.
        stamp: When it was made; now unless given.
        seed: Gives the same UIDs every time. New ones unless given.
        options: Profile, holes, thinning and names; the generic profile unless given.

    Raises:
        EmptyStructureSet: The mask has no voxel.
        DicomError: The mask does not fit the series or the labels, the series lacks what a structure set refers to, or
            reading back gives other voxels. Nothing is written then.
    """
    options = options or RtstructOptions()
    profile = options.settled
    layers = []
    for layer in mask_layers(mask, labels, instances, regions):
        require_writable(layer.mask, layer.labels, series, layer.instances)
        placed, numbered, on_slices = written_on_slices(layer.mask, layer.instances, series)
        layers.append(MaskLayer(placed, layer.labels, numbered))
    series = on_slices
    before = predecessor_of(options.add_to, series) if options.add_to is not None else None
    if before is not None:
        if before.path.resolve() == path.resolve():
            raise DicomError("--add-to: the new structure set would take its place. Write it elsewhere.")
        profile = _for_successor(profile, before)
    rois, left_out = _wanted(list(rois_of_layers(layers, names or {})), before)
    _require_names([roi.name for roi in rois], structure_set)
    taken = before.structures.names if before is not None else ()
    fitted = fitted_names([roi.name for roi in rois], profile.name_length, ascii_only=profile.ascii_names, taken=taken)
    rois = [replace(roi, name=name) for roi, name in zip(rois, fitted, strict=True)]
    spacing = series.grid.spacing_mm[1:]
    drawn = [roi_contours(roi, profile, options.thin, spacing) for roi in rois]
    stamp, software = stamp or datetime.now(), software or version("lnsegfm")
    if before is not None:
        data = successor(before, series, stamp, seed, software)
    else:
        data = dataset_with_identity(series, stamp, seed)
        data.SoftwareVersions, data.StructureSetLabel = software, structure_set
        thinning = [] if options.thin is None else [f"Contours thinned by up to {options.thin.mm:g} mm."]
        data.StructureSetDescription = " ".join(part for part in (NOT_CLINICAL, description, *thinning) if part)
        data.ReferencedFrameOfReferenceSequence = [_frame_of_reference_item(series)]
    first_observation = before.next_observation if before is not None else 1
    _extend(data, "StructureSetROISequence", [_roi_item(roi, series, algorithm, profile.ascii_names) for roi in rois])
    _extend(
        data, "ROIContourSequence", [contours_item(roi, each, series) for roi, each in zip(rois, drawn, strict=True)]
    )
    kind = interpreted_type or profile.interpreted_type
    observed = [_observation_item(roi, n, kind) for n, roi in enumerate(rois, start=first_observation)]
    _extend(data, "RTROIObservationsSequence", observed)
    with atomic_write(path) as place, quiet():
        data.save_as(place, enforce_file_format=True)
        differences = require_same_structures(place, path, rois, series, options.thin)
        if before is not None:
            require_kept(place, path, before)
    return WrittenStructures(
        names={roi.full_name: roi.name for roi in rois},
        left_out=left_out,
        contours={roi.name: each for roi, each in zip(rois, drawn, strict=True)},
        differences=differences if options.thin is not None else {},
        notes=tuple(_notes(rois, left_out, before)),
    )


def _for_successor(profile: RtstructProfile, before: Predecessor) -> RtstructProfile:
    """The profile, with what the earlier file's character set and transfer syntax have room for."""
    points = profile.points or (EXPLICIT_POINTS if before.explicit else None)
    return replace(profile, ascii_names=profile.ascii_names or before.ascii_only, points=points)


def _wanted(rois: list[NewRoi], before: Predecessor | None) -> tuple[list[NewRoi], tuple[str, ...]]:
    """The structures that are written, numbered, and the labels that are left out."""
    found = [roi for roi in rois if roi.box is not None]
    if not found:
        # without a ContourSequence rt-utils fails, with an empty one the file is not valid (PS3.3 C.8.8.6)
        named = ", ".join(repr(roi.name) for roi in rois)
        raise EmptyStructureSet(
            f"Nothing was found of {named or 'any label'}: a structure set has a structure, so none is written. "
            "Write a segmentation, which may be empty, or the mask."
        )
    left_out = tuple(roi.name for roi in rois if roi.box is None)
    first = before.next_number if before is not None else 1
    return [replace(roi, number=number) for number, roi in enumerate(found, start=first)], left_out


def _extend(data: Dataset, keyword: str, items: list[Dataset]) -> None:
    if keyword in data and data[keyword].value is not None:
        data[keyword].value.extend(items)
    else:
        setattr(data, keyword, items)


def _notes(rois: Sequence[NewRoi], left_out: Sequence[str], before: Predecessor | None) -> Iterator[str]:
    """What differs between mask and file, a line each."""
    for label in left_out:
        yield f"Nothing was found of {label!r}: it has no structure."
    for roi in rois:
        if roi.name != roi.full_name:
            yield f"Structure {roi.full_name!r} is called {roi.name!r} in the file."
    if before is not None:
        kept = len(before.structures.rois)
        yield f"{kept} structures of the earlier structure set come first; the new one refers to it, unapproved."


def _require_names(names: Sequence[str], structure_set: str) -> None:
    if wrong := [name for name in names if not 0 < len(name) <= _LONG_STRING or "\\" in name or not name.isprintable()]:
        raise DicomError(
            f"Structure name {wrong[0][:80]!r}: DICOM takes 1 to 64 characters, no backslash. Rename the label."
        )
    if len(structure_set) > _SHORT_STRING:
        raise DicomError(f"Structure set label {structure_set!r}: DICOM takes at most 16 characters. Shorten it.")


def _frame_of_reference_item(series: Series) -> Dataset:
    of_series, study, frame = Dataset(), Dataset(), Dataset()
    of_series.SeriesInstanceUID = series.uid
    files = {s.sop_instance_uid: s.sop_class_uid for s in series.slices}  # a multi-frame file once
    of_series.ContourImageSequence = [image_item(instance, storage) for instance, storage in files.items()]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _DETACHED_STUDY, series.study_uid
    study.RTReferencedSeriesSequence = [of_series]
    frame.FrameOfReferenceUID = series.frame_of_reference_uid
    frame.RTReferencedStudySequence = [study]
    return frame


def _roi_item(new: NewRoi, series: Series, algorithm: str, ascii_only: bool) -> Dataset:
    item = Dataset()
    item.ROINumber, item.ROIName = new.number, new.name
    item.ReferencedFrameOfReferenceUID = series.frame_of_reference_uid
    if new.name != new.full_name and (new.full_name.isascii() or not ascii_only):
        item.ROIDescription = new.full_name
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    item.ROIGenerationDescription = fitted_names([algorithm], _LONG_STRING, ascii_only=ascii_only)[0]
    return item


def _observation_item(new: NewRoi, number: int, interpreted_type: str) -> Dataset:
    item = Dataset()
    item.ObservationNumber, item.ReferencedROINumber = number, new.number
    item.ROIObservationLabel = new.name[:_SHORT_STRING].strip()
    item.RTROIInterpretedType, item.ROIInterpreter = interpreted_type, ""
    return item
