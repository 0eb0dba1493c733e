"""MONAI's SegResNetDS, the network of Auto3DSeg, with the interface that nnU-Net expects of a network.

The names of the weights are MONAI's own. Myronenko, https://arxiv.org/abs/1810.11654; with deep supervision and
kernels that follow the voxel spacing: Myronenko et al., https://arxiv.org/abs/2209.10648.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.nets.segresnet_ds import SegResNetDS as MonaiSegResNetDS
from monai.networks.nets.segresnet_ds import scales_for_resolution
from torch import Tensor, nn

from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.networks.deep_supervision import DeepSupervisionSwitch
from lnsegfm.networks.dyn_unet import norm_of

FIRST = "encoder.conv_init.weight"
SIGMOID = "sigmoid"


class SegResNetDS(MonaiSegResNetDS):
    """SegResNetDS for volumes, built from nnU-Net plans.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the output, background included.
        init_filters: Channels of the highest resolution.
        blocks_down: Residual blocks of each resolution of the encoder.
        blocks_up: Residual blocks of each resolution of the decoder; one resolution less.
        outputs: Outputs under deep supervision, the highest resolution included; at most the decoder's resolutions.
        resolution: Voxel spacing, whose proportions decide on kernels and strides; None for 3 and 2 throughout.
        intensities: ``sigmoid`` takes the image x as sigmoid(2x - 1), as Auto3DSeg does with CT; None as it is.
        deep_supervision: Give all outputs, the highest resolution first; one that has a single output gives that.
        strides: Accepted and without effect: strides of each stage, which nnU-Net's planning of loss and augmentation
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
        init_filters: int,
        blocks_down: Sequence[int],
        blocks_up: Sequence[int],
        outputs: int = 1,
        resolution: Sequence[float] | None = None,
        intensities: str | None = None,
        deep_supervision: bool = False,
        strides: Sequence[Sequence[int]] | None = None,  # noqa: ARG002
        **settings: Any,
    ) -> None:
        if intensities not in (None, SIGMOID):
            raise ConfigError(f"SegResNetDS: intensities {intensities!r}: not known. Use {SIGMOID}, or leave it out.")
        try:
            super().__init__(
                spatial_dims=3,
                in_channels=input_channels,
                out_channels=num_classes,
                init_filters=init_filters,
                blocks_down=tuple(blocks_down),
                blocks_up=tuple(blocks_up),
                dsdepth=outputs,
                resolution=None if resolution is None else tuple(resolution),
                preprocess=_squashed if intensities == SIGMOID else None,
                **settings,
            )
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"SegResNetDS: {error} Check arch_kwargs in the plans.") from None
        self.decoder = DeepSupervisionSwitch(deep_supervision)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """From an input (B, input_channels, z, y, x) to logits (B, num_classes, z, y, x), or to those of each scale."""
        if self.preprocess is not None:
            x = self.preprocess(x)
        x, *skips = reversed(self.encoder(x))
        several = self.decoder.deep_supervision and self.dsdepth > 1
        outputs: list[Tensor] = []
        for level, skip in zip(self.up_layers, skips, strict=True):
            x = level["blocks"](level["upsample"](x) + skip)
            if skip is skips[-1] or (several and not isinstance(level["head"], nn.Identity)):
                outputs.append(level["head"](x))
        return outputs[::-1] if several else outputs[-1]


def _squashed(x: Tensor) -> Tensor:
    return torch.sigmoid(2 * x - 1)


def arguments_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the arguments of a `SegResNetDS` from its weights, less the number of its classes.

    An axis along which a stage's kernels have an extent of 1 is not halved there. Its activation and whether a norm
    without running statistics is of instances or groups leave no mark: ReLU and instances are taken.

    Args:
        weights: State dict with MONAI's names.

    Returns:
        ``input_channels``, ``init_filters``, ``blocks_down``, ``blocks_up``, ``outputs``, ``resolution``, ``norm`` and
        ``strides``.

    Raises:
        ModelError: They are not complete, of a network for images, or enlarge otherwise than by transposed convolution.
    """
    first = weights[FIRST]
    if first.ndim != 5:
        raise ModelError("SegResNetDS: these weights are for 2D images. Use those of a 3D model.")
    down = _blocks(weights, r"encoder\.layers")
    up = _blocks(weights, "up_layers")
    if len(down) != len(up) + 1 or len(down) < 2 or not all((*down, *up)):
        raise ModelError("SegResNetDS: its weights are not complete (blocks are missing). Copy the file again.")
    if "up_layers.0.upsample.deconv.weight" not in weights:
        raise ModelError("SegResNetDS: it enlarges otherwise than by transposed convolution, which is not built here.")
    kernels = [weights[f"encoder.layers.{n}.blocks.0.conv1.weight"].shape[2:] for n in range(len(down))]
    scales = [[2 if extent > 1 else 1 for extent in kernel] for kernel in kernels]
    return {
        "input_channels": int(first.shape[1]),
        "init_filters": int(first.shape[0]),
        "blocks_down": down,
        "blocks_up": up,
        "outputs": sum(f"up_layers.{n}.head.weight" in weights for n in range(len(up))),
        "resolution": _resolution(scales),
        "norm": norm_of(weights, "encoder.layers.0.blocks.0.norm1"),
        "strides": [[1, 1, 1], *scales[:-1]],
    }


def _resolution(scales: Sequence[Sequence[int]]) -> list[float] | None:
    """A voxel spacing from which MONAI takes these scales; None where every axis is always halved."""
    if all(factor == 2 for scale in scales for factor in scale):
        return None
    first = next((n for n, scale in enumerate(scales) if min(scale) == 2), len(scales))
    resolution = [0.5 ** sum(scale[axis] - 1 for scale in scales[:first]) for axis in range(3)]
    if [list(scale) for scale in scales_for_resolution(resolution, len(scales))] != [list(scale) for scale in scales]:
        raise ModelError("SegResNetDS: its kernels are none that MONAI makes. Copy the file again.")
    return resolution


def _blocks(weights: Mapping[str, Tensor], part: str) -> list[int]:
    places = [re.match(rf"{part}\.(\d+)\.blocks\.(\d+)\.conv1\.weight$", name) for name in weights]
    found = {(int(place[1]), int(place[2])) for place in places if place is not None}
    return [sum(stage == each for each, _ in found) for stage in range(len({stage for stage, _ in found}))]
