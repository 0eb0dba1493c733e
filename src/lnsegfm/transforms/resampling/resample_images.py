"""Resampling of images, labels and logits: what nnU-Net's default resampler gives, at a fraction of its time.

nnU-Net (2.8, ``preprocessing.resampling.default_resampling``) interpolates images by cubic splines, labels and logits
linearly, in three dimensions; where a scan's slices are much thicker than its pixels it interpolates within each slice
and takes the nearest slice. ``Rule`` holds these choices as a plans file does. Images and logits are interpolated here
by one matrix product an axis (``resampling_axis``) in single precision, in slabs, on the CPU or an accelerator.

Differences from nnU-Net: at most 1e-5 of the image's range (double against single precision); labels: see
``resample_labels``. Clipping, which is not linear, is done where nnU-Net does it: to the range of a volume, or of each
slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from lnsegfm.errors import ConfigError
from lnsegfm.transforms.resampling.axis_weights import nearest_slices
from lnsegfm.transforms.resampling.resample_blockwise import (
    MAX_BYTES,
    ResamplingRule,
    checked_shape,
    resampled_slabs,
    voxels_as_tensor,
)
from lnsegfm.transforms.resampling.resample_labels import resample_label_volume

Array = TypeVar("Array", np.ndarray, Tensor)

IMAGE, LABELS = ResamplingRule(order=3), ResamplingRule(order=1)
"""What nnU-Net's planner writes for images and labels; logits have that of labels."""


def resample_image(
    data: Array,
    new_shape: Sequence[int],
    current_spacing_mm: Sequence[float],
    new_spacing_mm: Sequence[float],
    *,
    device: str | torch.device = "cpu",
    max_bytes: int = MAX_BYTES,
    rule: ResamplingRule = IMAGE,
) -> Array:
    """Resample an image to another grid.

    Args:
        data: (C, z, y, x), floating point; half precision is computed in single.
        new_shape: (z, y, x) wanted.
        current_spacing_mm: Of ``data`` (z, y, x); decides with the new one whether an axis is resampled
            separately, nothing else.
        new_spacing_mm: Of the result (z, y, x).
        device: Where to compute.
        max_bytes: Working memory beside input and output; a slab is at least one slice, so tiny bounds are exceeded.
        rule: Orders, and when slices are resampled separately; ``Rule(order=1)`` for logits.

    Returns:
        (C, *new_shape), array or tensor, type and place as ``data``; ``data`` itself where the shape is the same.

    Raises:
        DataError: No floating point volume, one without voxels, or NaN or infinity in it.
        ConfigError: A new shape that is none.
    """
    new_shape = checked_shape(data, new_shape)
    if tuple(data.shape[1:]) == new_shape:
        return data
    source = voxels_as_tensor(data)
    result = torch.empty((len(source), *new_shape), dtype=source.dtype, device=source.device)
    for part, slab in resampled_slabs(
        source, new_shape, current_spacing_mm, new_spacing_mm, device=device, max_bytes=max_bytes, rule=rule
    ):
        result[part] = slab.to(result.device)
    return result.numpy() if isinstance(data, np.ndarray) else result


def resample_labels(
    data: Array,
    new_shape: Sequence[int],
    current_spacing_mm: Sequence[float],
    new_spacing_mm: Sequence[float],
    *,
    max_bytes: int = MAX_BYTES,
    rule: ResamplingRule = LABELS,
) -> Array:
    """Resample labels as nnU-Net does: the label whose indicator, interpolated linearly, is the largest.

    Ties go to the nearest voxel's label if it is one of the tied, else to the smallest (batchgenerators 0.25.5).
    Only voxels between unlike neighbours are interpolated, with scipy's own float64 products in scipy's order, so that
    the result is nnU-Net's voxel for voxel, ties included. (Where scipy was compiled to fuse multiplication and
    addition, as it may be on ARM, a tie can fall to the other side.) Runs on the CPU.

    Args:
        data: (C, z, y, x), any real type; -1 (outside) is a label like others.
        new_shape: (z, y, x) wanted.
        current_spacing_mm: Of ``data`` (z, y, x).
        new_spacing_mm: Of the result (z, y, x).
        max_bytes: Working memory beside input and result.
        rule: When slices are resampled separately; orders 1 and 0 are what is known here.

    Raises:
        ConfigError: Another order, or a new shape that is none.
        DataError: Not four axes, or no voxels.
    """
    new_shape = checked_shape(data, new_shape, floating=False)
    if (rule.order, rule.order_z) != (1, 0):
        raise ConfigError(f"Orders {rule.order} and {rule.order_z}: labels take 1 and 0. Use nnU-Net's resampler.")
    if tuple(data.shape[1:]) == new_shape:
        return data
    axis = rule.apart(current_spacing_mm, new_spacing_mm)
    labels = data if isinstance(data, np.ndarray) else data.cpu().numpy()
    result = np.empty((len(labels), *new_shape), dtype=labels.dtype)
    for channel, out in zip(labels, result, strict=True):
        if axis is None:
            resample_label_volume(channel, out, None, max_bytes)
        else:
            slices = nearest_slices(channel.shape[axis], new_shape[axis])
            resample_label_volume(np.moveaxis(channel, axis, 0), np.moveaxis(out, axis, 0), slices, max_bytes)
    return result if isinstance(data, np.ndarray) else torch.from_numpy(result).to(data.device)
