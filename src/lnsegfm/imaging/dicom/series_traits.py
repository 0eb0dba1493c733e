"""What tells the series of a study apart: plane, thickness, kernel, kind of image, acquisition."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

import numpy as np
from pydicom.dataset import Dataset

from lnsegfm.imaging.dicom.values import first_item, group_item, integer, numbers, text
from lnsegfm.imaging.grid import Grid

TRAIT_TAGS = (
    "SliceThickness",
    "ConvolutionKernel",
    "ConvolutionKernelGroup",
    "ImageType",
    "AcquisitionNumber",
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionDateTime",
    "IrradiationEventUID",
    "TemporalPositionIdentifier",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
    "BodyPartExamined",
    "KVP",
    "Manufacturer",
    "PatientPosition",
)
"""Attributes of a file that `plane_traits` reads."""
_EPOCH = datetime(1900, 1, 1)
_WITHIN = math.cos(math.radians(10.0))
_TILTED = math.cos(math.radians(31.0))
"""Gantries tilt by up to 30 degrees, about the patient's left-right axis."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PlaneTraits:
    """What the header of one image plane says of how it was made. What is missing or unreadable is "", () or None.

    Args:
        thickness_mm: SliceThickness.
        kernel: ConvolutionKernel, as many values as it has.
        kernel_group: ConvolutionKernelGroup, such as ``SOFT_TISSUE``.
        image_type: ImageType, or FrameType, in capitals.
        acquisition_number: AcquisitionNumber.
        acquired_s: AcquisitionDateTime, or AcquisitionDate and AcquisitionTime: seconds since 1900, as the scanner's
            clock has it. A time without a date is one of the first day.
        irradiation_events: IrradiationEventUID.
        temporal_position: TemporalPositionIdentifier, or TemporalPositionIndex.
        contrast: ContrastBolusAgent; "yes" where a sequence names one.
        body_part: BodyPartExamined.
        kvp: KVP.
        manufacturer: Manufacturer.
        patient_position: PatientPosition, such as ``HFS``.
    """

    thickness_mm: float | None = None
    kernel: tuple[str, ...] = ()
    kernel_group: str = ""
    image_type: tuple[str, ...] = ()
    acquisition_number: int | None = None
    acquired_s: float | None = None
    irradiation_events: tuple[str, ...] = ()
    temporal_position: str = ""
    contrast: str = ""
    body_part: str = ""
    kvp: float | None = None
    manufacturer: str = ""
    patient_position: str = ""


@dataclass(frozen=True)
class SeriesTraits:
    """What tells the series of a study apart. Where slices differ, the most frequent value counts.

    Args:
        plane: ``axial``, ``coronal``, ``sagittal`` or ``oblique``, by the normal of its slices.
        thickness_mm: SliceThickness; None where there is none.
        step_mm: Distance of its slices.
        kernel: ConvolutionKernel, as many values as it has.
        kernel_group: ConvolutionKernelGroup, such as ``SOFT_TISSUE``.
        image_type: ImageType, or FrameType, in capitals.
        acquisition_numbers: AcquisitionNumber of its slices, ascending.
        acquired_s: First and last time of its slices, seconds since 1900; None where there is none.
        irradiation_events: IrradiationEventUID of its slices, in order.
        temporal_positions: TemporalPositionIdentifier of its slices, in order.
        contrast: ContrastBolusAgent; "" where none is named.
        body_part: BodyPartExamined.
        kvp: KVP.
        manufacturer: Manufacturer.
        patient_position: PatientPosition, such as ``HFS``.
    """

    plane: str = "axial"
    thickness_mm: float | None = None
    step_mm: float = 1.0
    kernel: tuple[str, ...] = ()
    kernel_group: str = ""
    image_type: tuple[str, ...] = ()
    acquisition_numbers: tuple[int, ...] = ()
    acquired_s: tuple[float, float] | None = None
    irradiation_events: tuple[str, ...] = ()
    temporal_positions: tuple[str, ...] = ()
    contrast: str = ""
    body_part: str = ""
    kvp: float | None = None
    manufacturer: str = ""
    patient_position: str = ""

    @property
    def resolution_mm(self) -> float:
        """What the series resolves along its normal: its thickness, or its step where that is more."""
        return max(self.thickness_mm or 0.0, self.step_mm)

    @property
    def derived(self) -> bool:
        """Whether it was computed from other images (ImageType DERIVED, or SECONDARY and not ORIGINAL).

        Planning systems export scans as ORIGINAL and SECONDARY.
        """
        first = self.image_type[:1]
        return first == ("DERIVED",) or (first != ("ORIGINAL",) and self.image_type[1:2] == ("SECONDARY",))


def plane_traits(data: Dataset) -> PlaneTraits:
    """What the header of a file says of how its image was made."""
    thickness, kvp = numbers(data, "SliceThickness", 1), numbers(data, "KVP", 1)
    moment = text(data, "AcquisitionDateTime") or text(data, "AcquisitionDate") + text(data, "AcquisitionTime")
    if not text(data, "AcquisitionDate") and not text(data, "AcquisitionDateTime") and moment:
        moment = f"19000101{moment}"
    agent = text(data, "ContrastBolusAgent")
    return PlaneTraits(
        thickness_mm=thickness[0] if thickness and thickness[0] > 0 else None,
        kernel=_values(text(data, "ConvolutionKernel")),
        kernel_group=text(data, "ConvolutionKernelGroup").upper(),
        image_type=_values(text(data, "ImageType").upper()),
        acquisition_number=integer(data, "AcquisitionNumber"),
        acquired_s=_seconds(moment),
        irradiation_events=_values(text(data, "IrradiationEventUID")),
        temporal_position=text(data, "TemporalPositionIdentifier"),
        contrast=agent or ("yes" if first_item(data, "ContrastBolusAgentSequence") else ""),
        body_part=text(data, "BodyPartExamined"),
        kvp=kvp[0] if kvp and kvp[0] > 0 else None,
        manufacturer=text(data, "Manufacturer"),
        patient_position=text(data, "PatientPosition").upper(),
    )


def frame_traits(file: PlaneTraits, own: Dataset, shared: Dataset | None) -> PlaneTraits:
    """Those of a frame of a multi-frame file, from its functional groups; those of the file where they have none."""
    content = group_item(own, shared, "FrameContentSequence") or Dataset()
    measures = group_item(own, shared, "PixelMeasuresSequence") or Dataset()
    made = group_item(own, shared, "CTReconstructionSequence") or Dataset()
    kind = group_item(own, shared, "CTImageFrameTypeSequence") or Dataset()
    beam = group_item(own, shared, "CTXRayDetailsSequence") or Dataset()
    event = group_item(own, shared, "IrradiationEventIdentificationSequence") or Dataset()
    thickness, kvp = numbers(measures, "SliceThickness", 1), numbers(beam, "KVP", 1)
    number, acquired = integer(content, "FrameAcquisitionNumber"), _seconds(text(content, "FrameAcquisitionDateTime"))
    uid = text(event, "IrradiationEventUID")
    return replace(
        file,
        thickness_mm=thickness[0] if thickness and thickness[0] > 0 else file.thickness_mm,
        kernel=_values(text(made, "ConvolutionKernel")) or file.kernel,
        kernel_group=text(made, "ConvolutionKernelGroup").upper() or file.kernel_group,
        image_type=_values(text(kind, "FrameType").upper()) or file.image_type,
        acquisition_number=number if number is not None else file.acquisition_number,
        acquired_s=acquired if acquired is not None else file.acquired_s,
        irradiation_events=(uid,) if uid else file.irradiation_events,
        temporal_position=text(content, "TemporalPositionIndex") or file.temporal_position,
        kvp=kvp[0] if kvp and kvp[0] > 0 else file.kvp,
    )


def series_traits(planes: Sequence[PlaneTraits], grid: Grid) -> SeriesTraits:
    """The traits of a series of these planes on this grid; their order makes no difference."""
    image_type = _most(plane.image_type for plane in planes) or ()
    times = [plane.acquired_s for plane in planes if plane.acquired_s is not None]
    return SeriesTraits(
        plane=plane_name(np.array(grid.direction).reshape(3, 3)[:, 2], tilted="ORIGINAL" in image_type),
        thickness_mm=_most(plane.thickness_mm for plane in planes),
        step_mm=grid.spacing_mm[0],
        kernel=_most(plane.kernel for plane in planes) or (),
        kernel_group=_most(plane.kernel_group for plane in planes) or "",
        image_type=image_type,
        acquisition_numbers=tuple(sorted({p.acquisition_number for p in planes if p.acquisition_number is not None})),
        acquired_s=(min(times), max(times)) if times else None,
        irradiation_events=tuple(sorted({uid for plane in planes for uid in plane.irradiation_events})),
        temporal_positions=tuple(sorted({plane.temporal_position for plane in planes if plane.temporal_position})),
        contrast=_most(plane.contrast for plane in planes) or "",
        body_part=_most(plane.body_part for plane in planes) or "",
        kvp=_most(plane.kvp for plane in planes),
        manufacturer=_most(plane.manufacturer for plane in planes) or "",
        patient_position=_most(plane.patient_position for plane in planes) or "",
    )


def plane_name(normal: np.ndarray, *, tilted: bool = False) -> str:
    """What the plane with this normal is called.

    Args:
        normal: Unit vector, LPS.
        tilted: The gantry may have been tilted: about the left-right axis by up to 31 degrees is axial. Else up to 10
            degrees from an axis have its name.
    """
    axis = int(np.abs(normal).argmax())
    tilted = tilted and axis == 2 and abs(float(normal[0])) < 0.02
    if abs(float(normal[axis])) < (_TILTED if tilted else _WITHIN):
        return "oblique"
    return ("sagittal", "coronal", "axial")[axis]


def _most(values: Iterable[T | None]) -> T | None:
    """The most frequent value that says something, of several the first in order; None where there is none."""
    counts = Counter(value for value in values if value not in (None, "", ()))
    return min(counts, key=lambda value: (-counts[value], value)) if counts else None


def _values(value: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in value.split("\\"))
    return parts if any(parts) else ()


def _seconds(moment: str) -> float | None:
    """Seconds since 1900 of ``YYYYMMDDHHMMSS.FFFFFF``, as far as it goes to the minute; None where it does not."""
    if not moment[8:].strip("0.: "):
        return None  # midnight to the second: what de-identification leaves of a time
    digits, _, fraction = moment.replace(":", "").partition("+")[0].partition("-")[0].partition(".")
    digits = digits.replace(" ", "")
    try:
        start = datetime.strptime(digits[:12], "%Y%m%d%H%M")
        seconds = float(f"{digits[12:14] or 0}.{fraction.strip() or 0}")
    except ValueError:
        return None
    return (start - _EPOCH) / timedelta(seconds=1) + seconds
