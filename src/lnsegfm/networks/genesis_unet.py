"""The 3D U-Net of Models Genesis, which SuPreM and the CLIP-driven universal model take as a backbone.

Four resolutions, two convolutions at each, halved by the largest of eight voxels and doubled by transposed
convolutions. Its batch norm always takes the statistics of what it sees, in prediction too; the releases predict one
tile at a time, which is the norm of each tile by itself. That is what is computed here, in training as well, so that
a result does not depend on how many tiles are computed at once. The running statistics in its files are kept and not
used.

Zhou et al., Medical Image Analysis 2021, https://arxiv.org/abs/2004.07882; Li et al., ICLR 2024 (SuPreM),
https://github.com/MrGiovanni/SuPreM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from lnsegfm.errors import ModelError
from lnsegfm.networks.deep_supervision import DeepSupervisionSwitch

DOWN = ("down_tr64", "down_tr128", "down_tr256", "down_tr512")
UP = ("up_tr256", "up_tr128", "up_tr64")
HEAD = "out_tr"
STRIDES = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))


class TileNorm(_NormBase):
    """Norm of each sample by its own statistics, with the tensors of a batch norm under their names."""

    def __init__(self, features: int) -> None:
        super().__init__(features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=False)
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, features, z, y, x)."""
        return nn.functional.instance_norm(x, None, None, self.weight, self.bias, use_input_stats=True, eps=self.eps)


class ConvNormReLU(nn.Module):
    """A convolution of 3x3x3, its norm and ReLU.

    Args:
        channels: Of the input.
        features: Of the output.
    """

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, features, 3, padding=1)
        self.bn1 = TileNorm(features)

    def forward(self, x: Tensor) -> Tensor:
        """From (B, channels, z, y, x) to (B, features, z, y, x)."""
        return nn.functional.relu(self.bn1(self.conv1(x)), inplace=True)


class Descent(nn.Module):
    """One resolution of the encoder.

    Args:
        channels: Of the input.
        features: Of the output; the first convolution has half of them.
    """

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.ops = nn.Sequential(ConvNormReLU(channels, features // 2), ConvNormReLU(features // 2, features))

    def forward(self, x: Tensor) -> Tensor:
        """From (B, channels, z, y, x) to (B, features, z, y, x)."""
        y: Tensor = self.ops(x)
        return y


class Ascent(nn.Module):
    """One resolution of the decoder.

    Args:
        channels: Of what comes from below.
        features: Of the output, and of what comes from the encoder.
    """

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.up_conv = nn.ConvTranspose3d(channels, channels, 2, stride=2)
        self.ops = nn.Sequential(ConvNormReLU(channels + features, features), ConvNormReLU(features, features))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """From (B, channels, z, y, x) and (B, features, 2z, 2y, 2x) to (B, features, 2z, 2y, 2x)."""
        y: Tensor = self.ops(torch.cat((self.up_conv(x), skip), dim=1))
        return y


class OutputLayer(nn.Module):
    """The layer whose channels are the labels, under its name in the releases' files.

    Args:
        features: Of the input.
        num_classes: Of the output.
    """

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.final_conv = nn.Conv3d(features, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """From (B, features, z, y, x) to (B, num_classes, z, y, x)."""
        logits: Tensor = self.final_conv(x)
        return logits


class GenesisUNet(nn.Module):
    """The U-Net of Models Genesis and SuPreM, built from nnU-Net plans. The names of its weights are theirs.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the output, background included.
        features: Channels of the highest resolution, 64 in the releases; each lower one has twice as many.
        deep_supervision: Accepted because nnU-Net passes it; without effect.
        strides: Accepted and without effect: halvings of each stage, which nnU-Net's planning of loss and augmentation
            and the check of patch sizes read from the plans.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        features: int = 64,
        deep_supervision: bool = False,
        strides: Sequence[Sequence[int]] | None = None,  # noqa: ARG002
    ) -> None:
        super().__init__()
        widths = [features * 2**stage for stage in range(len(DOWN))]
        for name, channels, width in zip(DOWN, (input_channels, *widths), widths, strict=False):
            self.add_module(name, Descent(channels, width))
        for name, below, width in zip(UP, widths[:0:-1], widths[-2::-1], strict=True):
            self.add_module(name, Ascent(below, width))
        self.out_tr = OutputLayer(features, num_classes)
        self.decoder = DeepSupervisionSwitch(deep_supervision)

    def forward(self, x: Tensor) -> Tensor:
        """From an input (B, input_channels, z, y, x) to logits (B, num_classes, z, y, x); the sides in eights."""
        skips: list[Tensor] = []
        for name in DOWN:
            x = self.get_submodule(name)(nn.functional.max_pool3d(x, 2) if skips else x)
            skips.append(x)
        for name, skip in zip(UP, skips[-2::-1], strict=True):
            x = self.get_submodule(name)(x, skip)
        logits: Tensor = self.out_tr(x)
        return logits


def is_genesis_unet(weights: Mapping[str, Any]) -> bool:
    """Whether names of tensors are those of a U-Net of Models Genesis, with its output layer or without."""
    return f"{DOWN[0]}.ops.0.conv1.weight" in weights and f"{UP[-1]}.up_conv.weight" in weights


def arguments_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the arguments of a `GenesisUNet` from its weights, less the number of its outputs.

    Raises:
        ModelError: They are not complete, or of a network for images.
    """
    try:
        first = weights[f"{DOWN[0]}.ops.0.conv1.weight"]
        if first.ndim != 5:
            raise ModelError("U-Net of Models Genesis: these weights are for 2D images. Use those of a 3D model.")
        return {"input_channels": int(first.shape[1]), "features": 2 * int(first.shape[0])}
    except (KeyError, IndexError) as error:
        raise ModelError(
            f"U-Net of Models Genesis: its weights are not complete ({error} is missing). Copy the file again."
        ) from None
