"""MONAI's SwinUNETR with the interface that nnU-Net expects of a network.

nnU-Net builds a network as ``cls(input_channels=..., num_classes=..., deep_supervision=..., **arch_kwargs)`` from the
import path in its plans, and switches deep supervision by ``network.decoder.deep_supervision``. The names of the
weights are MONAI's own, so MONAI loads them and its weights load here.

Hatamizadeh et al., https://arxiv.org/abs/2201.01266; version 2: He et al., MICCAI 2023,
https://doi.org/10.1007/978-3-031-43901-8_40.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from monai.networks.nets.swin_unetr import SwinUNETR as MonaiSwinUNETR
from torch import Tensor

from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.networks.deep_supervision import DeepSupervisionSwitch


class SwinUNETR(MonaiSwinUNETR):
    """SwinUNETR for volumes, built from nnU-Net plans.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the output, background included.
        feature_size: Channels of the first stage; a multiple of 12.
        depths: Transformer blocks of the four stages.
        num_heads: Attention heads of the four stages.
        window_size: Edge of the attention windows, in tokens.
        use_v2: A residual convolution block before each stage (SwinUNETR-V2).
        use_checkpoint: Compute activations of the transformer again in the backward pass instead of keeping them.
        deep_supervision: Accepted because nnU-Net passes it; without effect.
        strides: Accepted and without effect: halvings of each stage, which nnU-Net's planning of loss and augmentation
            and the check of patch sizes read from the plans.
        settings: Further arguments of MONAI's class.

    Raises:
        ConfigError: MONAI's class refuses an argument.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        feature_size: int = 48,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int | Sequence[int] = 7,
        use_v2: bool = False,
        use_checkpoint: bool = False,
        deep_supervision: bool = False,
        strides: Sequence[Sequence[int]] | None = None,  # noqa: ARG002
        **settings: Any,
    ) -> None:
        try:
            super().__init__(
                in_channels=input_channels,
                out_channels=num_classes,
                feature_size=feature_size,
                depths=tuple(depths),
                num_heads=tuple(num_heads),
                window_size=window_size if isinstance(window_size, int) else tuple(window_size),
                use_v2=use_v2,
                use_checkpoint=use_checkpoint,
                spatial_dims=3,
                **settings,
            )
        except (TypeError, ValueError) as error:
            raise ConfigError(f"SwinUNETR: {error} Check arch_kwargs in the plans.") from None
        self.decoder = DeepSupervisionSwitch(deep_supervision)


def arguments_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the arguments of a SwinUNETR from its weights.

    Names and shapes show all but ``use_checkpoint`` and the kind of patch merging (MONAI's default ``merging`` is
    assumed).

    Args:
        weights: State dict with MONAI's names.

    Returns:
        ``input_channels``, ``num_classes`` and the arguments of `SwinUNETR` that differ from its defaults or matter.

    Raises:
        ModelError: They are not those of a SwinUNETR for volumes with cubic windows.
    """
    try:
        embedding = weights["swinViT.patch_embed.proj.weight"]
        if embedding.ndim != 5:
            raise ModelError("SwinUNETR: these weights are for 2D images. Use those of a 3D model.")
        feature_size, channels = embedding.shape[:2]
        depths, heads = [], []
        for stage in range(1, 5):
            pattern = re.compile(rf"swinViT\.layers{stage}\.0\.blocks\.(\d+)\.")
            depths.append(1 + max(int(match[1]) for name in weights if (match := pattern.match(name))))
            heads.append(weights[_table(stage)].shape[1])
        mlp = weights["swinViT.layers1.0.blocks.0.mlp.linear1.weight"].shape[0] / feature_size
        return {
            "input_channels": channels,
            "num_classes": weights["out.conv.conv.weight"].shape[0],
            "feature_size": feature_size,
            "depths": depths,
            "num_heads": heads,
            "window_size": _window(weights[_table(1)].shape[0]),
            "use_v2": any(name.startswith("swinViT.layers1c.") for name in weights),
        } | {
            name: value
            for name, value, default in (
                ("patch_size", embedding.shape[2], 2),
                ("mlp_ratio", mlp, 4.0),
                ("qkv_bias", "swinViT.layers1.0.blocks.0.attn.qkv.bias" in weights, True),
                ("patch_norm", "swinViT.patch_embed.norm.weight" in weights, False),
            )
            if value != default
        }
    except (KeyError, ValueError, IndexError) as error:
        raise ModelError(
            f"SwinUNETR: its weights are not complete ({error} is missing). Copy the file again."
        ) from None


def _table(stage: int) -> str:
    return f"swinViT.layers{stage}.0.blocks.0.attn.relative_position_bias_table"


def _window(rows: int) -> int:
    edge = round(rows ** (1 / 3))
    if edge**3 != rows or edge % 2 == 0:
        raise ModelError(f"SwinUNETR: position tables of {rows} rows are of windows that are no cubes. Give --plans.")
    return (edge + 1) // 2
