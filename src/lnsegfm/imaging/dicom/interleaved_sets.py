"""Whether sets of slices that interleave are two scans: what their pixels say where headers leave it open.

In one scan a slice is like its neighbours, and less like slices farther away. Where two scans interleave (of another
phase of contrast or breathing, another kernel or thickness), slices of one set are more alike than neighbours are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from lnsegfm.imaging.dicom.headers import ImagePlane
from lnsegfm.imaging.dicom.pixels import hu_of_planes

MOST_SLICES = 32
"""So many slices, around the middle of the stack, are compared."""
MORE_ALIKE = 1.05
"""So many times as much neighbours differ in two scans as slices of one set do."""


def discordant_sets(planes: Sequence[ImagePlane], sets: Sequence[int]) -> bool:
    """Whether sets of slices look like scans of their own.

    Args:
        planes: Of an even stack, in order.
        sets: Which set each is of; each set goes through the whole stack.

    Returns:
        False too where pixels cannot be read.
    """
    start = max(0, (len(planes) - MOST_SLICES) // 2)
    images = hu_of_planes(planes[start : start + MOST_SLICES])
    of_set = list(sets[start : start + MOST_SLICES])
    neighbours, alike = [], []
    for (one, before), (other, after) in pairwise(zip(images, of_set, strict=True)):
        if before != after:
            neighbours.append(_difference(one, other))
    for number in sorted(set(of_set)):
        members = [image for image, of in zip(images, of_set, strict=True) if of == number]
        alike += [_difference(one, other) for one, other in pairwise(members)]
    if not neighbours or not alike:
        return False
    return bool(np.median(neighbours) > MORE_ALIKE * np.median(alike))


def _difference(one: np.ndarray | None, other: np.ndarray | None) -> float:
    """The mean difference of two images; NaN, which is more than nothing, where one is missing."""
    if one is None or other is None or one.shape != other.shape:
        return float("nan")
    return float(np.abs(one.astype(np.float32) - other).mean())
