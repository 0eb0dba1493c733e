"""Encode a segmentation as a DICOM data set with highdicom, from the headers of its source."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as Concept
from pydicom.uid import generate_uid

from lnsegfm.imaging.dicom.codes import Code, LabelCodes
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.seg_geometry import TOLERANCE_VOXELS
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.dicom.series_numbers import SEG, number_after
from lnsegfm.imaging.dicom.uneven_stack import slice_heights_mm
from lnsegfm.imaging.dicom.values import first_item, integer, read_dataset, text

SHORT = TEXT = 64
"""Characters of a DICOM long string (LO)."""
CONTENT_LABEL = "LNSEGFM"
NOT_CLINICAL = "Not for clinical use"
_UTF_8 = "ISO_IR 192"
_IDENTITY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
"""A SEG has them, empty where the source leaves them out."""


@dataclass(frozen=True, kw_only=True)
class SegProvenance:
    """Who made a segmentation, and how it is to be called.

    Args:
        algorithm: Name of the algorithm, also the manufacturer's.
        version: Its version; the package's unless given.
        model: The model that was used, "" for none.
        algorithm_type: AUTOMATIC, SEMIAUTOMATIC or MANUAL.
        description: SeriesDescription.
        series_number: SeriesNumber; the source's plus 1000 unless given.
        seed: UIDs follow from this text and the series, so that the same call writes the same UIDs. For tests: two
            files with one UID and different content confuse an archive. Random unless given.
        now: ContentDate and ContentTime, SeriesDate and SeriesTime; the present unless given.
    """

    algorithm: str = "lnsegfm"
    version: str = ""
    model: str = ""
    algorithm_type: Literal["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"] = "AUTOMATIC"
    description: str = f"Segmentation. {NOT_CLINICAL}"
    series_number: int | None = None
    seed: str | None = None
    now: datetime.datetime | None = None

    def __post_init__(self) -> None:
        for name in ("algorithm", "version", "model", "description"):
            value = getattr(self, name)
            if len(value) > TEXT or "\\" in value:
                raise DicomError(f"{name} {value!r}: DICOM takes {TEXT} characters, no backslash. Shorten it.")

    def uid(self, *what: str) -> str:
        """A UID for something of the segmentation."""
        return str(generate_uid(entropy_srcs=None if self.seed is None else [self.seed, *what]))


@dataclass(frozen=True)
class SegmentText:
    """The texts and codes of a segment.

    Args:
        number: SegmentNumber.
        name: SegmentLabel, cut to 64 characters.
        label: The label that it is of.
        codes: What it is.
    """

    number: int
    name: str
    label: str
    codes: LabelCodes

    def __post_init__(self) -> None:
        if not self.name.strip() or self.name != self.name.strip() or "\\" in self.name or not self.name.isprintable():
            raise DicomError(
                f"Segment name {self.name!r}: blank, or with a backslash or ends that DICOM drops. Rename it."
            )

    @property
    def short(self) -> str:
        """The name as DICOM has room for it."""
        return self.name[:SHORT].rstrip()


def encode(
    layers: Sequence[np.ndarray], texts: Sequence[SegmentText], series: Series, provenance: SegProvenance, kind: str
) -> Dataset:
    """Encode segment numbers on ``series.grid`` as a data set that can be saved.

    Args:
        layers: Segment numbers (z, y, x); several where segments overlap, each segment in one of them.
        texts: What to say of each segment.
        series: What the segments were made on.
        provenance: Who made them.
        kind: BINARY or LABELMAP; BINARY for several layers.

    Raises:
        DicomError: The source cannot be read or referred to.
    """
    planes = [k for k, of_slice in enumerate(zip(*layers, strict=True)) if any(p.any() for p in of_slice)] or [0]
    sources, identity = _sources(series, planes)
    positions, orientation, measures = _geometry(series, planes)
    content = _content([numbers[planes] for numbers in layers], texts)
    now = provenance.now or datetime.datetime.now()
    name = series.uid or series.name
    sop_uid = provenance.uid("instance", name)
    after_source = number_after(series.number, SEG)
    version = provenance.version or _version()
    try:
        data = hd.seg.Segmentation(
            source_images=sources,
            pixel_array=content,
            segmentation_type=kind,
            segment_descriptions=[_description(t, provenance, version, sop_uid) for t in texts],
            series_instance_uid=provenance.uid("series", name),
            series_number=provenance.series_number if provenance.series_number is not None else after_source,
            sop_instance_uid=sop_uid,
            instance_number=1,
            manufacturer=provenance.algorithm,
            manufacturer_model_name=provenance.model or provenance.algorithm,
            software_versions=version,
            device_serial_number="0",
            content_label=CONTENT_LABEL,
            content_description=NOT_CLINICAL,
            omit_empty_frames=bool(content.any()),
            series_description=provenance.description,
            plane_positions=positions,
            plane_orientation=orientation,
            pixel_measures=measures,
        )
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DicomError(
            f"Series {series.name}: no segmentation can refer to it ({reason}). Export it again."
        ) from None
    for element in identity:
        data[element.tag] = element
    data.SpecificCharacterSet = _UTF_8
    _settle(data, now, provenance.uid("dimensions", name))
    # highdicom takes it from the planes that hold something, which may be every other one
    pixel_measures = data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    pixel_measures.SpacingBetweenSlices = measures[0].SpacingBetweenSlices
    if series.uneven:
        del pixel_measures.SpacingBetweenSlices
    return data


def _content(layers: Sequence[np.ndarray], texts: Sequence[SegmentText]) -> np.ndarray:
    """Segment numbers (planes, y, x); of several layers the planes of each segment (planes, y, x, segments)."""
    if len(layers) == 1:
        return np.ascontiguousarray(layers[0])
    content = np.zeros((*layers[0].shape, len(texts)), dtype=bool)
    for numbers in layers:
        for number in np.unique(numbers[numbers != 0]).tolist():
            content[..., number - 1] = numbers == number
    return content


def _geometry(
    series: Series, planes: Sequence[int]
) -> tuple[list[hd.PlanePositionSequence], hd.PlaneOrientationSequence, hd.PixelMeasuresSequence]:
    """Where the planes lie: on the source's slices where they are the grid's, else where the grid says."""
    grid = series.grid
    axes = np.array(grid.direction).reshape(3, 3)
    heights = slice_heights_mm(series) if series.uneven else grid.spacing_mm[0] * np.arange(grid.shape[0])
    on_grid = [np.array(grid.origin_mm) + axes[:, 2] * heights[k] for k in planes]
    places = [np.array(series.slices[k].position_mm) for k in planes]
    off = np.abs(np.array([axes.T @ (p - g) for p, g in zip(places, on_grid, strict=True)]))
    if series.straightened or (off > 0.5 * TOLERANCE_VOXELS * np.array(grid.spacing_mm[::-1])).any():
        places = on_grid
    patient = hd.CoordinateSystemNames.PATIENT
    return (
        [hd.PlanePositionSequence(patient, [float(v) for v in p]) for p in places],
        hd.PlaneOrientationSequence(patient, [float(v) for v in (*axes[:, 0], *axes[:, 1])]),
        hd.PixelMeasuresSequence(
            pixel_spacing=[float(v) for v in grid.spacing_mm[1:]],
            slice_thickness=float(grid.spacing_mm[0]),
            spacing_between_slices=float(grid.spacing_mm[0]),
        ),
    )


def _sources(series: Series, planes: Sequence[int]) -> tuple[list[Dataset], Dataset]:
    """Headers of the files that the planes lie in, and who the patient is.

    What a SEG must have and a header lacks is filled in, in memory. The patient's identity is taken out of the headers
    and given apart: it is copied as it stands, so that no check of a name or a date can fail, or show it in a message.
    """
    files = {series.slices[k].path: series.slices[k].sop_instance_uid for k in planes}
    sources = [read_dataset(path) for path in files]
    # whatever alphabet the source is in: UTF-8 has room for it and for the names of labels
    sources[0].decode()
    sources[0].SpecificCharacterSet = _UTF_8
    identity = Dataset()
    for keyword in _IDENTITY:
        if keyword in sources[0]:
            identity[keyword] = deepcopy(sources[0][keyword])
    for sop_uid, data in zip(files.values(), sources, strict=True):
        if len(series.frames_of_reference) > 1:  # highdicom takes images of one
            data.FrameOfReferenceUID = series.frame_of_reference_uid
        for keyword in _IDENTITY:
            setattr(data, keyword, "")
        for keyword, value in (
            ("StudyInstanceUID", series.study_uid),
            ("SeriesInstanceUID", series.uid),
            ("FrameOfReferenceUID", series.frame_of_reference_uid),
            ("SOPInstanceUID", sop_uid),
        ):
            if not text(data, keyword):
                if not value:
                    raise DicomError(
                        f"Series {series.name}: it has no {keyword} to refer to. Give it one at the source."
                    )
                setattr(data, keyword, value)
    if integer(sources[0], "NumberOfFrames"):
        _share_groups(sources[0])
        return sources[:1], identity  # highdicom takes one multi-frame file
    for data in sources[1:]:
        data.ImageOrientationPatient = sources[0].ImageOrientationPatient  # their last digits may differ
    return sources, identity


def _share_groups(data: Dataset) -> None:
    """Some scanners repeat in each frame what all frames share; highdicom reads the shared functional groups."""
    shared, first = first_item(data, "SharedFunctionalGroupsSequence"), data.PerFrameFunctionalGroupsSequence[0]
    if shared is None:
        shared = Dataset()
        data.SharedFunctionalGroupsSequence = [shared]
    for sequence in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        if sequence not in shared and sequence in first:
            setattr(shared, sequence, getattr(first, sequence))


def _description(
    segment: SegmentText, provenance: SegProvenance, version: str, sop_uid: str
) -> hd.seg.SegmentDescription:
    algorithm = hd.AlgorithmIdentificationSequence(
        name=provenance.algorithm,
        family=codes.DCM.ArtificialIntelligence,
        version=version,
        source=provenance.model or None,
    )
    description = hd.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.short,
        segmented_property_category=_concept(segment.codes.category),
        segmented_property_type=_concept(segment.codes.type),
        algorithm_type=provenance.algorithm_type,
        algorithm_identification=algorithm if provenance.algorithm_type != "MANUAL" else None,
        tracking_id=segment.short,
        tracking_uid=provenance.uid("segment", sop_uid, str(segment.number)),
        anatomic_regions=[_concept(segment.codes.region)] if segment.codes.region else None,
        display_color=hd.color.CIELabColor.from_rgb(*segment.codes.colour),
    )
    description.SegmentDescription = NOT_CLINICAL
    if segment.codes.side is not None:
        side = hd.sr.CodedConcept.from_code(_concept(segment.codes.side))
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
    return description


def _settle(data: Dataset, now: datetime.datetime, dimensions_uid: str) -> None:
    """Set the dates, times and UIDs that highdicom takes from the clock or at random."""
    for keyword in ("ContentDate", "SeriesDate", "InstanceCreationDate"):
        setattr(data, keyword, now.strftime("%Y%m%d"))
    for keyword in ("ContentTime", "SeriesTime", "InstanceCreationTime"):
        setattr(data, keyword, now.strftime("%H%M%S"))
    for equipment in data.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in equipment:
            equipment.ContributionDateTime = now.strftime("%Y%m%d%H%M%S")
    for item in (*data.DimensionOrganizationSequence, *data.get("DimensionIndexSequence", ())):
        item.DimensionOrganizationUID = dimensions_uid


def _concept(code: Code) -> Concept:
    return Concept(code.value, code.scheme, code.meaning)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("lnsegfm")
    except PackageNotFoundError:
        return "0"
