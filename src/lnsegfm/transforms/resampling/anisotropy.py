"""Which axis of a volume is so coarse that nnU-Net resamples it apart from the other two."""

from __future__ import annotations

from collections.abc import Sequence

ANISOTROPY_THRESHOLD = 3.0
"""Largest over smallest spacing beyond which an axis is resampled apart (nnU-Net's ``ANISO_THRESHOLD``)."""


def separate_axis(
    current_spacing_mm: Sequence[float],
    new_spacing_mm: Sequence[float],
    force: bool | None = None,
    threshold: float = ANISOTROPY_THRESHOLD,
) -> int | None:
    """The axis that nnU-Net resamples apart: the one coarse axis of the first of the two spacings that is anisotropic.

    Two equally coarse axes are none: nnU-Net then interpolates along all three.

    Args:
        current_spacing_mm: Before resampling (z, y, x).
        new_spacing_mm: After it.
        force: The plans' ``force_separate_z``: True takes the coarsest axis of the current spacing however fine, False
            none; None lets the spacings decide.
        threshold: Largest over smallest spacing beyond which a spacing is anisotropic.
    """
    if force is False:
        return None
    for spacing in (current_spacing_mm, new_spacing_mm):
        coarsest = max(spacing)
        if force or coarsest / min(spacing) > threshold:
            axes = [axis for axis, one in enumerate(spacing) if coarsest / one == 1]
            return axes[0] if len(axes) == 1 else None
    return None
