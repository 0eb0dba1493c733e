"""MONAI's DynUNet with the interface that nnU-Net expects of a network. The names of the weights are MONAI's own.

Isensee et al., https://arxiv.org/abs/1809.10486; Futrega et al., https://arxiv.org/abs/2110.03352.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from monai.networks.nets.dynunet import DynUNet as MonaiDynUNet
from torch import Tensor

from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.networks.deep_supervision import DeepSupervisionSwitch

FIRST = "input_block.conv1.conv.weight"
NO_STRIDE = (1, 1, 1)


class DynUNet(MonaiDynUNet):
    """DynUNet for volumes, built from nnU-Net plans.

    MONAI's class stacks what its deep supervision heads give, enlarged to the size of the output; this one gives each
    at its own resolution, as nnU-Net's loss takes them.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the output, background included.
        filters: Channels of each stage.
        kernel_size: Extents of each stage's kernels.
        strides: Of each stage; the first is 1, and enlarging has those of the others.
        outputs: Outputs under deep supervision, the highest resolution included; at most the stages less one.
        deep_supervision: Give all outputs, the highest resolution first; one that has a single output gives that.
        settings: Further arguments of MONAI's class.

    Raises:
        ConfigError: MONAI's class refuses an argument, or the first stride is not 1.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        filters: Sequence[int],
        kernel_size: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        outputs: int = 1,
        deep_supervision: bool = False,
        **settings: Any,
    ) -> None:
        if tuple(strides[0]) != NO_STRIDE:
            raise ConfigError(f"DynUNet: first stride {strides[0]}: its masks would be smaller than scans. Use 1 1 1.")
        try:
            super().__init__(
                spatial_dims=3,
                in_channels=input_channels,
                out_channels=num_classes,
                filters=list(filters),
                kernel_size=[tuple(extents) for extents in kernel_size],
                strides=[tuple(steps) for steps in strides],
                upsample_kernel_size=[tuple(steps) for steps in strides[1:]],
                deep_supervision=outputs > 1,
                deep_supr_num=max(outputs - 1, 1),
                **settings,
            )
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"DynUNet: {error} Check arch_kwargs in the plans.") from None
        self.decoder = DeepSupervisionSwitch(deep_supervision)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """From an input (B, input_channels, z, y, x) to logits (B, num_classes, z, y, x), or to those of each scale."""
        skips = []
        for block in (self.input_block, *self.downsamples):
            x = block(x)
            skips.append(x)
        x = self.bottleneck(x)
        features = []
        for block, skip in zip(self.upsamples, reversed(skips), strict=True):
            x = block(x, skip)
            features.append(x)
        logits: Tensor = self.output_block(x)
        if not (self.decoder.deep_supervision and hasattr(self, "deep_supervision_heads")):
            return logits
        lower = zip(self.deep_supervision_heads, features[-2::-1], strict=False)
        return [logits, *(head(each) for head, each in lower)]


def arguments_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the arguments of a `DynUNet` from its weights, less the number of its classes.

    A stage's stride is the extent of the transposed convolution that undoes it. Its activation, the first stride and
    whether a norm without running statistics is of instances or groups leave no mark: MONAI's defaults are taken.

    Args:
        weights: State dict with MONAI's names.

    Returns:
        ``input_channels``, ``filters``, ``kernel_size``, ``strides``, ``outputs``, ``res_block``, ``trans_bias`` and
        ``norm_name``.

    Raises:
        ModelError: They are not complete, or of a network for images.
    """
    if weights[FIRST].ndim != 5:
        raise ModelError("DynUNet: these weights are for 2D images. Use those of a 3D model.")
    numbers = {int(match[1]) for name in weights if (match := re.match(r"downsamples\.(\d+)\.", name))}
    blocks = ["input_block", *(f"downsamples.{n}" for n in range(len(numbers))), "bottleneck"]
    try:
        kernels = [weights[f"{block}.conv1.conv.weight"] for block in blocks]
        enlarging = [weights[f"upsamples.{n}.transp_conv.conv.weight"] for n in reversed(range(len(blocks) - 1))]
    except KeyError as error:
        raise ModelError(f"DynUNet: its weights are not complete ({error} is missing). Copy the file again.") from None
    heads = {match[1] for name in weights if (match := re.match(r"deep_supervision_heads\.(\d+)\.", name))}
    return {
        "input_channels": int(kernels[0].shape[1]),
        "filters": [int(kernel.shape[0]) for kernel in kernels],
        "kernel_size": [[int(n) for n in kernel.shape[2:]] for kernel in kernels],
        "strides": [list(NO_STRIDE), *([int(n) for n in kernel.shape[2:]] for kernel in enlarging)],
        "outputs": 1 + len(heads),
        "res_block": any(".conv3." in name for name in weights),
        "trans_bias": "upsamples.0.transp_conv.conv.bias" in weights,
        "norm_name": norm_of(weights, "input_block.norm1"),
    }


def norm_of(weights: Mapping[str, Tensor], layer: str) -> list[Any]:
    """The norm that a layer's tensors are of, as MONAI's factory takes it.

    Args:
        weights: The state dict.
        layer: Name of the layer.
    """
    if f"{layer}.running_mean" in weights:
        return ["BATCH", {}]
    return ["INSTANCE", {"affine": f"{layer}.weight" in weights}]
