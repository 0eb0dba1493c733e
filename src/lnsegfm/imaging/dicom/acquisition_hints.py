"""What headers say of acquisitions and reconstructions: evidence for which planes are one volume."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lnsegfm.imaging.dicom.headers import DISTINGUISHING_KEYWORDS, ImagePlane

FRAME = "FrameOfReferenceUID"
_BEFORE_FRAME = DISTINGUISHING_KEYWORDS.index("ConvolutionKernel")
HINTS = (*DISTINGUISHING_KEYWORDS[:_BEFORE_FRAME], FRAME, *DISTINGUISHING_KEYWORDS[_BEFORE_FRAME:])
"""What headers say of acquisitions and reconstructions, the most telling first."""
ACQUISITION_HINTS = (*DISTINGUISHING_KEYWORDS[:_BEFORE_FRAME], "ConvolutionKernel")
"""Hints that split even a stack that is even as a whole; a time alone, or a frame of reference, does not."""


def hint_value(plane: ImagePlane, hint: str) -> str:
    """What a plane's header says of a hint, or ""."""
    return plane.frame_of_reference_uid if hint == FRAME else plane.distinguishing[_PLACE[hint]]


def coded_values(planes: Sequence[ImagePlane], hint: str) -> tuple[list[str], np.ndarray]:
    """The values of a hint, in a fixed order, and for each plane which of them it has."""
    of_planes = [hint_value(plane, hint) for plane in planes]
    values = sorted(set(of_planes), key=_natural)
    number = {value: k for k, value in enumerate(values)}
    return values, np.array([number[value] for value in of_planes])


def _natural(value: str) -> tuple[float, str]:
    try:
        number = float(value)
    except ValueError:
        return math.inf, value
    return (math.inf if math.isnan(number) else number), value


def hint_words(hints: tuple[str, ...], value: tuple[str, ...]) -> str:
    """Hints and their values for a note; only of those that are numbers or technical, and never a UID."""
    pairs = zip(hints, value, strict=True)
    return " and ".join(f"{hint} {text or 'none'}" if hint in ACQUISITION_HINTS else hint for hint, text in pairs)


_PLACE = {keyword: k for k, keyword in enumerate(DISTINGUISHING_KEYWORDS)}
