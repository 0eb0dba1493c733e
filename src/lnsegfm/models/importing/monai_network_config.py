"""What the config of a MONAI model says of its network, for what leaves no mark in weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lnsegfm.errors import ModelError
from lnsegfm.models.importing.monai_config import resolve, target_name, targets

NETWORKS = ("SegResNet", "SegResNetDS", "SwinUNETR", "DynUNet")
NO_MARK: Mapping[str, tuple[Any, ...]] = {
    "act": ("RELU", "relu", ["RELU", {"inplace": True}], ["relu", {"inplace": True}]),
    "norm": (["GROUP", {"num_groups": 8}], ["group", {"num_groups": 8}]),
    "num_groups": (8,),
    "upsample_mode": ("nontrainable",),
    "downsample": ("merging",),
    "norm_name": ("instance", "INSTANCE"),
    "normalize": (True,),
}
"""Arguments of SegResNet and SwinUNETR that leave no mark in the weights, with the values that are built here: MONAI's
defaults."""
TAKEN = {"DynUNet": {"norm_name": "norm_name", "act_name": "act_name"}, "SegResNetDS": {"norm": "norm", "act": "act"}}
"""Arguments that are taken from the config, by their names there and here."""
NORMS = ("INSTANCE", "BATCH", "GROUP")
ACTIVATIONS = ("RELU", "LEAKYRELU", "ELU", "GELU", "SWISH", "MISH")
FUSED = "INSTANCE_NVFUSER"
"""The instance norm of a library for GPUs, with the same weights and the same results."""
FIXED: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "DynUNet": {"strides": (1, [1, 1, 1])},
    "SegResNetDS": {"upsample_mode": ("deconv",), "preprocess": (None,)},
}
"""Further arguments with the only values that are built here; of a list per stage, that of the first."""


def network_of(config: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """Arguments of the network that its weights do not tell; None where the config describes none.

    Args:
        config: The config.
        path: What is imported, for the messages.

    Raises:
        ModelError: The network is one that is not built here, or is built with arguments that are not.
    """
    network = next(targets(config.get("network_def")), None) or next(targets(config.get("network")), None)
    if network is None:
        return None
    name = target_name(network)
    if name not in NETWORKS:
        raise ModelError(
            f"{path}: its config builds MONAI's {name}. Models with {', '.join(NETWORKS[:-1])} or {NETWORKS[-1]} are "
            "read; take one of those."
        )
    dimensions = resolve(config, network.get("spatial_dims", 3))
    if dimensions != 3 and dimensions is not None:
        raise ModelError(f"{path}: its config builds {name} for {dimensions}D images. Use a 3D model.")
    fixed = FIXED.get(name, NO_MARK)
    for key, built in fixed.items():
        value = _plain(config, network[key]) if key in network else built[0]
        value = value[0] if key == "strides" and isinstance(value, list) and value else value
        if value not in built:
            raise _not_built(path, name, key, value)
    taken = {}
    for key, here in TAKEN.get(name, {}).items():
        if key in network:
            taken[here] = _layer(path, name, key, _plain(config, network[key]))
    return taken


def _plain(config: Mapping[str, Any], value: Any) -> Any:
    """A value or what it refers to; an expression as it stands."""
    found = resolve(config, value)
    return value if found is None else found


def _layer(path: Path, name: str, key: str, value: Any) -> list[Any]:
    """A norm or activation as MONAI's factory takes it.

    Raises:
        ModelError: It is none that is built here.
    """
    kind, *rest = value if isinstance(value, list) and value else [value]
    settings = rest[0] if rest else {}
    known = NORMS if key.startswith("norm") else ACTIVATIONS
    upper = str(kind).upper()
    fused = upper == FUSED and known is NORMS
    if (upper not in known and not fused) or len(rest) > 1 or not isinstance(settings, dict):
        raise _not_built(path, name, key, value)
    if not all(isinstance(each, (bool, int, float)) for each in settings.values()):
        raise _not_built(path, name, key, value)
    if fused or (name == "SegResNetDS" and upper != "GROUP" and known is NORMS):
        settings = {"affine": True, **settings}  # as MONAI's classes complete them
    return ["INSTANCE" if fused else upper, dict(settings)]


def _not_built(path: Path, name: str, key: str, value: Any) -> ModelError:
    return ModelError(
        f"{path}: its config builds {name} with {key} {value!r}, which is not built here. "
        "Take a model with MONAI's default."
    )
