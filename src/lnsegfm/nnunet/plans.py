"""The plans that a model is adapted with, and small plans for machines without a GPU.

Foundation plans rule: spacing, intensity normalisation and architecture stay what the base was trained with, because a
handful of scans cannot re-estimate them. Labels, and on request patch and batch size, are the data's.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lnsegfm.datasets.dataset import Dataset
from lnsegfm.errors import ConfigError, ModelError, TransferError, UnknownName
from lnsegfm.nnunet.model import Model

CONFIGURATION = "3d_fullres"


def adapted_plans(
    base: Model, name: str, *, patch_size: tuple[int, int, int] | None = None, batch_size: int | None = None
) -> dict[str, Any]:
    """Derive the plans of a model to be adapted from those of its base.

    Args:
        base: The model to start from.
        name: Name of the adapted model's data set.
        patch_size: Voxels (z, y, x) at the base's spacing; None keeps the base's.
        batch_size: Patches a step; None keeps the base's.

    Raises:
        ModelError: The base's configuration is 2D or a later stage of a cascade.
        ConfigError: A patch size that the network's strides do not divide.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = copy.deepcopy(dict(base.plans))
    resolved = PlansManager(copy.deepcopy(plans)).get_configuration(base.configuration).configuration
    configuration = copy.deepcopy(dict(resolved))
    if len(configuration["patch_size"]) != 3:
        raise ModelError(f"Model {base.folder}: configuration {base.configuration} is 2D. Use a 3D model.")
    if configuration.get("previous_stage"):
        raise ModelError(f"Model {base.folder}: {base.configuration} is a later stage of a cascade. Use 3d_fullres.")
    configuration.pop("inherits_from", None)
    if patch_size is not None:
        configuration["patch_size"] = list(patch_size)
        require_divisible(configuration)
    if batch_size is not None:
        configuration["batch_size"] = batch_size
    return plans | {"dataset_name": name, "configurations": {base.configuration: configuration}}


def require_divisible(configuration: Mapping[str, Any]) -> None:
    """Refuse a patch that the network cannot halve as often as it wants to.

    Raises:
        ConfigError: With the nearest patch size that fits.
    """
    strides = configuration["architecture"]["arch_kwargs"].get("strides")
    if strides is None:
        return
    factor = np.prod(np.array(strides), axis=0)
    patch = np.array(configuration["patch_size"])
    if (patch % factor).any():
        nearest = (np.maximum(np.round(patch / factor), 1) * factor).astype(int)
        raise ConfigError(
            f"Patch size {' '.join(map(str, patch))}: the network needs multiples of {' '.join(map(str, factor))}. "
            f"Use {' '.join(map(str, nearest))}."
        )


def dataset_name(data: Dataset) -> str:
    """A name as nnU-Net wants it, ``DatasetXXX_Name``, made from the folder's where that is none."""
    folder = data.root.resolve().name
    word = "".join(letter for letter in folder if letter.isascii() and letter.isalnum()) or "Data"
    return folder if re.fullmatch(r"Dataset\d{3}_\w+", folder) else f"Dataset001_{word}"


def dataset_json(data: Dataset, cases: int) -> dict[str, Any]:
    """nnU-Net's description of a data set."""
    return {
        "channel_names": {str(i): name for i, name in enumerate(data.channels)},
        "labels": data.labels.to_dataset_json(),
        "numTraining": cases,
        "file_ending": data.file_ending,
    }


def require_channels(base: Model, data: Dataset) -> None:
    """Refuse data with another number of channels than the base takes.

    Raises:
        TransferError: The numbers differ.
    """
    if len(data.channels) != base.channels:
        raise TransferError(
            f"Data {data.root}: its channels are {', '.join(data.channels)}, but the base takes {base.channels}. "
            "Use a base for as many channels."
        )


@dataclass(frozen=True)
class Preset:
    """A small network and the training that makes it learn on a CPU.

    Args:
        features: Channels of each stage.
        patch_size: Voxels (z, y, x).
        batch_size: Patches a step.
        iterations: Optimizer steps.
        lr: Learning rate of AdamW.
    """

    features: tuple[int, ...]
    patch_size: tuple[int, int, int]
    batch_size: int
    iterations: int
    lr: float


PRESETS = {
    "tiny": Preset(features=(8, 16, 32, 64), patch_size=(32, 32, 32), batch_size=2, iterations=800, lr=2e-3),
    "small": Preset(features=(16, 32, 64, 128), patch_size=(40, 64, 64), batch_size=2, iterations=2000, lr=2e-3),
}


def find_preset(name: str) -> Preset:
    """Look a preset up.

    Raises:
        UnknownName: No preset of that name.
    """
    if name not in PRESETS:
        raise UnknownName(f"Preset {name}: not known. The presets: {', '.join(PRESETS)}, default (nnU-Net's planner).")
    return PRESETS[name]


def preset_plans(preset: Preset, name: str, fingerprint: Mapping[str, Any], channels: Sequence[str]) -> dict[str, Any]:
    """Plans of nnU-Net's default network at a preset's size, at the median spacing of the data.

    Args:
        preset: The size.
        name: Name of the data set.
        fingerprint: As of `lnsegfm.nnunet.fingerprint.fingerprint`.
        channels: Names of the channels; CT is normalised by the foreground's intensities, all else by each image's.
    """
    stages = len(preset.features)
    spacing = [float(v) for v in np.median(fingerprint["spacings"], axis=0)]
    shapes = np.array(fingerprint["shapes_after_crop"]) * np.array(fingerprint["spacings"]) / np.array(spacing)
    cubic = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": f"{name}_{CONFIGURATION}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": preset.batch_size,
        "patch_size": list(preset.patch_size),
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
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": list(preset.features),
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3]] * stages,
                "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
                "n_conv_per_stage": [2] * stages,
                "n_conv_per_stage_decoder": [2] * (stages - 1),
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
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
