"""nnU-Net's planners: what they read of a scan, the topology of their networks, and a run of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lnsegfm.errors import ConfigError
from lnsegfm.imaging.files import read_mask
from lnsegfm.imaging.image_objects import Volume
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.lookup import find_in_nnunet
from lnsegfm.nnunet.scan_arrays import ScanArrays

SMALLEST_EDGE = 4
"""Voxels that nnU-Net leaves at the bottom of a U-Net."""


def read_cropped(
    images: Sequence[Path], label: Path, axes: str | None = None
) -> tuple[np.ndarray, np.ndarray, list[float], float]:
    """A labelled scan of files, as `cropped_scan` gives it.

    Args:
        images: One file a channel.
        label: Its reference.
        axes: The axis code to turn both to; None leaves them as they are stored.
    """
    return cropped_scan([Volume.read(image) for image in images], Volume(*read_mask(label)), axes)


def cropped_scan(
    scans: Sequence[Volume], mask: Volume, axes: str | None = None
) -> tuple[np.ndarray, np.ndarray, list[float], float]:
    """A labelled scan cropped to its non-zero box, as nnU-Net's fingerprint sees it.

    Args:
        scans: One volume a channel.
        mask: Its reference.
        axes: The axis code to turn both to; None leaves them as they are stored.

    Returns:
        Image (C, Z, Y, X), labels (1, Z, Y, X), spacing in mm (z, y, x), and the share of the voxels that is kept.
    """
    from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero

    arrays = ScanArrays.stack(scans, axes)
    with nnunet_environment():
        cropped, labels, _ = crop_to_nonzero(arrays.data, arrays.reference(mask))
    return cropped, labels, list(arrays.grid.spacing_mm), cropped[0].size / arrays.data[0].size


def run_planner(planner: str, dataset: str, gpu_memory_gb: float) -> str:
    """Plan a data set that lies in nnU-Net's folders; gives the name of the plans file it wrote, without its ending.

    Args:
        planner: Class of the planner.
        dataset: Name of the data set, ``DatasetXXX_Name``.
        gpu_memory_gb: GPU memory that it plans for.
    """
    planner_class = find_in_nnunet(planner, "experiment_planning.experiment_planners")
    planning = planner_class(dataset, gpu_memory_target_in_gb=gpu_memory_gb)
    planning.plan_experiment()
    return str(planning.plans_identifier)


def topology(
    spacing_mm: Sequence[float], patch_size: Sequence[int]
) -> tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]:
    """Strides and kernel extents of nnU-Net's networks for a patch, both a stage and (z, y, x).

    Raises:
        ConfigError: A patch that cannot be halved as often as nnU-Net would.
    """
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    _, strides, kernels, padded, _ = get_pool_and_conv_props(
        tuple(spacing_mm), tuple(patch_size), SMALLEST_EDGE, 999999
    )
    if [int(p) for p in padded] != list(patch_size):
        raise ConfigError(
            f"Patch size {' '.join(map(str, patch_size))}: the network cannot halve it as often as it wants to. "
            f"Use {' '.join(str(int(p)) for p in padded)}."
        )
    return strides, kernels
