"""The SwinUNETR that weights are of, put into plans that name another network or none."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lnsegfm.errors import LnSegFmError, ModelError
from lnsegfm.models.importing.validate_plans import MALFORMED
from lnsegfm.networks.architectures import SWIN, SWIN_HALVINGS
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.lookup import STOCK_TRAINER
from lnsegfm.nnunet.plan_configuration import resolve_configuration
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.weights.state_dict_names import HEAD, TRANSFORMER

EDGE = 2**SWIN_HALVINGS
DEFAULTS: dict[str, Any] = {
    "feature_size": 48,
    "depths": [2, 2, 2, 2],
    "num_heads": [3, 6, 12, 24],
    "window_size": 7,
    "use_v2": False,
    "patch_size": 2,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "patch_norm": False,
    "strides": [[1, 1, 1], *[[2, 2, 2]] * SWIN_HALVINGS],
}
"""Of the arguments that leave their mark in weights, and of the strides that plans name with them."""
UNMARKED = ("use_checkpoint", "downsample", "normalize", "drop_rate", "attn_drop_rate", "dropout_path_rate")
"""Arguments that leave none: the plans' word is taken for them."""


def with_swin_plans(fold: Checkpoint, where: Path) -> tuple[Checkpoint, list[str]]:
    """The fold with the SwinUNETR in its plans that its weights are of, where they name another network.

    Some trainers build their network in code and leave a U-Net in the plans.

    Args:
        fold: Weights of a SwinUNETR, or of its transformer.
        where: Its file, for the messages.

    Returns:
        The fold, and what was changed, one line each.

    Raises:
        ModelError: The weights are not complete, or the plans not nnU-Net's.
    """
    plans = copy.deepcopy(dict(fold.plans))
    try:
        with nnunet_environment():
            named = dict(resolve_configuration(plans, fold.configuration)["architecture"])
        is_one = named["network_class_name"] == SWIN
        architecture = swin_architecture(fold.weights, named["arch_kwargs"] if is_one else {})
        if is_one and _same(named["arch_kwargs"], architecture["arch_kwargs"]):
            return fold, []
        settings = plans["configurations"][fold.configuration]
        settings["architecture"] = architecture
        with nnunet_environment():
            patch = list(resolve_configuration(plans, fold.configuration)["patch_size"])
        settings["patch_size"] = nearest_patch(patch)
    except MALFORMED as error:
        if isinstance(error, LnSegFmError):
            raise ModelError(f"{where}: {error}") from None
        raise ModelError(f"{where}: not nnU-Net plans ({error!r}). Copy the file again.") from None
    if is_one:
        notes = ["Its plans' arguments of the SwinUNETR are not those of its weights: those of the weights count."]
    else:
        notes = ["Its plans name another network, but its weights are a SwinUNETR's: the plans now say so."]
    if patch != settings["patch_size"]:
        sizes = (" ".join(map(str, size)) for size in (patch, settings["patch_size"]))
        notes.append("A SwinUNETR takes multiples of {}: patch size {} became {}.".format(EDGE, *sizes))
    return replace(fold, plans=plans, trainer_name=STOCK_TRAINER), notes


def swin_architecture(weights: Mapping[str, Tensor], named: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The plans' entry of the SwinUNETR that weights are of.

    Args:
        weights: Its state dict, or its transformer's.
        named: Arguments of which those are taken that weights do not tell.

    Raises:
        ModelError: The weights are not complete, or of a network for images.
    """
    from lnsegfm.networks.swin_unetr import arguments_of

    embedding = weights[f"{TRANSFORMER}patch_embed.proj.weight"]
    found = arguments_of({HEAD: embedding, **weights})  # a transformer on its own has no head
    arguments = {key: value for key, value in (named or {}).items() if key in UNMARKED}
    arguments |= {key: value for key, value in found.items() if key not in ("input_channels", "num_classes")}
    arguments["strides"] = copy.deepcopy(DEFAULTS["strides"])
    return {"network_class_name": SWIN, "arch_kwargs": arguments, "_kw_requires_import": []}


def nearest_patch(patch_size: Sequence[int]) -> list[int]:
    """The patch nearest to one that a SwinUNETR takes."""
    nearest = [max(1, round(n / EDGE)) * EDGE for n in patch_size]
    if max(nearest) == EDGE:  # its deepest norm needs more than one voxel
        nearest[-1] *= 2
    return nearest


def _same(named: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether two tables of arguments make the same network, each completed by the defaults."""
    if not set(named) <= {*DEFAULTS, *UNMARKED}:
        return False
    one, other = ({key: table.get(key, value) for key, value in DEFAULTS.items()} for table in (named, found))
    edges = one["window_size"]
    if isinstance(edges, list) and len(edges) == 3 and edges == edges[:1] * 3:
        one["window_size"] = edges[0]
    return one == other
