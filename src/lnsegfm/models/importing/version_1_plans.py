"""Plans of nnU-Net version 1, as JSON, become plans of version 2.

Version 1 keeps them in a pickle, which is a program and is not opened here; `docs/models.md` has the lines that write
them as JSON on a machine where the pickle is trusted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lnsegfm.errors import ConfigError, LnSegFmError, ModelError
from lnsegfm.models.importing.synthesise_plans import synthesise_plans
from lnsegfm.models.importing.validate_plans import MALFORMED
from lnsegfm.models.plans import CONFIGURATION

STAGES = "plans_per_stage"
SCHEMES = {"CT": "CTNormalization", "nonCT": "ZScoreNormalization", "noNorm": "NoNormalization"}
STATISTICS = {"mean": "mean", "sd": "std", "mn": "min", "mx": "max", "median": "median"}
HOW = "docs/models.md, nnU-Net version 1, has the lines that write them as JSON"


def is_version_1_plans(table: Any) -> bool:
    """Whether a table is plans of version 1."""
    return isinstance(table, Mapping) and STAGES in table


def channels_of(plans: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the channels that plans of version 1 state, by their numbers; empty where they state none."""
    table = plans.get("modalities")
    if not isinstance(table, Mapping) or not all(str(key).isdecimal() for key in table):
        return ()
    return tuple(str(table[key]) for key in sorted(table, key=int))


def finest_strides(plans: Mapping[str, Any]) -> list[list[int]]:
    """Strides of the pools in the last stage of plans of version 1.

    Raises:
        ModelError: They state none.
    """
    try:
        stages = plans[STAGES]
        return [[int(n) for n in each] for each in stages[max(stages, key=int)]["pool_op_kernel_sizes"]]
    except MALFORMED as error:
        raise ModelError(f"its plans are not those of nnU-Net version 1 ({error!r}). {HOW}") from None


def converted_plans(
    plans: Mapping[str, Any],
    architecture: Mapping[str, Any],
    strides: Sequence[Sequence[int]],
    channels: Sequence[str],
    configuration: str | None,
    file: Path,
) -> tuple[dict[str, Any], str]:
    """Plans of version 2 with one configuration, and its name.

    Args:
        plans: Of version 1, read from JSON.
        architecture: The plans' entry of the network.
        strides: Those that the weights tell, below the first stage; empty where they tell none.
        channels: Names of the channels.
        configuration: ``2d``, ``3d_lowres`` or ``3d_fullres``; None takes the stage whose strides are the weights'.
        file: Of the plans, for the messages.

    Raises:
        ModelError: They are not version 1's, or not those of the weights.
        ConfigError: They have several stages that could be meant.
    """
    try:
        name, stage = _stage(plans[STAGES], strides, configuration, file)
        return _of_version_2(plans, stage, name, architecture, channels, file), name
    except MALFORMED as error:
        if isinstance(error, LnSegFmError):
            raise
        reason = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ModelError(f"{file}: not the plans of nnU-Net version 1 ({reason}). {HOW}.") from None


def _stage(
    stages: Mapping[str, Any], strides: Sequence[Sequence[int]], configuration: str | None, file: Path
) -> tuple[str, Mapping[str, Any]]:
    """The stage of the plans that is meant, under the name that version 2 would have for it."""
    numbers = sorted(stages, key=int)
    if len(stages[numbers[0]]["patch_size"]) == 2:
        named = {"2d": stages[numbers[0]]}
    elif len(numbers) == 1:
        named = {CONFIGURATION: stages[numbers[0]]}
    else:
        named = {"3d_lowres": stages[numbers[0]], CONFIGURATION: stages[numbers[-1]]}
    if configuration is not None and configuration not in named:
        raise ConfigError(f"--configuration {configuration}: {file} has {', '.join(named)}. Choose one of these.")
    fitting = {
        name: stage
        for name, stage in named.items()
        if configuration in (None, name)
        and (
            not strides or [list(map(int, each)) for each in stage["pool_op_kernel_sizes"]] == list(map(list, strides))
        )
    }
    if not fitting:
        raise ModelError(f"{file}: its strides are not those of the weights. Give the plans that the model came with.")
    if len(fitting) > 1:
        raise ConfigError(f"{file}: it has the stages {', '.join(fitting)}. Choose with --configuration.")
    return next(iter(fitting.items()))


def _of_version_2(
    plans: Mapping[str, Any],
    stage: Mapping[str, Any],
    name: str,
    architecture: Mapping[str, Any],
    channels: Sequence[str],
    file: Path,
) -> dict[str, Any]:
    axes = [int(axis) for axis in plans["transpose_forward"]]
    patch, spacing = [int(n) for n in stage["patch_size"]], [float(v) for v in stage["current_spacing"]]
    planar = len(patch) == 2
    if sorted(axes) != [0, 1, 2] or len(spacing) != 3 or not all(value > 0 for value in (*spacing, *patch)):
        raise ValueError(f"axes {axes}, spacing {spacing} and patch {patch} cannot be")
    schemes = _by_channel(plans["normalization_schemes"], channels)
    converted = synthesise_plans(
        "Dataset001_nnUNetVersion1",
        architecture,
        spacing_mm=_turned_back(spacing, axes),
        patch_size=_turned_back([1, *patch] if planar else patch, axes),
        channels=channels,
        schemes=[_scheme(str(scheme), file) for scheme in schemes],
        axes=axes,
    )
    configuration = converted["configurations"].pop(CONFIGURATION)
    if planar:
        configuration |= {"patch_size": patch, "spacing": spacing[1:]}
        configuration["median_image_size_in_voxels"] = configuration["median_image_size_in_voxels"][1:]
    masks = plans.get("use_mask_for_norm") or dict.fromkeys(range(len(channels)), False)
    configuration["use_mask_for_norm"] = [bool(mask) for mask in _by_channel(masks, channels)]
    configuration["batch_size"] = int(stage.get("batch_size", configuration["batch_size"]))
    converted["configurations"][name] = configuration
    known = plans.get("intensityproperties") or (plans.get("dataset_properties") or {}).get("intensityproperties")
    for number, scheme in enumerate(schemes):
        if scheme == "CT":
            converted["foreground_intensity_properties_per_channel"][str(number)] = _statistics(known, number)
    return converted


def _statistics(known: Any, channel: int) -> dict[str, float]:
    stated = _by_channel(known, range(channel + 1))[channel]
    found = {ours: float(stated[theirs]) for theirs, ours in STATISTICS.items() if stated.get(theirs) is not None}
    found |= {key: float(stated[key]) for key in ("percentile_00_5", "percentile_99_5")}
    return {"mean": found["mean"], "std": found["std"], **found}


def _by_channel(table: Any, channels: Sequence[Any]) -> list[Any]:
    """The entries of a table by channel: JSON has text for numbers."""
    plain = {int(key): value for key, value in dict(table).items()}
    return [plain[number] for number in range(len(channels))]


def _scheme(name: str, file: Path) -> str:
    if name not in SCHEMES:
        raise ModelError(
            f"{file}: its normalisation {name} is none that nnU-Net 2 has. Train the model with nnU-Net 2."
        )
    return SCHEMES[name]


def _turned_back(values: Sequence[Any], axes: Sequence[int]) -> tuple[Any, Any, Any]:
    """What plans say in their own order of axes, as (z, y, x)."""
    z, y, x = (values[axes.index(axis)] for axis in range(3))
    return z, y, x
