"""STU-Net: a U-Net of residual blocks that is scaled in depth and width together.

Each stage is a row of residual blocks; the first of a stage has a stride and a 1x1x1 convolution beside it. Features
are enlarged by nearest neighbours and a 1x1x1 convolution, so that weights do not depend on the strides of a data set.
The names of the weights are those of the published models, which load here.

Huang et al., https://arxiv.org/abs/2304.06716.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.networks.deep_supervision import DeepSupervisionSwitch

CONTEXT = "conv_blocks_context"
Extents = Sequence[int]


class ResidualBlock(nn.Module):
    """Two convolutions with instance norm, the second added to the input before its activation.

    Args:
        channels: Of the input.
        features: Of the output.
        kernel: Extents of both kernels, (z, y, x).
        stride: Of the first convolution; None for a block that changes nothing but its features' values.
    """

    def __init__(self, channels: int, features: int, kernel: Extents, stride: Extents | None = None) -> None:
        super().__init__()
        extents, step = _z_y_x(kernel), _z_y_x(stride or (1, 1, 1))
        padding = _z_y_x([extent // 2 for extent in kernel])
        self.conv1 = nn.Conv3d(channels, features, extents, step, padding)
        self.norm1 = nn.InstanceNorm3d(features, affine=True)
        self.conv2 = nn.Conv3d(features, features, extents, 1, padding)
        self.norm2 = nn.InstanceNorm3d(features, affine=True)
        self.conv3 = nn.Conv3d(channels, features, 1, step) if stride is not None else nn.Identity()
        self.activation = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """From (B, channels, z, y, x) to (B, features, z, y, x), the latter in steps of the stride."""
        inner = self.activation(self.norm1(self.conv1(x)))
        summed: Tensor = self.activation(self.norm2(self.conv2(inner)) + self.conv3(x))
        return summed


class NearestUpsampling(nn.Module):
    """A 1x1x1 convolution, its output enlarged by nearest neighbours; in the other order the result is the same.

    Args:
        channels: Of the input.
        features: Of the output.
        stride: By how much it is enlarged, (z, y, x).
    """

    def __init__(self, channels: int, features: int, stride: Extents) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, features, 1)
        self.stride = tuple(float(factor) for factor in stride)

    def forward(self, x: Tensor) -> Tensor:
        """From (B, channels, z, y, x) to (B, features, z, y, x), the latter larger by the stride."""
        return nn.functional.interpolate(self.conv(x), scale_factor=self.stride, mode="nearest")


class STUNet(nn.Module):
    """STU-Net for volumes, built from nnU-Net plans.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the output, background included.
        features_per_stage: Channels of each stage, the highest resolution first.
        n_blocks_per_stage: Residual blocks of each stage; the decoder has as many at each resolution.
        strides: Of each stage, (z, y, x); the first is 1.
        kernel_sizes: Extents of each stage's kernels, (z, y, x).
        deep_supervision: Give outputs at every resolution of the decoder, the highest first.

    Raises:
        ConfigError: The lists are not of one length, or of fewer than two stages.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        features_per_stage: Sequence[int],
        n_blocks_per_stage: Sequence[int],
        strides: Sequence[Extents],
        kernel_sizes: Sequence[Extents],
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        stages = len(features_per_stage)
        if stages < 2 or {len(n_blocks_per_stage), len(strides), len(kernel_sizes)} != {stages}:
            raise ConfigError(
                f"STU-Net: features, blocks, strides and kernels of {stages}, {len(n_blocks_per_stage)}, "
                f"{len(strides)} and {len(kernel_sizes)} stages. Check arch_kwargs in the plans."
            )
        described = list(zip(features_per_stage, n_blocks_per_stage, kernel_sizes, strides, strict=True))
        context, channels = [], input_channels
        for features, blocks, kernel, stride in described:
            context.append(_stage(channels, features, blocks, kernel, stride))
            channels = features
        self.conv_blocks_context = nn.ModuleList(context)
        rising = list(pairwise(reversed(described)))  # the stage below, and that of the resolution reached
        self.upsample_layers = nn.ModuleList(
            NearestUpsampling(below[0], features, below[3]) for below, (features, _, _, _) in rising
        )
        self.conv_blocks_localization = nn.ModuleList(
            _stage(2 * features, features, blocks, kernel, (1, 1, 1)) for _, (features, blocks, kernel, _) in rising
        )
        self.seg_outputs = nn.ModuleList(nn.Conv3d(features, num_classes, 1) for _, (features, _, _, _) in rising)
        self.decoder = DeepSupervisionSwitch(deep_supervision)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """From an input (B, input_channels, z, y, x) to logits (B, num_classes, z, y, x), or to those of each scale."""
        skips = []
        for stage in self.conv_blocks_context:
            x = stage(x)
            skips.append(x)
        outputs = []
        layers = zip(self.upsample_layers, self.conv_blocks_localization, self.seg_outputs, skips[-2::-1], strict=True)
        for upsample, stage, head, skip in layers:
            x = stage(torch.cat((upsample(x), skip), dim=1))
            if self.decoder.deep_supervision or skip is skips[0]:
                outputs.append(head(x))
        return outputs[::-1] if self.decoder.deep_supervision else outputs[-1]


def _z_y_x(extents: Extents) -> tuple[int, int, int]:
    z, y, x = extents
    return int(z), int(y), int(x)


def _stage(channels: int, features: int, blocks: int, kernel: Extents, stride: Extents) -> nn.Sequential:
    rest = [ResidualBlock(features, features, kernel) for _ in range(blocks - 1)]
    return nn.Sequential(ResidualBlock(channels, features, kernel, stride), *rest)


def is_stu_net(weights: Mapping[str, Any]) -> bool:
    """Whether names of tensors are those of a STU-Net."""
    return f"{CONTEXT}.0.0.conv1.weight" in weights


def arguments_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the arguments of a STU-Net from its weights; strides leave no mark in them.

    Args:
        weights: Its state dict.

    Returns:
        ``input_channels``, ``num_classes``, ``features_per_stage``, ``n_blocks_per_stage`` and ``kernel_sizes``.

    Raises:
        ModelError: They are not complete, or of a network for images.
    """
    try:
        first = weights[f"{CONTEXT}.0.0.conv1.weight"]
        if first.ndim != 5:
            raise ModelError("STU-Net: these weights are for 2D images. Use those of a 3D model.")
        places = [re.match(rf"{CONTEXT}\.(\d+)\.(\d+)\.conv1\.weight$", name) for name in weights]
        blocks = {(int(place[1]), int(place[2])) for place in places if place is not None}
        stages = 1 + max(stage for stage, _ in blocks)
        kernels = [weights[f"{CONTEXT}.{stage}.0.conv1.weight"] for stage in range(stages)]
        return {
            "input_channels": int(first.shape[1]),
            "num_classes": int(weights[f"seg_outputs.{stages - 2}.weight"].shape[0]),
            "features_per_stage": [int(kernel.shape[0]) for kernel in kernels],
            "n_blocks_per_stage": [sum(stage == each for each, _ in blocks) for stage in range(stages)],
            "kernel_sizes": [[int(n) for n in kernel.shape[2:]] for kernel in kernels],
        }
    except (KeyError, ValueError, IndexError) as error:
        raise ModelError(f"STU-Net: its weights are not complete ({error} is missing). Copy the file again.") from None
