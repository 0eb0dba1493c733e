"""The plans that a model is adapted with.

Foundation plans rule: spacing, intensity normalisation and architecture stay what the base was trained with, because a
handful of scans cannot re-estimate them. Labels, and on request patch and batch size, are the data's.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lnsegfm.cores import machine_memory
from lnsegfm.datasets.dataset import Dataset
from lnsegfm.datasets.nnunet_layout import dataset_description
from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.methods.method import Method
from lnsegfm.models.model import Model
from lnsegfm.models.model_layout import FolderName, model_folders
from lnsegfm.networks.architectures import require_patch
from lnsegfm.nnunet.lookup import normalization_for
from lnsegfm.nnunet.plan_configuration import not_for_volumes, resolve_configuration
from lnsegfm.nnunet.trusted_imports import require_known_imports
from lnsegfm.storage import read_json

CONFIGURATION = "3d_fullres"


def adapted_plans(
    base: Model,
    name: str,
    *,
    channels: Sequence[str],
    patch_size: tuple[int, int, int] | None = None,
    batch_size: int | None = None,
    intensities: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    """Derive the plans of a model to be adapted from those of its base.

    Args:
        base: The model to start from.
        name: Name of the adapted model's data set.
        channels: Names of the data's channels.
        patch_size: Voxels (z, y, x) at the base's spacing; None keeps the base's.
        batch_size: Patches a step; None keeps the base's.
        intensities: Statistics of the data's foreground by channel; needed where their number is not the base's.

    Raises:
        ModelError: The base's configuration is 2D or a later stage of a cascade.
        ConfigError: A patch size that the network's strides do not divide.
    """
    require_adaptable(base)
    plans = copy.deepcopy(dict(base.plans))
    configuration = resolve_configuration(plans, base.configuration)
    if len(channels) != base.channels:
        _set_channels(plans, configuration, base.channel_names, channels, intensities or {})
    set_sizes(plans, configuration, patch_size, batch_size)
    return plans | {"dataset_name": name, "configurations": {base.configuration: configuration}}


def require_adaptable(base: Model) -> None:
    """Refuse a base that predicts and cannot be adapted.

    Raises:
        ModelError: It is a model of slices, or the later stage of a cascade; the line names what can be adapted.
    """
    unusable = not_for_volumes(resolve_configuration(base.plans, base.configuration))
    if unusable is None:
        return
    kind, _, remedy = unusable.partition(". ")
    beside = [folder for folder in model_folders(base.folder.resolve().parent, 1) if _for_volumes(folder)]
    if beside and (FolderName.of(base.folder) is not None):
        remedy = f"Fine-tune {' or '.join(map(str, beside))}."
    raise ModelError(
        f"Model {base.folder}: configuration {base.configuration} {kind}; it predicts, and is not fine-tuned. {remedy}"
    )


def _for_volumes(folder: Path) -> bool:
    """Whether a folder's name says that its model takes volumes on its own."""
    name = FolderName.of(folder)
    return name is not None and name.configuration in (CONFIGURATION, "3d_lowres")


def adapted_architecture(plans: Mapping[str, Any], configuration: str, method: Method) -> Mapping[str, Any]:
    """Plans that name the network as a method leaves it: other ones only where it adds what cannot be merged."""
    resolved = resolve_configuration(plans, configuration)
    network = resolved["architecture"]
    name, arguments = method.architecture(network["network_class_name"], network["arch_kwargs"])
    if name == network["network_class_name"] and arguments == network["arch_kwargs"]:
        return plans
    resolved["architecture"] = {**network, "network_class_name": name, "arch_kwargs": dict(arguments)}
    return {**plans, "configurations": {**plans["configurations"], configuration: resolved}}


def read_plans(file: Path) -> tuple[dict[str, Any], str]:
    """A plans file and the name of its 3D configuration, the only one that is kept.

    Raises:
        DataError: It is no JSON file.
        ModelError: It is not a plans file, or has no 3D configuration of its own.
    """
    plans = read_json(file)
    try:
        for name in (CONFIGURATION, *plans["configurations"]):
            if not plans["configurations"].get(name):
                continue
            configuration = resolve_configuration(plans, name)
            if "patch_size" in configuration and not_for_volumes(configuration) is None:
                require_known_imports(configuration, file)
                require_divisible(configuration)
                return {**plans, "configurations": {name: configuration}}, name
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ModelError(f"{file}: not nnU-Net plans ({error!r}). Give an nnUNetPlans.json.") from None
    raise ModelError(f"{file}: it has no 3D configuration with a patch size. Give plans with 3d_fullres.")


def given_plans(
    file: Path, name: str, *, patch_size: tuple[int, int, int] | None = None, batch_size: int | None = None
) -> tuple[dict[str, Any], str]:
    """Plans of a file for a data set of that name, with other patch and batch size on request.

    Raises:
        ModelError: It is not a plans file with a 3D configuration.
        ConfigError: A patch size that the network's strides do not divide.
    """
    plans, configuration = read_plans(file)
    set_sizes(plans, plans["configurations"][configuration], patch_size, batch_size)
    return plans | {"dataset_name": name}, configuration


def set_sizes(
    plans: Mapping[str, Any],
    configuration: dict[str, Any],
    patch_size: Sequence[int] | None,
    batch_size: int | None,
) -> None:
    """Give a configuration of plans another patch (z, y, x of the images) or batch size; None leaves it.

    Raises:
        ConfigError: A patch size that the network's strides do not divide, with the nearest that fits; a batch whose
            patches alone are more than the machine's memory.
    """
    if patch_size is not None:
        strides = configuration["architecture"]["arch_kwargs"].get("strides")
        if strides is not None:
            require_patch(patch_size, [in_image_order(plans, stride) for stride in strides])
        configuration["patch_size"] = in_plan_order(plans, patch_size)
    if batch_size is not None:
        _require_memory(batch_size, math.prod(configuration["patch_size"]))
        configuration["batch_size"] = batch_size


def _require_memory(batch_size: int, voxels: int) -> None:
    """Refuse a batch that cannot be, before hours of preparation: its images and labels alone fill the memory."""
    patch_bytes, memory = 2 * 4 * voxels, machine_memory()
    if batch_size * patch_bytes > memory:
        raise ConfigError(
            f"--batch-size {batch_size}: its patches alone take {batch_size * patch_bytes / 2**30:,.0f} GiB of memory, "
            f"this machine has {memory / 2**30:,.0f}. A step takes 2 to 12 patches as a rule."
        )


def in_plan_order(plans: Mapping[str, Any], values: Sequence[Any]) -> list[Any]:
    """One value an axis, from the images' order (z, y, x) to that of plans, which may look along another axis first."""
    return [values[axis] for axis in plans["transpose_forward"]]


def in_image_order(plans: Mapping[str, Any], values: Sequence[Any]) -> list[Any]:
    """The inverse of `in_plan_order`: (z, y, x)."""
    return [values[axis] for axis in plans["transpose_backward"]]


def _set_channels(
    plans: dict[str, Any],
    configuration: dict[str, Any],
    theirs: Sequence[str],
    ours: Sequence[str],
    intensities: Mapping[str, Mapping[str, float]],
) -> None:
    """Normalise each channel as the base does one of that name, and a channel that is new to it as nnU-Net would."""
    known = plans["foreground_intensity_properties_per_channel"]
    places = [theirs.index(name) if name in theirs else None for name in ours]
    old_schemes, old_masks = configuration["normalization_schemes"], configuration["use_mask_for_norm"]
    configuration["normalization_schemes"] = [
        normalization_for(name) if i is None else old_schemes[i] for name, i in zip(ours, places, strict=True)
    ]
    configuration["use_mask_for_norm"] = [False if i is None else old_masks[i] for i in places]
    plans["foreground_intensity_properties_per_channel"] = {
        str(new): dict(intensities[str(new)] if i is None else known[str(i)]) for new, i in enumerate(places)
    }


def require_divisible(configuration: Mapping[str, Any]) -> None:
    """Refuse a patch that the network cannot halve as often as it wants to.

    Raises:
        ConfigError: With the nearest patch size that fits.
    """
    strides = configuration["architecture"]["arch_kwargs"].get("strides")
    if strides is not None:
        require_patch(configuration["patch_size"], strides)


def dataset_name(data: Dataset) -> str:
    """A name as nnU-Net wants it, ``DatasetXXX_Name``, made from the folder's where that is none."""
    folder = data.root.resolve().name
    word = "".join(letter for letter in folder if letter.isascii() and letter.isalnum()) or "Data"
    return folder if re.fullmatch(r"Dataset\d{3}_\w+", folder) else f"Dataset001_{word}"


def dataset_json(data: Dataset, cases: int) -> dict[str, Any]:
    """nnU-Net's description of a data set."""
    return dataset_description(data.channels, data.labels, cases, data.file_ending)
