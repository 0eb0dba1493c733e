"""Convolution kernels by their names: soft ones, for soft tissue, and sharp ones, for lung and bone.

DICOM has no list of names. Enhanced CT may state a group (PS3.3, CT Reconstruction Macro), which counts first. Names
follow the vendors' habits: Siemens numbers kernels by sharpness (operating instructions of the Somatom Sensation:
B10 to B41 for soft tissue, B50 to B80 for more sharpness), GE uses words, Canon numbers families (FC01, FC51),
Philips letters. What none of these rules knows is neither soft nor sharp.
"""

from __future__ import annotations

import re

SOFT, SHARP, UNKNOWN = "soft", "sharp", ""

_GROUPS = {"SOFT_TISSUE": SOFT, "BRAIN": SOFT, "LUNG": SHARP, "BONE": SHARP}
_SIEMENS = re.compile(r"[ABDEHIJQSTU]([a-z]{0,2})(\d\d)[a-z]{0,2}\b")
_CANON = re.compile(r"FC(\d\d)", re.IGNORECASE)
_CANON_SOFT = (range(1, 16), range(20, 29), range(40, 45), range(60, 69))
_CANON_SHARP = (range(30, 40), range(50, 60), range(80, 90))
_PHILIPS = {"A": SOFT, "B": SOFT, "C": SOFT, "D": SHARP, "E": SHARP, "L": SHARP}
_SHARP_WORDS = ("LUNG", "BONE", "EDGE", "SHARP", "ULTRA", "INNER EAR")
_SOFT_WORDS = ("SOFT", "SMOOTH", "STANDARD", "STND", "BRAIN", "MEDIAST", "BODY", "ROUTINE")


def sharpness(kernel: tuple[str, ...], group: str = "", manufacturer: str = "") -> str:
    """``soft``, ``sharp``, or "" where the name says neither.

    Args:
        kernel: ConvolutionKernel; the first value counts, the others are strengths of a noise reduction.
        group: ConvolutionKernelGroup.
        manufacturer: Manufacturer.
    """
    if group in _GROUPS:
        return _GROUPS[group]
    name = kernel[0].strip() if kernel else ""
    if siemens := _SIEMENS.match(name):
        number = int(siemens[2])
        if "l" in siemens[1] or number >= 50:  # Bl57 is a lung kernel
            return SHARP
        return SOFT if number <= 45 else UNKNOWN
    if canon := _CANON.match(name):
        number = int(canon[1])
        if any(number in family for family in _CANON_SHARP):
            return SHARP
        return SOFT if any(number in family for family in _CANON_SOFT) else UNKNOWN
    if manufacturer.upper().startswith("PHILIPS") and name.upper() in _PHILIPS:
        return _PHILIPS[name.upper()]
    capitals = name.upper()
    if any(word in capitals for word in _SHARP_WORDS):
        return SHARP
    return SOFT if any(word in capitals for word in _SOFT_WORDS) else UNKNOWN
