"""Plans for a base that is trained from nothing: small ones for CPUs, nnU-Net's own, and the paper's release's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lnsegfm.datasets.dataset import Case, Dataset
from lnsegfm.errors import UnknownName
from lnsegfm.models.fingerprint import fingerprint, run_nnunet_planner
from lnsegfm.models.plans import CONFIGURATION, dataset_name
from lnsegfm.networks.architectures import (
    ARCHITECTURES,
    STU_NET,
    SWIN,
    SWIN_GB_PER_VOXEL,
    Architecture,
    require_patch,
)
from lnsegfm.nnunet.plan_configuration import resolve_configuration
from lnsegfm.nnunet.planners import topology
from lnsegfm.progress import Progress

DEFAULT = "default"
"""nnU-Net's own planner, its SGD at 1e-2 and 250,000 iterations."""
RELEASE = "release"
"""The patch and schedule of the paper's release: nnU-Net's SGD at 1e-2, 2000 epochs of 250 iterations, batch 2."""


@dataclass(frozen=True)
class TrainingPreset:
    """A small network and the training that makes it learn on a CPU.

    Args:
        features: Channels of each stage of a U-Net.
        patch_size: Voxels (z, y, x).
        batch_size: Patches a step.
        iterations: Optimizer steps.
        lr: Learning rate of AdamW.
        swin_features: Channels of the first stage of a SwinUNETR.
        swin_patch_size: Its patch (z, y, x).
        swin_lr: Its learning rate.
    """

    features: tuple[int, ...]
    patch_size: tuple[int, int, int]
    batch_size: int
    iterations: int
    lr: float
    swin_features: int = 12
    swin_patch_size: tuple[int, int, int] = (32, 32, 64)
    swin_lr: float = 5e-4


PRESETS = {
    "tiny": TrainingPreset(features=(8, 16, 32, 64), patch_size=(32, 32, 32), batch_size=2, iterations=800, lr=2e-3),
    "small": TrainingPreset(
        features=(16, 32, 64, 128),
        patch_size=(40, 64, 64),
        batch_size=2,
        iterations=2000,
        lr=2e-3,
        swin_features=24,
        swin_patch_size=(64, 64, 64),
    ),
}


def find_preset(name: str) -> TrainingPreset:
    """Look a small preset up.

    Raises:
        UnknownName: No preset of that name.
    """
    if name not in PRESETS:
        raise UnknownName(
            f"Preset {name}: not known. The presets: {', '.join(PRESETS)}, {DEFAULT} (nnU-Net's planner), "
            f"{RELEASE} (the paper's)."
        )
    return PRESETS[name]


def plans_for_preset(
    preset: str,
    architecture: Architecture,
    data: Dataset,
    cases: Sequence[Case],
    work: Path,
    *,
    gpu_memory_gb: float | None,
    checkpointing: bool,
    progress: Progress,
    axes: str | None = None,
    found: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Plans with one configuration, ``3d_fullres``, for an architecture at a preset's size.

    Args:
        preset: ``tiny``, ``small``, ``default`` or ``release``.
        architecture: The network.
        data: The data set.
        cases: Those of its scans that train.
        work: A folder for nnU-Net's planner; removed afterwards.
        gpu_memory_gb: Memory to plan for; None takes the architecture's. Of meaning for ``default`` only.
        checkpointing: As of `Architecture.build_plan`.
        progress: Where progress is reported.
        axes: The axis code to which the scans are turned; None leaves them as they are stored.
        found: The fingerprint of the cases, where it is known; None reads them.

    Raises:
        UnknownName: No preset of that name.
    """
    name = dataset_name(data)
    size = None if preset in (DEFAULT, RELEASE) else find_preset(preset)
    if found is None:
        found = fingerprint(cases, progress, axes)
    if size is not None:
        return preset_plans(size, name, found, data.channels, architecture, checkpointing=checkpointing)
    memory = gpu_memory_gb or architecture.gpu_memory_gb
    plans = run_nnunet_planner(data, cases, name, found, work, planner=architecture.planner, gpu_memory_gb=memory)
    configuration = resolve_configuration(plans, CONFIGURATION)
    plans = plans | {"configurations": {CONFIGURATION: configuration}}
    if preset == RELEASE:
        set_patch(configuration, architecture, architecture.release_patch, checkpointing=checkpointing)
        configuration["batch_size"] = 2
    elif architecture.network == SWIN:
        patch = swin_patch(configuration["patch_size"], configuration["median_image_size_in_voxels"], memory)
        set_patch(configuration, architecture, patch, checkpointing=checkpointing)
        configuration["batch_size"] = 2
    elif architecture.network == STU_NET:  # nnU-Net plans for its U-Net, whose patch and strides are taken
        set_patch(configuration, architecture, configuration["patch_size"], checkpointing=checkpointing)
    elif checkpointing:
        architecture.build_plan((1,), ((1, 1, 1),), checkpointing=True)  # refuses
    return plans


def set_patch(
    configuration: dict[str, Any],
    architecture: Architecture,
    patch_size: Sequence[int],
    *,
    checkpointing: bool = False,
) -> None:
    """Give a full-size configuration another patch, and the network that nnU-Net would plan for it.

    Raises:
        ConfigError: A patch that the network cannot take; the message names the nearest that it can.
    """
    if architecture.network == SWIN:
        plan = architecture.build_plan((48,), (), checkpointing=checkpointing)
        require_patch(patch_size, plan["arch_kwargs"]["strides"])
    else:
        strides, kernels = topology(configuration["spacing"], patch_size)
        plan = architecture.build_plan(
            architecture.stage_features(len(strides)), strides, kernels, checkpointing=checkpointing
        )
    configuration["patch_size"] = list(patch_size)
    configuration["architecture"] = plan


def swin_patch(patch_size: Sequence[int], image_size: Sequence[float], gpu_memory_gb: float) -> tuple[int, ...]:
    """The patch of a full-size SwinUNETR: of a U-Net's proportions, in multiples of 32, within GPU memory.

    Args:
        patch_size: What nnU-Net planned for its U-Net, (z, y, x).
        image_size: Median size of the images in voxels; a patch need not be larger.
        gpu_memory_gb: For batch 2. That memory grows with the voxels is an estimate.
    """
    budget = gpu_memory_gb / SWIN_GB_PER_VOXEL
    scale = (budget / math.prod(patch_size)) ** (1 / 3)
    ideal = [scale * p for p in patch_size]
    largest = [max(32, 32 * math.ceil(n / 32)) for n in image_size]
    patch = [32, 32, 32]
    patch[int(np.argmax(ideal))] = 64  # its deepest norm needs more than one voxel
    while True:
        # the side that falls shortest of its ideal grows first
        for axis in sorted(range(3), key=lambda a: patch[a] / ideal[a]):
            grown = [p + 32 * (a == axis) for a, p in enumerate(patch)]
            if grown[axis] <= largest[axis] and math.prod(grown) <= budget:
                patch = grown
                break
        else:
            return tuple(patch)


def preset_plans(
    preset: TrainingPreset,
    name: str,
    fingerprint: Mapping[str, Any],
    channels: Sequence[str],
    architecture: Architecture = ARCHITECTURES["nnunet"],
    *,
    checkpointing: bool = False,
) -> dict[str, Any]:
    """Plans of an architecture at a preset's size, at the median spacing of the data.

    Args:
        preset: The size.
        name: Name of the data set.
        fingerprint: As of `lnsegfm.models.fingerprint.fingerprint`.
        channels: Names of the channels; CT is normalised by the foreground's intensities, all else by each image's.
        architecture: The network.
        checkpointing: As of `Architecture.build_plan`.
    """
    swin = architecture.network == SWIN
    stages = len(preset.features)
    features = (preset.swin_features,) if swin else preset.features
    strides = [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1)
    spacing = [float(v) for v in np.median(fingerprint["spacings"], axis=0)]
    shapes = np.array(fingerprint["shapes_after_crop"]) * np.array(fingerprint["spacings"]) / np.array(spacing)
    cubic = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": f"{name}_{CONFIGURATION}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": preset.batch_size,
        "patch_size": list(preset.swin_patch_size if swin else preset.patch_size),
        "median_image_size_in_voxels": [float(v) for v in np.median(shapes, axis=0)],
        "spacing": spacing,
        "normalization_schemes": ["CTNormalization" if c.upper() == "CT" else "ZScoreNormalization" for c in channels],
        "use_mask_for_norm": [False] * len(channels),
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": cubic,
        "resampling_fn_seg_kwargs": cubic | {"is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": cubic | {"order": 1},
        "architecture": architecture.build_plan(features, strides, checkpointing=checkpointing),
        "batch_dice": False,
    }
    return {
        "dataset_name": name,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": spacing,
        "original_median_shape_after_transp": [int(v) for v in np.median(fingerprint["shapes_after_crop"], axis=0)],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {CONFIGURATION: configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": fingerprint["foreground_intensity_properties_per_channel"],
    }
