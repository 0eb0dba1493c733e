"""Volumes on another grid, slab by slab: one matrix product an axis, in single precision, memory bounded."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from lnsegfm.errors import ConfigError, DataError
from lnsegfm.transforms.resampling.anisotropy import ANISOTROPY_THRESHOLD, separate_axis
from lnsegfm.transforms.resampling.axis_weights import (
    WeightBlock,
    axis_weights,
    interpolate_planes,
    separate_axis_weights,
    weight_block,
)

MAX_BYTES = 2**28
"""Default of the working memory beside input and output."""
SLAB_ROWS = 16
"""Outputs a slab on a CPU: a slab stays in its caches."""


@dataclass(frozen=True)
class ResamplingRule:
    """How to resample, in nnU-Net's terms.

    Args:
        order: Order of the spline.
        order_z: Order between slices, where an axis is resampled separately.
        force_separate_z: Whether the anisotropic axis (of largest spacing) is resampled separately; None: by spacing.
        anisotropy_threshold: Largest over smallest spacing beyond which it is.
    """

    order: int = 3
    order_z: int = 0
    force_separate_z: bool | None = None
    anisotropy_threshold: float = ANISOTROPY_THRESHOLD

    def __post_init__(self) -> None:
        for name in ("order", "order_z"):
            if not 0 <= getattr(self, name) <= 5:
                raise ConfigError(f"{name} {getattr(self, name)}: a spline has an order of 0 to 5. Use 1 or 3.")

    def apart(self, current_spacing_mm: Sequence[float], new_spacing_mm: Sequence[float]) -> int | None:
        """The axis of (z, y, x) that is resampled apart from the others, by nnU-Net's rule; None for none."""
        return separate_axis(current_spacing_mm, new_spacing_mm, self.force_separate_z, self.anisotropy_threshold)


@torch.no_grad()
def resampled_slabs(
    data: np.ndarray | Tensor,
    new_shape: Sequence[int],
    current_spacing_mm: Sequence[float],
    new_spacing_mm: Sequence[float],
    *,
    device: str | torch.device = "cpu",
    max_bytes: int = MAX_BYTES,
    rule: ResamplingRule,
) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
    """Resample slab by slab, for callers that reduce each slab to something smaller.

    Args:
        data: (C, z, y, x), floating point.
        new_shape: (z, y, x) wanted.
        current_spacing_mm: Of ``data`` (z, y, x).
        new_spacing_mm: Of the result (z, y, x).
        device: Where to compute, and where the slabs are.
        max_bytes: Working memory, the slab given included.
        rule: Orders, and when slices are resampled separately.

    Yields:
        Where a slab lies in (C, *new_shape), and the slab in the type of ``data``. Slabs come in order and cover all.
    """
    new_shape = checked_shape(data, new_shape)
    source, device = voxels_as_tensor(data), torch.device(device)
    axis = rule.apart(current_spacing_mm, new_spacing_mm)
    first = axis or 0
    source = source.movedim(first + 1, 1)
    n_out = new_shape[first]
    plane = cast(tuple[int, int], new_shape[:first] + new_shape[first + 1 :])
    ranges = [_range(channel) for channel in source]
    working = torch.float64 if source.dtype == torch.float64 else torch.float32
    n_in = source.shape[1]
    matrix = axis_weights(n_in, n_out, rule.order) if axis is None else separate_axis_weights(n_in, n_out, rule.order_z)
    rows = _rows(source, matrix, plane, working, device, max_bytes)
    for start in range(0, n_out, rows):
        stop = min(start + rows, n_out)
        along = weight_block(matrix, start, stop, working, device)
        slab = torch.empty((len(source), stop - start, *plane), dtype=source.dtype, device=device)
        with _full_precision(device):
            for channel, out, limits in zip(source, slab, ranges, strict=True):
                part = channel[along.low : along.high].to(device=device, dtype=working)
                out.copy_(
                    _volume(part, along, plane, rule, limits) if axis is None else _slices(part, along, plane, rule)
                )
        place = [slice(None), *(slice(0, n) for n in new_shape)]
        place[first + 1] = slice(start, stop)
        yield tuple(place), slab.movedim(1, first + 1)


def _volume(
    part: Tensor, along: WeightBlock, plane: tuple[int, int], rule: ResamplingRule, limits: tuple[float, float]
) -> Tensor:
    """Outputs of a slab in three dimensions, from the inputs that they need."""
    mixed = torch.matmul(along.weights, part.reshape(len(part), -1)).view(-1, *part.shape[1:])
    return interpolate_planes(mixed, plane, rule.order).clamp_(*limits)


def _slices(part: Tensor, along: WeightBlock, plane: tuple[int, int], rule: ResamplingRule) -> Tensor:
    """Outputs of a slab where slices are resampled separately: each slice on its own, then from slice to slice."""
    back = None
    if rule.order_z == 0:  # on the CPU, where the weights come from: an accelerator would have to be waited for
        used, back = (torch.from_numpy(index).to(part.device) for index in along.nearest)
        part = part.index_select(0, used)
    result = interpolate_planes(part, plane, rule.order)
    result = result.clamp(part.amin((1, 2), keepdim=True), part.amax((1, 2), keepdim=True))
    if back is not None:
        return result.index_select(0, back)
    return torch.matmul(along.weights, result.reshape(len(result), -1)).view(-1, *plane)


def _rows(
    source: Tensor,
    matrix: np.ndarray,
    plane: tuple[int, int],
    working: torch.dtype,
    device: torch.device,
    max_bytes: int,
) -> int:
    """How many outputs of the first axis a slab takes."""
    (channels, n_in, *plane_in), n_out = source.shape, len(matrix)
    size, voxels_in, voxels = working.itemsize, math.prod(plane_in), math.prod(plane)
    reach = int(((np.abs(matrix) > 1e-9).sum(1)).max())  # inputs of one output
    copied = source.dtype != working or source.device != device
    in_plane_bytes = size * (max(voxels_in, voxels) + 2 * voxels)
    a_row = channels * source.element_size() * voxels + in_plane_bytes + size * voxels_in * (1 + copied * n_in / n_out)
    fitting = int((max_bytes - copied * reach * size * voxels_in) // a_row)
    return max(1, min(fitting, n_out, SLAB_ROWS if device.type == "cpu" else n_out))


def checked_shape(data: Any, new_shape: Sequence[int], *, floating: bool = True) -> tuple[int, int, int]:
    """The new shape, if it and the volume are some.

    Raises:
        DataError: Not four axes, no voxels, or integers where ``floating``.
        ConfigError: Not three positive numbers.
    """
    if data.ndim != 4 or 0 in data.shape:
        raise DataError(f"Shape {tuple(data.shape)}: not (C, z, y, x) with voxels. Add the axis that is missing.")
    if floating and not (data.is_floating_point() if isinstance(data, Tensor) else data.dtype.kind == "f"):
        raise DataError(f"Type {data.dtype}: interpolated values are no integers. Convert the image to float32.")
    shape = tuple(int(n) for n in new_shape)
    if len(shape) != 3 or min(shape) < 1:
        raise ConfigError(f"New shape {shape}: a volume has three axes of at least one voxel. Give (z, y, x).")
    return shape


def voxels_as_tensor(data: np.ndarray | Tensor) -> Tensor:
    """The same voxels as a tensor, copied only where torch knows no such array."""
    if isinstance(data, Tensor):
        return data
    if not data.dtype.isnative or min(data.strides) < 0:
        data = np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("="))
    with warnings.catch_warnings():  # a file mapped into memory is read and never written here
        warnings.filterwarnings("ignore", message=".*not writable")
        return torch.from_numpy(data)


def _range(channel: Tensor) -> tuple[float, float]:
    low, high = (float(limit) for limit in torch.aminmax(channel))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DataError("The volume to resample holds NaN or infinity: it would spread. Replace them first.")
    return low, high


@contextlib.contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Products in full single precision, whatever the user's training runs in."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
