"""A scan as the network takes it: read, checked, normalised and resampled by the plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor

from lnsegfm.errors import DataError
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.image_objects import Volume
from lnsegfm.imaging.orientation import Turn
from lnsegfm.imaging.scan_hash import scan_hash
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.fast_resampling import FastResampling
from lnsegfm.nnunet.scan_arrays import ScanArrays

NEAR_BOUND = 1e-5
"""Of the intensity range: voxels so close above CT's lower bound are set to it. Resampling rounds them that far."""


class ImageOnly(FastResampling):
    """Fast resampling of the image alone.

    The mask of the scan's extent, which nnU-Net makes, is not used once the image is normalised.
    """

    @property
    def resampling_fn_seg(self) -> Callable[..., Any]:
        """Leaves it as it is."""
        return lambda mask, *_: mask


def prepare(
    images: Sequence[Path | Volume],
    plans: PlansManager,
    configuration: ConfigurationManager,
    dataset_json: Mapping[str, Any],
    *,
    ct: int | None,
    bound: float | None,
    axes: str | None = None,
    previous: np.ndarray | None = None,
    hashed: bool = False,
) -> PreprocessedScan:
    """Bring a scan, from files or memory, to the network's grid. Safe to run beside other threads.

    Args:
        images: One file, or volume in memory, a channel.
        plans: The model's.
        configuration: The model's; its resampling functions are used.
        dataset_json: The model's.
        ct: The channel that holds HU, if one does.
        bound: CT's lower bound after normalisation (`air_value`), to which voxels just above it are set.
        axes: The axis code that the network was trained on, to which the scan is turned; None leaves it as stored.
        previous: The mask of a cascade's previous stage, as that stage's export gives it; each of its labels becomes a
            channel behind the image's.
        hashed: Give the hash of the first channel, by which a scan is recognised.

    Raises:
        DataError: A scan that cannot be read, is no volume, or whose channels differ in their grid.
    """
    scans = [_whole(image) for image in images]
    arrays = ScanArrays.stack(scans, axes)
    require_volume(arrays.data, images[0], len(images))
    scan, grid, turn = scans[ct].array if ct is not None else None, scans[0].grid, arrays.turn
    digest = scan_hash(scans[0].array, grid) if hashed else None
    del scans
    with nnunet_environment():
        before = None if previous is None else arrays.turn.forth(previous)[None].astype(np.float32)  # as of a file
        volume, resampled, properties = configuration.preprocessor_class(verbose=False).run_case_npy(
            arrays.data, before, arrays.properties, plans, configuration, dict(dataset_json)
        )
    if bound is not None:
        volume[volume <= bound + NEAR_BOUND * (float(volume.max()) - bound)] = bound
    if previous is not None:
        labels = plans.get_label_manager(dict(dataset_json)).foreground_labels
        volume = np.vstack([volume, convert_labelmap_to_one_hot(resampled[0], labels, volume.dtype)])
    return PreprocessedScan(tuple(images), torch.from_numpy(volume), properties, scan, grid, turn, digest)


def air_value(plans: PlansManager, configuration: ConfigurationManager) -> float | None:
    """What air is after normalisation; None unless the scan is one channel of CT, prepared by nnU-Net's default."""
    if configuration.configuration["normalization_schemes"] != ["CTNormalization"]:
        return None
    if configuration.preprocessor_class is not DefaultPreprocessor:
        return None
    properties = plans.foreground_intensity_properties_per_channel["0"]
    lowest = np.full(1, -1e30, dtype=np.float32)
    return float(CTNormalization(use_mask_for_norm=False, intensityproperties=properties).run(lowest)[0])


def require_volume(data: Any, image: Path | Volume, channels: int) -> None:
    """Raise `DataError` unless the data is a volume of so many channels."""
    if data.shape[0] != channels or min(data.shape[1:]) < 2:
        raise DataError(f"{image}: a 3D image is needed, this one has the shape {'x'.join(map(str, data.shape))}.")


def _whole(image: Path | Volume) -> Volume:
    """Refuse what nnU-Net's reader takes without a word: a file cut short, and NaN, which it makes 0 HU."""
    scan = Volume.read(image) if isinstance(image, Path) else image
    if scan.array.dtype.kind == "f" and not np.isfinite(scan.array).all():
        raise DataError(f"{scan}: it holds NaN or infinite voxels. Replace them, for example by -1024 HU.")
    return scan


@dataclass(frozen=True, eq=False)
class PreprocessedScan:
    """A scan that is ready for the network.

    Args:
        images: Its files or volumes in memory, one a channel.
        volume: (channels, z, y, x) normalised, on the network's grid, float32.
        properties: What nnU-Net records for the inverse preprocessing, on the turned axes.
        scan: HU (z, y, x) as the scan is stored; None where the model takes no CT.
        grid: Where the scan's voxels lie, as it is stored.
        turn: From the axes as stored to those of the network.
        scan_hash: Hash of the first channel; None where it was not asked for.
    """

    images: tuple[Path | Volume, ...]
    volume: Tensor
    properties: Mapping[str, Any]
    scan: np.ndarray | None
    grid: Grid
    turn: Turn
    scan_hash: str | None = None
