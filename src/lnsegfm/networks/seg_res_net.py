"""MONAI's SegResNet with the interface that nnU-Net expects of a network. The names of the weights are MONAI's own.

Myronenko, BrainLes 2018, https://arxiv.org/abs/1810.11654, without its autoencoder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from monai.networks.nets.segresnet import SegResNet as MonaiSegResNet
from torch import Tensor

from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.networks.deep_supervision import DeepSupervisionSwitch


class SegResNet(MonaiSegResNet):
    """SegResNet for volumes, built from nnU-Net plans.

    Args:
        input_channels: Channels of the image.
        num_classes: Channels of the output, background included.
        init_filters: Channels of the highest resolution; a multiple of its norm's 8 groups.
        blocks_down: Residual blocks of each resolution of the encoder.
        blocks_up: Residual blocks of each resolution of the decoder; one resolution less.
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
        init_filters: int = 16,
        blocks_down: Sequence[int] = (1, 2, 2, 4),
        blocks_up: Sequence[int] = (1, 1, 1),
        deep_supervision: bool = False,
        strides: Sequence[Sequence[int]] | None = None,  # noqa: ARG002
        **settings: Any,
    ) -> None:
        try:
            super().__init__(
                spatial_dims=3,
                in_channels=input_channels,
                out_channels=num_classes,
                init_filters=init_filters,
                blocks_down=tuple(blocks_down),
                blocks_up=tuple(blocks_up),
                **settings,
            )
        except (TypeError, ValueError) as error:
            raise ConfigError(f"SegResNet: {error} Check arch_kwargs in the plans.") from None
        self.decoder = DeepSupervisionSwitch(deep_supervision)


def arguments_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the arguments of a `SegResNet` from its weights, less the number of its outputs.

    The norm is taken as MONAI's default, in 8 groups, which leaves no mark.

    Args:
        weights: State dict with MONAI's names.

    Returns:
        ``input_channels``, ``init_filters``, ``blocks_down``, ``blocks_up`` and ``strides``.

    Raises:
        ModelError: They are not complete, or of a network for images.
    """
    first = weights["convInit.conv.weight"]
    if first.ndim != 5:
        raise ModelError("SegResNet: these weights are for 2D images. Use those of a 3D model.")
    down, up = (_blocks(weights, part) for part in ("down_layers", "up_layers"))
    if len(down) != len(up) + 1 or not all((*down, *up)):
        raise ModelError("SegResNet: its weights are not complete (blocks are missing). Copy the file again.")
    return {
        "input_channels": int(first.shape[1]),
        "init_filters": int(first.shape[0]),
        "blocks_down": down,
        "blocks_up": up,
        "strides": [[1, 1, 1], *[[2, 2, 2]] * len(up)],
    }


def _blocks(weights: Mapping[str, Tensor], part: str) -> list[int]:
    places = [re.match(rf"{part}\.(\d+)\.(\d+)\.norm1\.weight$", name) for name in weights]
    found = {(int(place[1]), int(place[2])) for place in places if place is not None}
    stages = len({stage for stage, _ in found})
    return [sum(stage == each for each, _ in found) for stage in range(stages)]
