"""Plans of networks that were trained with MONAI, whose files say neither spacing nor intensities.

MONAI reads a volume as (x, y, z), nnU-Net as (z, y, x): the plans turn the axes, so that the network sees what it was
trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lnsegfm.errors import ConfigError
from lnsegfm.models.importing.import_options import ImportOptions
from lnsegfm.models.importing.model_source import ModelSource
from lnsegfm.models.importing.synthesise_plans import CT, input_channels, require_window, synthesise_plans
from lnsegfm.models.plans import CONFIGURATION
from lnsegfm.networks.architectures import require_patch

X_Y_Z = (2, 1, 0)
PATCH = (96, 96, 96)
AXES_NOTE = "Its axes are MONAI's (x, y, z), which the plans say."


@dataclass(frozen=True)
class MonaiTraining:
    """What is known of how models of a form were trained, where the user does not say otherwise.

    Args:
        example: A sentence with options that models of the form were trained with.
        spacing_mm: Voxel spacing (z, y, x); None where each model has its own.
        window_hu: Intensities that became 0 and 1; None where each model has its own.
    """

    example: str
    spacing_mm: tuple[float, float, float] | None = None
    window_hu: tuple[float, float] | None = None


def monai_plans(
    source: ModelSource,
    options: ImportOptions,
    architecture: Mapping[str, Any],
    channels: int,
    known: MonaiTraining,
    *,
    squashed: bool = False,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Plans with MONAI's axes, and the names of the channels.

    Args:
        source: The file, for the messages.
        options: What the user says.
        architecture: The plans' entry of the network.
        channels: Of its input.
        known: What is known of the form.
        squashed: The network takes intensities by a sigmoid, so the plans clip none that it tells apart.

    Raises:
        ConfigError: Spacing or intensities are neither said nor known; a patch that the network cannot take.
    """
    names = input_channels(options, channels, CT, str(source.path))
    patch = options.patch_size or PATCH
    require_patch(patch, [[stride[axis] for axis in X_Y_Z] for stride in architecture["arch_kwargs"]["strides"]])
    of_ct = any(name.upper() == CT for name in names)
    spacing = options.spacing_mm or known.spacing_mm
    window = options.window_hu or (known.window_hu if of_ct else None)
    missing = ["--spacing Z Y X"] if spacing is None else []
    missing += ["--window LOW HIGH"] if of_ct and window is None else []
    if spacing is None or missing:
        raise ConfigError(
            f"{source.path}: a MONAI file does not say which voxel spacing and which intensities it was trained on. "
            f"Give {' and '.join(missing)}. {known.example}"
        )
    plans = synthesise_plans(
        "Dataset001_MONAI",
        architecture,
        spacing_mm=spacing,
        patch_size=patch,
        channels=names,
        window_hu=window,
        axes=X_Y_Z,
        squashed=squashed,
    )
    if options.window_hu is not None:  # which is refused where no channel is CT
        schemes = plans["configurations"][CONFIGURATION]["normalization_schemes"]
        require_window(options, schemes, str(source.path), known.example)
    return plans, names
