"""Masks that are mirror images of what they should be.

Viewers have written corrected segmentations with their frames in reverse order (OHIF, issues 5038 and 5183;
cornerstone3D, issue 2580): consistent in itself, so that only another mask of the same scan shows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

MIRRORED = 0.5
"""Dice from which a mirrored mask fits."""
BETTER = 0.3
"""How much better it must fit than the mask as it is."""
FEWEST = 30
"""Voxels that either mask has at least: a few of them fit anything by chance."""
AXES = ("z", "y", "x")


@dataclass(frozen=True)
class Mirror:
    """A mask that fits another one clearly better when it is mirrored.

    Args:
        axis: Along which axis of the array (z, y, x): 0, 1 or 2.
        dice: Of the mask as it is.
        mirrored_dice: Of the mirrored mask.
    """

    axis: int
    dice: float
    mirrored_dice: float

    def __str__(self) -> str:
        return f"mirrored along {AXES[self.axis]} (Dice {self.mirrored_dice:.2f}, and {self.dice:.2f} as it is)"


def mirrored_axis(mask: np.ndarray, other: np.ndarray, axes: tuple[int, ...] = (0, 1, 2)) -> Mirror | None:
    """The axis along which a mask is mirrored, compared with another one of the same thing; None where it is not.

    A mirrored mask is the mask turned over within its volume (a viewer that reverses all slices), or within the box
    that holds its voxels (one that reverses the stored frames). It is clearly better at a Dice of at least
    ``MIRRORED`` and ``BETTER`` above that of the mask as it is. What is symmetric is not mirrored.

    Args:
        mask: Booleans (z, y, x).
        other: Booleans of the same shape.
        axes: Those that come into question.

    Returns:
        The axis with the best fit, and how well it fits; None also where either has fewer than ``FEWEST`` voxels.
    """
    sizes = int(np.count_nonzero(mask)), int(np.count_nonzero(other))
    if min(sizes) < FEWEST:
        return None
    as_it_is = _dice(mask, other, sum(sizes))
    if as_it_is + BETTER > 1:
        return None
    found = [
        Mirror(axis, as_it_is, _dice(flipped, other, sum(sizes))) for axis in axes for flipped in _flips(mask, axis)
    ]
    best = max(found, key=lambda each: each.mirrored_dice, default=None)
    if best is None or best.mirrored_dice < max(MIRRORED, as_it_is + BETTER):
        return None
    return best


def _flips(mask: np.ndarray, axis: int) -> Iterator[np.ndarray]:
    yield np.flip(mask, axis)
    across = mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis))
    first, last = (int(k) for k in np.flatnonzero(across)[[0, -1]])
    within = tuple(slice(first, last + 1) if a == axis else slice(None) for a in range(mask.ndim))
    turned = np.zeros_like(mask)
    turned[within] = np.flip(mask[within], axis)
    yield turned


def _dice(mask: np.ndarray, other: np.ndarray, voxels: int) -> float:
    return 2 * int(np.count_nonzero(mask & other)) / voxels
