"""Interpolation weights along one axis, those of scikit-image's ``resize``: for images, labels and logits.

Splines of any order, nnU-Net's edges and its grid convention included, are linear in the samples and work on each axis
on its own. So ``resize``, called once to interpolate the identity matrix, gives the weights of an axis, and a volume is
interpolated by one matrix product an axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from skimage.transform import resize
from torch import Tensor

ROWS = 32
"""Outputs a block: its inputs lie side by side, so a block is a small dense product instead of a wide sparse one."""
NEGLIGIBLE = {torch.float32: 1e-9, torch.float64: 0.0}
"""A cubic weight decays by 0.27 a sample: those below are left out, and all of them together are below rounding."""


@lru_cache(maxsize=64)
def axis_weights(n_in: int, n_out: int, order: int) -> np.ndarray:
    """Weights (n_out, n_in), float64, of ``resize(..., mode="edge", anti_aliasing=False)`` along one axis.

    Args:
        n_in: Samples along the axis.
        n_out: Samples wanted.
        order: Order of the spline; 0 is the nearest sample, 1 linear, 3 cubic.
    """
    result = resize(np.eye(n_in), (n_out, n_in), order, mode="edge", anti_aliasing=False, clip=False)
    result.setflags(write=False)
    return result


@lru_cache(maxsize=64)
def separate_axis_weights(n_in: int, n_out: int, order: int) -> np.ndarray:
    """Weights (n_out, n_in), float64, from slice to slice where nnU-Net resamples an axis separately."""
    places = np.float64(n_in / n_out) * (np.arange(n_out) + 0.5) - 0.5
    unit = np.eye(n_in)
    columns = [map_coordinates(unit[sample], places[None], order=order, mode="nearest") for sample in range(n_in)]
    result = np.stack(columns, axis=1)
    result.setflags(write=False)
    return result


@dataclass(frozen=True, eq=False)
class WeightBlock:
    """Consecutive outputs of an axis and the inputs that they depend on.

    Args:
        start: First output.
        stop: One past the last output.
        low: First input.
        high: One past the last input.
        weights: (stop - start, high - low).
        rows: The same on the CPU, in float64.
    """

    start: int
    stop: int
    low: int
    high: int
    weights: Tensor
    rows: np.ndarray

    @cached_property
    def nearest(self) -> tuple[np.ndarray, np.ndarray]:
        """The inputs with the largest weight of some output, ascending, and for each output which of these it is."""
        used, back = np.unique(self.rows.argmax(1), return_inverse=True)
        return used, back


def weight_block(matrix: np.ndarray, start: int, stop: int, dtype: torch.dtype, device: torch.device) -> WeightBlock:
    """The block of outputs [start, stop) of an axis whose weights are ``matrix`` (n_out, n_in)."""
    rows = matrix[start:stop]
    used = np.flatnonzero((np.abs(rows) > NEGLIGIBLE[dtype]).any(axis=0))
    low, high = int(used[0]), int(used[-1]) + 1
    rows = rows[:, low:high]
    return WeightBlock(start, stop, low, high, torch.tensor(rows, dtype=dtype, device=device), rows)


@lru_cache(maxsize=64)
def weight_blocks(
    n_in: int, n_out: int, order: int, dtype: torch.dtype, device: torch.device
) -> tuple[WeightBlock, ...]:
    """The axis in blocks of ``ROWS`` outputs."""
    matrix = axis_weights(n_in, n_out, order)
    return tuple(weight_block(matrix, at, min(at + ROWS, n_out), dtype, device) for at in range(0, n_out, ROWS))


def interpolate_planes(planes: Tensor, shape: tuple[int, int], order: int) -> Tensor:
    """Interpolate planes (n, y, x), float32 or float64, to (n, *shape)."""
    n, y, x = planes.shape
    if y != shape[0]:
        result = planes.new_empty((n, shape[0], x))
        for part in weight_blocks(y, shape[0], order, planes.dtype, planes.device):
            result[:, part.start : part.stop] = torch.matmul(part.weights, planes[:, part.low : part.high])
        planes = result
    if x != shape[1]:
        rows = planes.reshape(-1, x)
        result = planes.new_empty((len(rows), shape[1]))
        for part in weight_blocks(x, shape[1], order, planes.dtype, planes.device):
            torch.mm(rows[:, part.low : part.high], part.weights.T, out=result[:, part.start : part.stop])
        planes = result.view(n, shape[0], shape[1])
    return planes


@dataclass(frozen=True, eq=False)
class LinearNeighbours:
    """The two samples between which each output of an axis lies, as linear interpolation takes them.

    Args:
        low: The one before (n_out); every output lies between ``low`` and ``low + 1``.
        high: The one after, or ``low`` again where that one has no weight.
        of_low: Weight of ``low``, float64, with the very bits that scipy multiplies by.
        of_high: Weight of ``high``.
        nearest: The sample that nearest neighbour takes.
    """

    low: np.ndarray
    high: np.ndarray
    of_low: np.ndarray
    of_high: np.ndarray
    nearest: np.ndarray


@lru_cache(maxsize=64)
def linear_neighbours(n_in: int, n_out: int) -> LinearNeighbours:
    """Linear interpolation along one axis, sample by sample."""
    matrix = axis_weights(n_in, n_out, 1)
    rows = np.arange(n_out)
    low = np.argmax(matrix != 0, axis=1)
    high = n_in - 1 - np.argmax(matrix[:, ::-1] != 0, axis=1)
    place = (n_in / n_out) * (rows + 0.5) - 0.5
    above = place - np.floor(place)
    beyond = (place < 0) | (place > n_in - 1)  # both weights are the outermost sample's, and scipy adds them one by one
    of_low = np.where(beyond, 1 - above, matrix[rows, low])
    of_high = np.where(beyond, above, np.where(high == low, 0.0, matrix[rows, high]))
    return LinearNeighbours(low, high, of_low, of_high, np.argmax(axis_weights(n_in, n_out, 0) != 0, axis=1))


@lru_cache(maxsize=64)
def nearest_slices(n_in: int, n_out: int) -> np.ndarray:
    """The slice (n_out) that nnU-Net takes for each output where an axis is resampled separately at order 0."""
    return np.argmax(separate_axis_weights(n_in, n_out, 0) != 0, axis=1)
