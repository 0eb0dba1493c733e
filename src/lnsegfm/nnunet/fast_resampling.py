"""Fast resampling inside nnU-Net, which names its resampling functions in the plans.

The plans stay as they are: a configuration made by ``with_fast_resampling`` gives, wherever they name nnU-Net's default
function, ours with the same arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from nnunetv2.preprocessing.resampling import default_resampling as stock
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import Tensor

from lnsegfm.transforms.resampling.resample_blockwise import MAX_BYTES, ResamplingRule
from lnsegfm.transforms.resampling.resample_images import resample_image, resample_labels


def resample_data_or_seg_to_shape(
    data: np.ndarray | Tensor,
    new_shape: Sequence[int],
    current_spacing: Sequence[float],
    new_spacing: Sequence[float],
    is_seg: bool = False,
    order: int = 3,
    order_z: int = 0,
    force_separate_z: bool | None = False,
    separate_z_anisotropy_threshold: float = stock.ANISO_THRESHOLD,
    *,
    device: str | torch.device = "cpu",
    max_bytes: int = MAX_BYTES,
) -> np.ndarray:
    """Do what nnU-Net's function of this name does, with its arguments and its result, fast.

    What is not ours (images of integers, labels of other orders than 1 and 0, volumes without voxels) goes to
    nnU-Net's own.

    Args:
        data: (C, z, y, x) image, labels or logits.
        new_shape: (z, y, x) wanted.
        current_spacing: Of ``data`` in mm.
        new_spacing: Of the result in mm.
        is_seg: Labels rather than numbers.
        order: Order of the spline.
        order_z: Order between slices, where an axis is resampled separately.
        force_separate_z: Whether one is; None lets the spacings say.
        separate_z_anisotropy_threshold: Largest over smallest spacing beyond which one is.
        device: Where to compute images and logits.
        max_bytes: Working memory.

    Raises:
        DataError: NaN or infinity in an image.
    """
    array = data.numpy() if isinstance(data, Tensor) else data
    rule = ResamplingRule(order, order_z, force_separate_z, separate_z_anisotropy_threshold)
    if array.ndim == 4 and array.size and is_seg and (order, order_z) == (1, 0):
        return resample_labels(array, new_shape, current_spacing, new_spacing, max_bytes=max_bytes, rule=rule)
    if array.ndim == 4 and array.size and not is_seg and array.dtype.kind == "f":
        return resample_image(
            array, new_shape, current_spacing, new_spacing, device=device, max_bytes=max_bytes, rule=rule
        )
    result: np.ndarray = stock.resample_data_or_seg_to_shape(
        array,
        new_shape,
        current_spacing,
        new_spacing,
        is_seg,
        order,
        order_z,
        force_separate_z,
        separate_z_anisotropy_threshold,
    )
    return result


class FastResampling(ConfigurationManager):
    """nnU-Net's configuration, whose default resampling functions are ours.

    Args:
        configuration: nnU-Net's own, of which only the dict is taken.
        device: Where to compute images and logits.
        max_bytes: Working memory.
    """

    def __init__(
        self, configuration: ConfigurationManager, *, device: str | torch.device = "cpu", max_bytes: int = MAX_BYTES
    ) -> None:
        super().__init__(configuration.configuration)
        self._fast: dict[str, Any] = {"device": device, "max_bytes": max_bytes}

    def _ours(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if not isinstance(function, partial) or function.func is not stock.resample_data_or_seg_to_shape:
            return function  # another resampler, which the plans chose
        return partial(resample_data_or_seg_to_shape, **function.keywords, **self._fast)

    @property
    def resampling_fn_data(self) -> Callable[..., Any]:
        """For images."""
        return self._ours(super().resampling_fn_data)

    @property
    def resampling_fn_seg(self) -> Callable[..., Any]:
        """For labels."""
        return self._ours(super().resampling_fn_seg)

    @property
    def resampling_fn_probabilities(self) -> Callable[..., Any]:
        """For logits."""
        return self._ours(super().resampling_fn_probabilities)


def with_fast_resampling(
    configuration: ConfigurationManager, *, device: str | torch.device = "cpu", max_bytes: int = MAX_BYTES
) -> FastResampling:
    """Give the configuration with fast resampling; preprocessing and export take it as nnU-Net's."""
    return FastResampling(configuration, device=device, max_bytes=max_bytes)
