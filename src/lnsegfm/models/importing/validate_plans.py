"""Plans and description of a model from elsewhere: of nnU-Net's form, and naming nothing foreign."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.datasets.nnunet_layout import dataset_description, file_ending, numbers_every_channel
from lnsegfm.errors import ConfigError, DataError, LnSegFmError, ModelError
from lnsegfm.models.plans import require_divisible
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.lookup import is_own_part
from lnsegfm.nnunet.plan_axes import axes_of_plans
from lnsegfm.nnunet.plan_configuration import resolve_configuration
from lnsegfm.nnunet.trusted_imports import require_known_imports
from lnsegfm.storage import read_json

CONFIGURATION_NAME = r"\w[\w.-]{0,99}"
MALFORMED = (LookupError, TypeError, AttributeError, RuntimeError, ValueError, ArithmeticError)
"""What tables that are not of the form they should be may raise where they are used."""
STATISTICS = ("mean", "std", "percentile_00_5", "percentile_99_5")


def read_table(file: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ModelError: It is missing, or no JSON file.
    """
    try:
        return read_json(file)
    except DataError as error:
        raise ModelError(str(error)) from None


def as_plain_json(table: Any, where: str) -> dict[str, Any]:
    """A table as JSON would hold it: text, numbers, lists and tables, and nothing else.

    Raises:
        ModelError: It is no table, or holds something else.
    """
    try:
        if not isinstance(table, Mapping):
            raise TypeError("not a table of entries")
        copied = json.loads(json.dumps(dict(table), default=_of_numpy, allow_nan=False))
    except (TypeError, ValueError, RecursionError, AttributeError) as error:
        raise ModelError(f"{where}: not what nnU-Net writes ({error}). Copy the file again.") from None
    return dict(copied)


def _of_numpy(value: Any) -> Any:
    return value.tolist()  # of NumPy; anything else has no such method


def require_usable(
    plans: Mapping[str, Any], configuration: str, dataset_json: Mapping[str, Any], where: str, *, encoder: bool = False
) -> None:
    """Refuse plans or a description that this program or nnU-Net could not use, or should not.

    Args:
        plans: nnU-Net plans.
        configuration: Name of the one that counts.
        dataset_json: nnU-Net's description of the data set.
        where: The file, for the messages.
        encoder: The model is an encoder: it has no labels.

    Raises:
        ModelError: One line that names what.
        ConfigError: A patch that the network cannot take.
    """
    try:
        if not re.fullmatch(CONFIGURATION_NAME, configuration, flags=re.ASCII):
            raise ModelError(f"{where}: configuration {configuration!r}: no folder could have that name. Rename it.")
        for entry in plans["configurations"].values():  # all: one may inherit from another
            require_known_imports(entry, Path(where))
        axes_of_plans(plans)
        if configuration not in plans["configurations"]:
            named = ", ".join(plans["configurations"])
            raise ModelError(f"{where}: it has no configuration {configuration}. It has {named}: use --configuration.")
        with nnunet_environment():
            settings = resolve_configuration(plans, configuration)
            require_known_imports(settings, Path(where))
            _require_own_parts(plans, settings, where)
        _require_patch(settings, where)
        _require_numbers(plans, settings, _channels(dataset_json, where), where)
    except MALFORMED as error:
        if isinstance(error, LnSegFmError):
            raise
        reason = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ModelError(f"{where}: not nnU-Net plans ({reason}). Copy the file again.") from None
    _require_labels(dataset_json, where, encoder)


def _require_patch(settings: Mapping[str, Any], where: str) -> None:
    sizes = settings["patch_size"]
    if len(sizes) not in (2, 3) or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise ValueError(f"patch_size {settings['patch_size']} is none")
    try:
        require_divisible(settings)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error} Say so with --patch-size.") from None


def _require_numbers(plans: Mapping[str, Any], settings: Mapping[str, Any], channels: int, where: str) -> None:
    """Spacing, axes and intensities as prediction will use them."""
    if len(settings["spacing"]) != len(settings["patch_size"]) or not all(_positive(v) for v in settings["spacing"]):
        raise ValueError(f"spacing {settings['spacing']} is none")
    there, back = plans["transpose_forward"], plans["transpose_backward"]
    if sorted(there) != [0, 1, 2] or [there[axis] for axis in back] != [0, 1, 2]:
        raise ValueError(f"transpose_forward {there} and transpose_backward {back} are not each other's inverse")
    schemes, masks = settings["normalization_schemes"], settings["use_mask_for_norm"]
    if len(schemes) != channels or len(masks) != channels or not all(isinstance(mask, bool) for mask in masks):
        raise ModelError(
            f"{where}: its plans are for {len(schemes)} channels, but dataset.json names {channels}. "
            "Give the dataset.json that belongs to it, or --channel for each."
        )
    known = plans.get("foreground_intensity_properties_per_channel")
    known = plans["foreground_intensity_properties_by_modality"] if known is None else known
    for channel, scheme in enumerate(schemes):
        statistics = dict(known[str(channel)])
        if scheme == "CTNormalization" and not all(_number(statistics[name]) for name in STATISTICS):
            raise ValueError(f"its intensities of channel {channel} are no numbers")


def _channels(dataset_json: Mapping[str, Any], where: str) -> int:
    names = dataset_json.get("channel_names") or dataset_json.get("modality")
    if names is None or not numbers_every_channel(names):
        raise ModelError(
            f'{where}: its dataset.json names no channels. Write {{"channel_names": {{"0": "CT"}}}} into it.'
        )
    for name in names.values():
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise ModelError(f"{where}: channel name {name!r} is none. Use words like CT.")
    return len(names)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _require_own_parts(plans: Mapping[str, Any], settings: Mapping[str, Any], where: str) -> None:
    """What plans name without an import path, nnU-Net takes from its modules, and these hold more than their own."""
    kinds: list[tuple[Any, str, str | None]] = [
        (plans["image_reader_writer"], "imageio", "reader"),
        (plans.get("label_manager", "LabelManager"), "utilities.label_handling", "label manager"),
        (settings["preprocessor_name"], "preprocessing", "preprocessor"),
    ]
    kinds += [(name, "preprocessing.normalization", "normalization") for name in settings["normalization_schemes"]]
    functions = ("resampling_fn_data", "resampling_fn_seg", "resampling_fn_probabilities")
    kinds += [(settings[name], "preprocessing.resampling", None) for name in functions]
    for name, package, base in kinds:
        if not is_own_part(str(name), package, base):
            raise ModelError(f"{where}: it names {name}, which is none of nnU-Net's own. Use plans that nnU-Net made.")


def _require_labels(dataset_json: Mapping[str, Any], where: str, encoder: bool) -> None:
    try:
        file_ending(dataset_json)
    except DataError as error:
        raise ModelError(f"{where}: its dataset.json: {error}") from None
    if encoder:
        return
    try:
        LabelMap.of_masks(dataset_json)
    except DataError as error:
        raise ModelError(f"{where}: {error}") from None


def synthesise_dataset_json(channels: tuple[str, ...], labels: LabelMap | None) -> dict[str, Any]:
    """A ``dataset.json`` for weights that come without; an encoder has no labels."""
    return dataset_description(channels, labels, training_cases=0)
