"""A scan as the network takes it: read, checked, normalised and resampled by the plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor

from lnsegfm.errors import DataError
from lnsegfm.imaging.files import write_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.image_objects import Volume
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.fast_resampling import FastResampling

IN_MEMORY = ".nii.gz"
"""Ending of the file that an image in memory gets where the plans' reader is not SimpleITK's."""
SAME = 1e-6
"""Relative difference of spacings that are one: NIfTI holds them in single precision."""
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
) -> PreprocessedScan:
    """Bring a scan, from files or memory, to the network's grid. Safe to run beside other threads.

    Args:
        images: One file, or volume in memory, a channel.
        plans: The model's.
        configuration: The model's; its resampling functions are used.
        dataset_json: The model's.
        ct: The channel that holds HU, if one does.
        bound: CT's lower bound after normalisation (`air_value`), to which voxels just above it are set.

    Raises:
        DataError: A scan that cannot be read, is no volume, or whose channels differ in their grid.
    """
    scans = [_whole(image) for image in images]
    reader = reader_for(plans, images[0])
    data, properties = _as_read(scans, images, reader)
    require_volume(data, images[0], len(images))
    scan, grid = scans[ct].array if ct is not None else None, scans[0].grid
    del scans
    with nnunet_environment():
        volume, _, properties = configuration.preprocessor_class(verbose=False).run_case_npy(
            data, None, properties, plans, configuration, dict(dataset_json)
        )
    if bound is not None:
        volume[volume <= bound + NEAR_BOUND * (float(volume.max()) - bound)] = bound
    return PreprocessedScan(tuple(images), torch.from_numpy(volume), properties, reader, scan, grid)


def air_value(plans: PlansManager, configuration: ConfigurationManager) -> float | None:
    """What air is after normalisation; None unless the scan is one channel of CT, prepared by nnU-Net's default."""
    if configuration.configuration["normalization_schemes"] != ["CTNormalization"]:
        return None
    if configuration.preprocessor_class is not DefaultPreprocessor:
        return None
    properties = plans.foreground_intensity_properties_per_channel["0"]
    lowest = np.full(1, -1e30, dtype=np.float32)
    return float(CTNormalization(use_mask_for_norm=False, intensityproperties=properties).run(lowest)[0])


def reader_for(plans: PlansManager, image: Path | Volume) -> Any:
    """The reader of the plans, or SimpleITK's where that one does not know the file's ending."""
    stated = plans.image_reader_writer_class
    name = image.name.lower() if isinstance(image, Path) else IN_MEMORY
    known = any(name.endswith(ending) for ending in stated.supported_file_endings)
    return stated() if known else SimpleITKIO()


def require_volume(data: Any, image: Path | Volume, channels: int) -> None:
    """Raise `DataError` unless the data is a volume of so many channels."""
    if data.shape[0] != channels or min(data.shape[1:]) < 2:
        raise DataError(f"{image}: a 3D image is needed, this one has the shape {'x'.join(map(str, data.shape))}.")


def _as_read(
    scans: Sequence[Volume], images: Sequence[Path | Volume], reader: Any
) -> tuple[np.ndarray, dict[str, Any]]:
    """What nnU-Net's reader gives of the files; its commonest one would read what is here already."""
    if type(reader) is not SimpleITKIO:
        return _read_by(reader, scans, images)
    grid = scans[0].grid
    for scan in scans:
        if scan.grid.shape != grid.shape or not np.allclose(scan.grid.spacing_mm, grid.spacing_mm, rtol=SAME, atol=0):
            first = Path(scans[0].name).name
            raise DataError(
                f"{scan}: its grid is not that of {first}, another channel. Resample it to that one's grid."
            )
    properties = {
        "sitk_stuff": {"spacing": grid.spacing_mm[::-1], "origin": grid.origin_mm, "direction": grid.direction},
        "spacing": [abs(spacing) for spacing in grid.spacing_mm],
    }
    return np.stack([scan.array.astype(np.float32) for scan in scans]), properties


def _read_by(
    reader: Any, scans: Sequence[Volume], images: Sequence[Path | Volume]
) -> tuple[np.ndarray, dict[str, Any]]:
    """What another reader gives, which may turn scans: it takes files alone, so what is in memory gets one."""
    with TemporaryDirectory(prefix="lnsegfm-") as folder:
        files = []
        for number, (image, scan) in enumerate(zip(images, scans, strict=True)):
            files.append(image if isinstance(image, Path) else Path(folder) / f"{number}{IN_MEMORY}")
            if not isinstance(image, Path):
                write_volume(files[-1], scan.array, scan.grid)
        with nnunet_environment():
            data, properties = reader.read_images([str(file) for file in files])
    return data, properties


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
        properties: What nnU-Net records for the inverse preprocessing.
        reader: nnU-Net's reader, which also writes the mask.
        scan: HU (z, y, x); None where the model takes no CT.
        grid: Where the scan's voxels lie.
    """

    images: tuple[Path | Volume, ...]
    volume: Tensor
    properties: Mapping[str, Any]
    reader: Any
    scan: np.ndarray | None
    grid: Grid

    @property
    def keeps_axes(self) -> bool:
        """Whether the reader gives arrays on the file's own axes, and does not turn them."""
        return type(self.reader) is SimpleITKIO
