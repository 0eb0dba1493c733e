"""Images that are no slices of a volume, each with its reason: what every study has besides, and what is damaged."""

from __future__ import annotations

from dataclasses import dataclass

from lnsegfm.imaging.dicom.headers import ImagePlane
from lnsegfm.imaging.dicom.plane_groups import plane_axes

MAX_PLANE = 1 << 26
"""Pixels of a slice: 8192 x 8192."""
TINY = 5
"""A series of fewer positions beside a volume is a test, premonitoring or monitoring scan."""
VOLUME = 8
"""Slices of a series beside which smaller ones are passed over."""
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

_LOCALISERS = ("LOCALI", "SCOUT", "TOPOGRAM", "SURVIEW", "SCANOGRAM", "CT_SOM5 TOP")
_PAGES = ("SCREEN", "DOSE", "PATIENT_INFO", "PROTOCOL", "CT_SOM5 PROT", "REPORT", "SUMMARY")
_DESCRIBED = ("DOSE REPORT", "PATIENT PROTOCOL", "EXAM SUMMARY", "SCREEN SAVE", "DOSE INFO", "PROTOCOL PAGE")
_NOTHING = "Nothing to do where the scan itself is there"


@dataclass(frozen=True)
class Aside:
    """Why an image can be no slice of a volume.

    Args:
        reason: What it is, a clause.
        remedy: What to do, a sentence without its full stop.
        harmless: Studies have such images besides the scan; nothing of it is lost.
    """

    reason: str
    remedy: str = _NOTHING
    harmless: bool = True


LOCALISER = Aside("localisers, which are no slices of a volume")
COLOUR = Aside("colour images, such as screen captures")
CAPTURE = Aside("secondary captures without a place in the patient, such as dose reports and exam summaries")
PAGE = Aside("pages without a place in the patient, such as dose reports and exam summaries")


def aside(plane: ImagePlane) -> Aside | None:
    """Why a plane can be no slice of a volume; None where it can."""
    kind = plane.image_type
    if any(word in value for value in kind for word in _LOCALISERS):
        return LOCALISER
    if plane.samples != 1:
        return COLOUR
    if plane.position_mm is None or plane.orientation is None:
        if plane.sop_class_uid == SECONDARY_CAPTURE or plane.sop_class_uid.startswith(f"{SECONDARY_CAPTURE}."):
            return CAPTURE
        described = any(words in plane.description.upper() for words in _DESCRIBED)
        if plane.bits == 8 or described or any(word in value for value in kind for word in _PAGES):
            return PAGE
        return _damaged(
            "without a readable position or orientation in the patient (ImagePositionPatient, ImageOrientationPatient)",
            "Give the original slices",
        )
    if plane.pixel_spacing_mm is None or min(plane.pixel_spacing_mm) <= 0:
        return _damaged("without a readable PixelSpacing", "Give the original slices")
    if plane_axes(plane) is None:
        what = "row and column directions are not at right angles (ImageOrientationPatient)"
        return _damaged(what, "Export the series again")
    if plane.rows * plane.columns > MAX_PLANE:
        return _damaged(f"{plane.rows} x {plane.columns} pixels, which no scanner makes", "Export the series again")
    return None


def is_placed(plane: ImagePlane) -> bool:
    """Whether a plane has a place in the patient."""
    return (
        plane.position_mm is not None
        and plane.pixel_spacing_mm is not None
        and min(plane.pixel_spacing_mm) > 0
        and plane_axes(plane) is not None
    )


def _damaged(reason: str, remedy: str) -> Aside:
    return Aside(reason, remedy, harmless=False)
