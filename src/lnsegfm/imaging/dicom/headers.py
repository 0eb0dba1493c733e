"""Headers of DICOM files as image planes: one for a single-frame file, one a frame for an enhanced multi-frame file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.series_index import Slice, series_name
from lnsegfm.imaging.dicom.series_traits import TRAIT_TAGS, PlaneTraits, frame_traits, plane_traits
from lnsegfm.imaging.dicom.values import (
    first_item,
    group_item,
    integer,
    numbers,
    numbers_of,
    read_dataset,
    read_start,
    text,
    unreadable_syntax,
    value_of,
)

MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
_CT_IMAGES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
# keywords whose values tell acquisitions and reconstructions of one series apart, the most specific first
DISTINGUISHING_KEYWORDS = (
    "TemporalPositionIdentifier",
    "NominalPercentageOfCardiacPhase",
    "StackID",
    "AcquisitionNumber",
    "EchoNumbers",
    "EchoTime",
    "KVP",
    "ConvolutionKernel",
    "ImageType",
    "SliceThickness",
    "ContrastBolusAgent",
    "AcquisitionTime",
    "ContentTime",
    "SeriesDescription",
    "ProtocolName",
    "ImageComments",
)
_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "SeriesNumber",
    "PatientID",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "BitsAllocated",
    "RescaleType",
    "InstanceNumber",
    *DISTINGUISHING_KEYWORDS,
    *TRAIT_TAGS,
]
_FRAMES = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]


@dataclass(frozen=True, slots=True)
class ImagePlane:
    """One image plane as its header describes it. What is missing or unreadable is "" or None.

    Args:
        path: The file.
        frame: Which frame, from 0; None in a single-frame file.
        pixel_bytes: Of the file, from the start of its pixels (their tag and length included) to its end.
        transfer_syntax: TransferSyntaxUID.
        sop_class_uid: Of the file.
        sop_instance_uid: Of the file.
        series_uid: SeriesInstanceUID.
        study_uid: StudyInstanceUID.
        frame_of_reference_uid: FrameOfReferenceUID.
        modality: Modality.
        description: SeriesDescription.
        number: SeriesNumber.
        patient_id: PatientID.
        image_type: ImageType, or FrameType.
        rows: Rows.
        columns: Columns.
        frames: Frames in the file.
        samples: Numbers per pixel.
        bits: BitsAllocated.
        orientation: ImageOrientationPatient, six cosines.
        position_mm: ImagePositionPatient.
        pixel_spacing_mm: Distance between rows, and between columns.
        distinguishing: Values of ``DISTINGUISHING_KEYWORDS``.
        traits: How it was made.
        rescale_type: RescaleType.
        instance_number: InstanceNumber, or the number of the frame.
    """

    path: Path
    frame: int | None
    pixel_bytes: int
    transfer_syntax: str
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    frame_of_reference_uid: str
    modality: str
    description: str
    number: int | None
    patient_id: str
    image_type: tuple[str, ...]
    rows: int
    columns: int
    frames: int
    samples: int
    bits: int
    orientation: tuple[float, ...] | None
    position_mm: tuple[float, ...] | None
    pixel_spacing_mm: tuple[float, ...] | None
    distinguishing: tuple[str, ...]
    traits: PlaneTraits
    rescale_type: str = ""
    instance_number: int | None = None

    @property
    def order(self) -> tuple[str, int, str]:
        """A place among planes at one position that does not depend on the files' names where it has a UID."""
        return self.sop_instance_uid, self.frame or 0, str(self.path)

    @property
    def name(self) -> str:
        """What messages call its series."""
        return series_name(self.series_uid, self.description, self.number)

    def as_slice(self) -> Slice:
        """The plane as a slice of a series; it must have a position."""
        if self.position_mm is None:
            raise DicomError(f"Series {self.name} has a slice without a position. Export the series again.")
        x, y, z = self.position_mm
        return Slice(self.path, self.frame, self.sop_instance_uid, self.sop_class_uid, (x, y, z))


@dataclass(frozen=True)
class FileHeader:
    """What the header of a DICOM file says.

    Args:
        kind: "image", "structures", "segmentation" or "other".
        modality: Modality, or "".
        planes: Of an image.
        series_uid: SeriesInstanceUID of an image that no planes are given for, or "".
    """

    kind: str
    modality: str = ""
    planes: tuple[ImagePlane, ...] = ()
    series_uid: str = ""


def is_dicom(path: Path) -> bool:
    """Whether a file looks like DICOM by its first bytes, with or without the preamble; its name does not count.

    Raises:
        OSError: The file cannot be opened.
    """
    with path.open("rb") as file:
        start = file.read(132)
    return start[128:132] == b"DICM" or _lacks_preamble(start)


def read_header(path: Path, modalities: tuple[str, ...]) -> FileHeader:
    """Read the header of a DICOM file, without its pixels.

    Args:
        path: A file for which ``is_dicom`` is true.
        modalities: Planes are given for images of these only.

    Raises:
        DicomError: Cut short or damaged.
    """
    data, pixel_bytes = read_start(path, _TAGS)
    meta = getattr(data, "file_meta", None) or Dataset()
    sop_class = text(data, "SOPClassUID") or text(meta, "MediaStorageSOPClassUID")
    modality = text(data, "Modality").upper()
    if sop_class == MEDIA_DIRECTORY:
        return FileHeader("other")
    if sop_class == RTStructureSetStorage or modality == "RTSTRUCT":
        return FileHeader("structures", modality)
    if sop_class in (SegmentationStorage, LABEL_MAP_SEGMENTATION) or modality == "SEG":
        return FileHeader("segmentation", modality)
    rows, columns = integer(data, "Rows"), integer(data, "Columns")
    if not (rows and columns) and "CT" in modalities and _may_be_ct(data, sop_class, modality):
        early = f"File {path.name} is cut short or damaged (its header ends early). Copy or export it again."
        raise DicomError(unreadable_syntax(path) or early)
    if modality not in modalities or not rows or not columns:
        series_uid = text(data, "SeriesInstanceUID")
        return FileHeader("image" if rows and columns else "other", modality, series_uid=series_uid)
    plane = _plane(path, data, meta, sop_class, pixel_bytes)
    if plane.frames == 1 and plane.position_mm is not None:
        return FileHeader("image", modality, (plane,))
    return FileHeader("image", modality, tuple(_frames(plane)))


def _may_be_ct(data: Dataset, sop_class: str, modality: str) -> bool:
    """Whether a file without the size of an image may be what is left of a CT slice.

    Skipping it would silently drop the last slice of a series. A SOP class that was cut counts as well; only the mark
    ``DICM`` distinguishes a file without a class from a file that is not DICOM.
    """
    marked = getattr(data, "preamble", None) is not None
    if modality == "CT" and sop_class == SecondaryCaptureImageStorage:
        return True
    return modality in ("", "CT") and (marked or bool(sop_class)) and any(c.startswith(sop_class) for c in _CT_IMAGES)


def _plane(path: Path, data: Dataset, meta: Dataset, sop_class: str, pixel_bytes: int) -> ImagePlane:
    return ImagePlane(
        path=path,
        frame=None,
        pixel_bytes=pixel_bytes,
        transfer_syntax=text(meta, "TransferSyntaxUID"),
        sop_class_uid=sop_class,
        sop_instance_uid=text(data, "SOPInstanceUID") or text(meta, "MediaStorageSOPInstanceUID"),
        series_uid=text(data, "SeriesInstanceUID"),
        study_uid=text(data, "StudyInstanceUID"),
        frame_of_reference_uid=text(data, "FrameOfReferenceUID"),
        modality=text(data, "Modality").upper(),
        description=text(data, "SeriesDescription"),
        number=integer(data, "SeriesNumber"),
        patient_id=text(data, "PatientID"),
        image_type=tuple(text(data, "ImageType").upper().split("\\")),
        rows=integer(data, "Rows") or 0,
        columns=integer(data, "Columns") or 0,
        frames=max(integer(data, "NumberOfFrames") or 1, 1),
        samples=integer(data, "SamplesPerPixel") or 1,
        bits=integer(data, "BitsAllocated") or 16,
        orientation=numbers(data, "ImageOrientationPatient", 6),
        position_mm=numbers(data, "ImagePositionPatient", 3),
        pixel_spacing_mm=numbers(data, "PixelSpacing", 2),
        distinguishing=tuple(text(data, keyword) for keyword in DISTINGUISHING_KEYWORDS),
        traits=plane_traits(data),
        rescale_type=text(data, "RescaleType"),
        instance_number=integer(data, "InstanceNumber"),
    )


def _frames(plane: ImagePlane) -> Iterator[ImagePlane]:
    """One plane a frame, from the functional groups; the plane itself where the file has none."""
    data = read_dataset(plane.path, _FRAMES)
    own = value_of(data, "PerFrameFunctionalGroupsSequence")
    if not own:
        yield plane
        return
    if len(own) != plane.frames:
        states = f"it states {plane.frames} frames and describes {len(own)}"
        raise DicomError(f"File {plane.path.name} is damaged ({states}). Export or copy it again.")
    shared = first_item(data, "SharedFunctionalGroupsSequence")
    for index, group in enumerate(own):
        content = group_item(group, shared, "FrameContentSequence") or Dataset()
        frame_type = group_item(group, shared, "CTImageFrameTypeSequence") or Dataset()
        values = group_item(group, shared, "PixelValueTransformationSequence") or Dataset()
        image_type = text(frame_type, "FrameType").upper()
        reconstruction = group_item(group, shared, "CTReconstructionSequence") or Dataset()
        own_value = {
            "TemporalPositionIdentifier": text(content, "TemporalPositionIndex"),
            "StackID": text(content, "StackID"),
            "AcquisitionNumber": text(content, "FrameAcquisitionNumber"),
            "ConvolutionKernel": text(reconstruction, "ConvolutionKernel"),
            "ImageType": image_type,
        }
        yield replace(
            plane,
            frame=index,
            image_type=tuple(image_type.split("\\")) if image_type else plane.image_type,
            orientation=numbers_of(group, shared, "PlaneOrientationSequence", "ImageOrientationPatient", 6),
            position_mm=numbers_of(group, shared, "PlanePositionSequence", "ImagePositionPatient", 3),
            pixel_spacing_mm=numbers_of(group, shared, "PixelMeasuresSequence", "PixelSpacing", 2),
            distinguishing=tuple(
                own_value.get(k) or v for k, v in zip(DISTINGUISHING_KEYWORDS, plane.distinguishing, strict=True)
            ),
            traits=frame_traits(plane.traits, group, shared),
            rescale_type=text(values, "RescaleType") or plane.rescale_type,
            instance_number=index + 1,
        )


def _lacks_preamble(start: bytes) -> bool:
    """Whether it starts as a data set without a preamble does: group 0002 or 0008, and a short first element."""
    if len(start) < 16 or start[:2] not in (b"\x02\0", b"\x08\0") or start[3] != 0:
        return False
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    return explicit or int.from_bytes(start[4:8], "little") <= 64
