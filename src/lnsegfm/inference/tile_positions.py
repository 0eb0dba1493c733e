"""Where the tiles of a sliding window lie, what their voxels weigh and how they are mirrored: nnU-Net's rules."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

_SIGMA = 1 / 8  # of the tile's size, along each axis
_SCALE = 10.0  # of the weights' largest; nnU-Net's, which fills half precision's range better so

TilePosition = tuple[slice, slice, slice]
"""Where a tile lies (z, y, x)."""


def tile_positions(
    shape: Sequence[int], patch_size: Sequence[int], step: float | Sequence[float] = 0.5
) -> list[TilePosition]:
    """Where tiles lie in a volume at least as large as a patch: evenly, the first and the last at its ends.

    Args:
        shape: Of the volume (z, y, x).
        patch_size: Of a tile.
        step: Distance of neighbours as a share of the patch, at most: one number, or one for each axis.
    """
    starts = []
    for size, tile, share in zip(shape, patch_size, step_by_axis(step), strict=True):
        gaps = math.ceil((size - tile) / (tile * share))
        distance = (size - tile) / gaps if gaps else 0.0
        starts.append([round(distance * number) for number in range(gaps + 1)])
    first, second, third = (
        [slice(start, start + tile) for start in along] for along, tile in zip(starts, patch_size, strict=True)
    )
    return list(itertools.product(first, second, third))


def step_by_axis(step: float | Sequence[float]) -> tuple[float, float, float]:
    """The distance of tiles along (z, y, x), given as one number for all axes or as three."""
    first, second, third = (step,) * 3 if isinstance(step, int | float) else step
    return first, second, third


@functools.lru_cache(maxsize=2)
def gaussian_importance(patch_size: tuple[int, ...]) -> Tensor:
    """The weight of a tile's voxels: a Gaussian of an eighth of the patch around its centre, float32, on the CPU.

    Its values are rounded to half precision as nnU-Net's are, and where that gives zero the smallest of the others is
    taken, so that no voxel is without weight. The tensor is kept: do not change it.
    """
    peak = np.zeros(patch_size)
    peak[tuple(size // 2 for size in patch_size)] = 1
    spread = gaussian_filter(peak, [size * _SIGMA for size in patch_size], mode="constant")
    weight = torch.from_numpy(spread / (spread.max() / _SCALE)).half()
    return weight.masked_fill(weight == 0, weight[weight > 0].min().item()).float()


def mirrorings(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """The combinations of axes to mirror, fewest first; the plain pass is not among them."""
    return [some for number in range(1, len(axes) + 1) for some in itertools.combinations(tuple(axes), number)]
