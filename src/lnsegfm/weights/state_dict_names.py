"""State dicts in files, and the plain names of their tensors, without the prefixes of training frameworks."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from lnsegfm.errors import ModelError

CONTAINERS = ("network_weights", "state_dict", "model_state_dict", "model", "network", "net")
WRAPPERS = ("module", "network", "net", "model")
BACKBONE = "backbone"
"""What frameworks call the network within a larger module, which has other parts."""
COMPILED = "_orig_mod"
TRANSFORMER = "swinViT."
HEAD = "out.conv.conv.weight"
OUTPUTS = (
    r"(decoder\.seg_layers|seg_outputs)\.\d+\.weight|out_tr\.final_conv\.weight|conv_final\.2\.conv\.weight"
    r"|output_block\.conv\.conv\.weight|up_layers\.\d+\.head\.weight"
)
"""Names of layers whose output channels are the labels, in U-Nets."""
VERSION_1 = "conv_blocks_context.0.blocks."
"""What some names of the tensors of nnU-Net version 1 begin with."""
DEPTH = 3
"""Tables in tables in which a state dict is looked for; a pickle may hold a table within itself."""


def state_dict_in(content: Any, depth: int = DEPTH, *, backbone: bool = True) -> Mapping[str, Tensor] | None:
    """The state dict that a file's content is or holds, with the names that a plain network gives its tensors.

    Args:
        content: What a file holds.
        depth: Tables in tables that are looked into.
        backbone: Take ``backbone.`` off, too (`plain_names`).

    Raises:
        ModelError: Two tensors would have one name.
    """
    if not isinstance(content, Mapping) or not content:
        return None
    if all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()):
        return plain_names(content, backbone=backbone)
    inner = (content.get(name) for name in CONTAINERS) if depth else ()
    found = (state_dict_in(table, depth - 1, backbone=backbone) for table in inner)
    return next((weights for weights in found if weights is not None), None)


def plain_names(weights: Mapping[str, Tensor], *, backbone: bool = True) -> dict[str, Tensor]:
    """Names without what ``DataParallel``, ``torch.compile`` and training frameworks put before them, in any order.

    A prefix is taken off where every name has it; ``backbone.`` also where some have it, because what is next to a
    backbone belongs to its training. Older names of SwinUNETR's layers become those of today.

    Args:
        weights: The state dict.
        backbone: Take ``backbone.`` off, too.

    Raises:
        ModelError: Two tensors would have one name.
    """
    plain = {name: ".".join(part for part in name.split(".") if part != COMPILED) for name in weights}
    while (prefix := _prefix(plain.values(), backbone)) is not None:
        plain = {name: short.removeprefix(prefix) for name, short in plain.items()}
    if any(short.startswith((TRANSFORMER, "layers1.")) for short in plain.values()):
        plain = {name: _of_today(short) for name, short in plain.items()}
    if len(set(plain.values())) < len(plain) or "" in plain.values():
        raise ModelError("Weights: two tensors have one name once `module.` and `_orig_mod.` are gone. Save them anew.")
    return {plain[name]: tensor for name, tensor in weights.items()}


def _prefix(names: Collection[str], backbone: bool) -> str | None:
    """What is to be taken off next: a wrapper of all names, or a backbone of some; None where they are plain."""
    for wrapper in WRAPPERS:
        if all(name.startswith(f"{wrapper}.") for name in names):
            return f"{wrapper}."
    return f"{BACKBONE}." if backbone and any(name.startswith(f"{BACKBONE}.") for name in names) else None


def is_swin(weights: Mapping[str, Tensor], *, whole: bool = True) -> bool:
    """Whether they are those of a SwinUNETR: of a whole one, or of its transformer at least."""
    there = f"{TRANSFORMER}patch_embed.proj.weight" in weights
    return there and (not whole or any(name.startswith("decoder1.") for name in weights))


def is_seg_res_net(weights: Mapping[str, Any]) -> bool:
    """Whether names of tensors are those of MONAI's SegResNet."""
    return "convInit.conv.weight" in weights and "down_layers.0.1.norm1.weight" in weights


def outputs(weights: Mapping[str, Tensor]) -> int | None:
    """Output channels of a network's weights, background included; None where the names do not tell."""
    heads = [
        tensor
        for name, tensor in weights.items()
        if re.fullmatch(rf"{OUTPUTS}|{re.escape(HEAD)}", name) and tensor.ndim
    ]
    return int(heads[-1].shape[0]) if heads else None


def _of_today(name: str) -> str:
    name = re.sub(r"\.mlp\.fc([12])\.", r".mlp.linear\1.", name)
    return re.sub(r"^out\.conv\.(weight|bias)$", r"out.conv.conv.\1", name)
