"""A scan as the network takes it: read, checked, normalised and resampled by the plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor

from lnsegfm.errors import DataError
from lnsegfm.imaging.files import read_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.nnunet.environment import engine
from lnsegfm.nnunet.fast_resampling import FastResampling

NEAR_BOUND = 1e-5
"""Of the intensity range: voxels so close above CT's lower bound are set to it. Resampling rounds them that far."""


class ImageOnly(FastResampling):
    """Fast resampling of the image alone.

    The mask of the scan's extent, which nnU-Net makes, is asked for by nobody once the image is normalised.
    """

    @property
    def resampling_fn_seg(self) -> Callable[..., Any]:
        """Leaves it as it is."""
        return lambda mask, *_: mask


def prepare(
    images: Sequence[Path],
    plans: PlansManager,
    configuration: ConfigurationManager,
    dataset_json: Mapping[str, Any],
    *,
    ct: int | None,
    bound: float | None,
) -> Prepared:
    """Read a scan and bring it to the network's grid. Safe to run beside other threads.

    Args:
        images: One file a channel.
        plans: The model's.
        configuration: The model's; its resampling functions are used.
        dataset_json: The model's.
        ct: The channel that holds HU, if one does.
        bound: CT's lower bound after normalisation (`air_value`), to which voxels just above it are set.

    Raises:
        DataError: A scan that cannot be read, is no volume, or whose channels differ in their grid.
    """
    scans = [_read_whole(image) for image in images]
    reader = reader_for(plans, images[0])
    data, properties = _as_read(scans, images, reader)
    require_volume(data, images[0], len(images))
    scan = scans[ct][0] if ct is not None else None
    del scans
    with engine():
        volume, _, properties = configuration.preprocessor_class(verbose=False).run_case_npy(
            data, None, properties, plans, configuration, dict(dataset_json)
        )
    if bound is not None:
        volume[volume <= bound + NEAR_BOUND * (float(volume.max()) - bound)] = bound
    return Prepared(tuple(images), torch.from_numpy(volume), properties, reader, scan)


def air_value(plans: PlansManager, configuration: ConfigurationManager) -> float | None:
    """What air is after normalisation; None unless the scan is one channel of CT, prepared by nnU-Net's default."""
    if configuration.configuration["normalization_schemes"] != ["CTNormalization"]:
        return None
    if configuration.preprocessor_class is not DefaultPreprocessor:
        return None
    properties = plans.foreground_intensity_properties_per_channel["0"]
    lowest = np.full(1, -1e30, dtype=np.float32)
    return float(CTNormalization(use_mask_for_norm=False, intensityproperties=properties).run(lowest)[0])


def reader_for(plans: PlansManager, image: Path) -> Any:
    """The reader of the plans, or SimpleITK's where that one does not know the file's ending."""
    stated = plans.image_reader_writer_class
    known = any(image.name.lower().endswith(ending) for ending in stated.supported_file_endings)
    return stated() if known else SimpleITKIO()


def require_volume(data: Any, image: Path, channels: int) -> None:
    """Raise `DataError` unless the data is a volume of so many channels."""
    if data.shape[0] != channels or min(data.shape[1:]) < 2:
        raise DataError(f"{image}: a 3D image is needed, this one has the shape {'x'.join(map(str, data.shape))}.")


def _as_read(
    scans: Sequence[tuple[np.ndarray, Grid]], images: Sequence[Path], reader: Any
) -> tuple[np.ndarray, dict[str, Any]]:
    """What nnU-Net's reader gives of the files; its commonest one would read what is here already."""
    if type(reader) is not SimpleITKIO:
        with engine():
            data, properties = reader.read_images([str(image) for image in images])
        return data, properties
    grid = scans[0][1]
    for image, (_, other) in zip(images, scans, strict=True):
        if other.shape != grid.shape or other.spacing_mm != grid.spacing_mm:
            raise DataError(
                f"{image}: its grid is not that of {images[0].name}, another channel. Resample it to that one's grid."
            )
    properties = {
        "sitk_stuff": {"spacing": grid.spacing_mm[::-1], "origin": grid.origin_mm, "direction": grid.direction},
        "spacing": [abs(spacing) for spacing in grid.spacing_mm],
    }
    return np.stack([voxels.astype(np.float32) for voxels, _ in scans]), properties


def _read_whole(image: Path) -> tuple[np.ndarray, Grid]:
    """Refuse what the engine's reader takes without a word: a file cut short, and NaN, which it makes 0 HU."""
    voxels, grid = read_volume(image)
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise DataError(f"{image}: it holds NaN or infinite voxels. Replace them, for example by -1024 HU.")
    return voxels, grid


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan that waits for the network.

    Args:
        images: Its files, one a channel.
        volume: (channels, z, y, x) normalised, on the network's grid, float32.
        properties: What nnU-Net notes on the way, for the way back.
        reader: nnU-Net's reader, which also writes the mask.
        scan: HU (z, y, x); None where the model takes no CT.
    """

    images: tuple[Path, ...]
    volume: Tensor
    properties: Mapping[str, Any]
    reader: Any
    scan: np.ndarray | None
