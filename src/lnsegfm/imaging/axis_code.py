"""Axis codes: the directions in which the indices x, y and z of an image grow.

With ``LPS`` they run to the patient's left, back (posterior) and head (superior). SimpleITK's ``DICOMOrient``,
nibabel's ``aff2axcodes`` and MONAI's ``Orientation`` write it so.
"""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

from lnsegfm.errors import ConfigError

DIRECTIONS = ("RL", "AP", "IS")
"""Letters of the two directions along the axes x, y and z of LPS, the positive one last."""
AXIS_CODES = tuple(
    "".join(letters) for order in permutations(DIRECTIONS) for letters in product(*(pair[::-1] for pair in order))
)
"""All 48, LPS first."""


def require_axes(text: Any, where: str) -> str:
    """An axis code, in capitals.

    Args:
        text: What was given.
        where: What messages call it, such as ``--axes``.

    Raises:
        ConfigError: It is none.
    """
    if isinstance(text, str) and (axes := text.strip().upper()) in AXIS_CODES:
        return axes
    raise ConfigError(
        f"{where} {text!s:.20}: not the directions of three axes. Use one letter each of R or L, A or P, S or I, "
        "in the order x, y, z: LPS as DICOM has them, or RAS."
    )
