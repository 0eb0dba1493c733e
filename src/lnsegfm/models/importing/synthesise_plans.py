"""nnU-Net plans for networks that were trained without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lnsegfm.errors import ConfigError
from lnsegfm.models.importing.import_options import ImportOptions
from lnsegfm.models.planning import TrainingPreset, preset_plans
from lnsegfm.models.plans import CONFIGURATION

CT = "CT"
SATURATED = (-9.5, 10.5)
"""x whose sigmoid(2x - 1) is 2e-9, and 1 in single precision."""


def synthesise_plans(
    name: str,
    architecture: Mapping[str, Any],
    *,
    spacing_mm: Sequence[float],
    patch_size: Sequence[int],
    channels: Sequence[str],
    schemes: Sequence[str] | None = None,
    window_hu: tuple[float, float] | None = None,
    axes: Sequence[int] = (0, 1, 2),
    squashed: bool = False,
) -> dict[str, Any]:
    """Plans with one configuration, ``3d_fullres``.

    Args:
        name: Name of the data set, ``DatasetXXX_Name``.
        architecture: The plans' entry of the network.
        spacing_mm: Voxel spacing, (z, y, x).
        patch_size: Voxels, (z, y, x).
        channels: Names of the channels.
        schemes: nnU-Net's normalisation of each; by the channels' names unless given.
        window_hu: Intensities that become 0 and 1 in a channel of CT; all else is clipped.
        squashed: Clip only where sigmoid(2x - 1) of what became x is 0 or 1 in single precision.
        axes: Which axis of (z, y, x) is the network's first, second and third.
    """
    z_y_x = tuple(int(n) for n in patch_size)
    preset = TrainingPreset(
        features=(1,), patch_size=(z_y_x[0], z_y_x[1], z_y_x[2]), batch_size=2, iterations=1, lr=1e-3
    )
    spacing = [float(spacing_mm[axis]) for axis in axes]
    fingerprint = {
        "spacings": [spacing],
        "shapes_after_crop": [[z_y_x[axis] for axis in axes]],
        "foreground_intensity_properties_per_channel": {
            str(i): _window(window_hu, SATURATED if squashed else (0.0, 1.0)) for i in range(len(channels))
        },
    }
    plans = preset_plans(preset, name, fingerprint, channels)
    plans["transpose_forward"] = list(axes)
    plans["transpose_backward"] = [list(axes).index(axis) for axis in range(3)]
    configuration = plans["configurations"][CONFIGURATION]
    configuration["patch_size"] = [z_y_x[axis] for axis in axes]
    configuration["architecture"] = dict(architecture)
    if schemes is not None:
        configuration["normalization_schemes"] = list(schemes)
    return plans


def _window(window_hu: tuple[float, float] | None, clipped: tuple[float, float]) -> dict[str, float]:
    """Statistics with which nnU-Net's `CTNormalization` gives (clip(x) - low) / (high - low) exactly.

    Args:
        window_hu: Low and high.
        clipped: What the lowest and the highest that x is clipped to become.
    """
    low, high = window_hu or (0.0, 1.0)
    lowest, highest = (low + share * (high - low) for share in clipped)
    return {
        "mean": float(low),
        "median": (low + high) / 2,
        "std": float(high - low),
        "min": float(lowest),
        "max": float(highest),
        "percentile_00_5": float(lowest),
        "percentile_99_5": float(highest),
    }


def input_channels(options: ImportOptions, number: int, default: str, where: str) -> tuple[str, ...]:
    """Names of the input channels: the given ones, else the default of a single channel.

    Raises:
        ConfigError: Their number is not the weights'.
    """
    names = options.channels or ((default,) if number == 1 else ())
    if len(names) != number:
        raise ConfigError(
            f"{where}: its weights take {number} channel{'s' * (number > 1)}, but {len(names) or 'none'} "
            f"{'is' if len(names) == 1 else 'are'} named. Give --channel once for each, in order."
        )
    return names


def require_window(options: ImportOptions, schemes: Sequence[str], where: str, example: str) -> None:
    """Refuse to guess which intensities of a CT a network was trained to see.

    Raises:
        ConfigError: There is a CT channel and no window; or a window and no CT channel.
    """
    of_ct = "CTNormalization" in schemes
    if of_ct and options.window_hu is None:
        raise ConfigError(f"{where}: it does not say which intensities it saw. {example}")
    if not of_ct and options.window_hu is not None:
        raise ConfigError(
            "--window: only CT has fixed intensities. Name the channel with --channel CT, or leave it out."
        )
