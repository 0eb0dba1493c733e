"""The forward pass of tiles: in batches that memory holds, averaged over mirrored copies.

On a CPU torch 2.15 hands a convolution of a single small tile to a kernel of its own that takes two to three times as
long as oneDNN's, which it takes for two tiles at once (``use_mkldnn`` in its ``Convolution.cpp``). ``quick_forward``
takes oneDNN's always, so that one tile at a time, which fits the processor's cache best, is the fastest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own documentation calls it so
from torch import Tensor, nn

from lnsegfm.errors import ConfigError
from lnsegfm.networks.quick_layers import Functions, ReplacedFunctions, instance_norm
from lnsegfm.transforms.mirror_swap import MirrorSwap

PassObserver = Callable[[Tensor, Tensor], None]
"""Called with each batch of tiles: logits (tiles, C, z, y, x) of the plain pass, and averaged over mirrored copies."""


@dataclass
class TileForward:
    """A network that is evaluated on batches of tiles no larger than memory holds.

    Args:
        network: In evaluation, on ``device``.
        mirrored: Combinations of axes (0, 1, 2) to average over beside the plain pass.
        device: Where it runs.
        batch: Tiles at once; halved for good when CUDA's memory does not hold so many.
        difference: Give the logit of class 1 less that of class 0.
        watch: Called with every batch.
        swap: Outputs of left and right that a copy mirrored along their axis has exchanged; None where none do.
        relieve: Frees CUDA memory and returns whether it could; called before the batch is halved.
    """

    network: nn.Module
    mirrored: Sequence[tuple[int, ...]]
    device: torch.device
    batch: int
    difference: bool
    watch: PassObserver | None = None
    relieve: Callable[[], bool] | None = None
    swap: MirrorSwap | None = None

    def __call__(self, tiles: Tensor) -> Tensor:
        """The average over mirrored copies (tiles, classes, z, y, x), float32, on the network's device."""
        if len(tiles) > self.batch:
            return torch.cat([self(part) for part in tiles.split(self.batch)])
        try:
            return self._average(tiles.to(self.device))
        except torch.OutOfMemoryError:
            if not (self.relieve is not None and self.relieve()):
                if self.batch == 1:
                    raise
                self.batch = max(1, min(self.batch, len(tiles)) // 2)
        torch.cuda.empty_cache()
        return self(tiles)

    def _average(self, tiles: Tensor) -> Tensor:
        average = plain = self._pass(tiles)
        if self.mirrored:
            average = plain.clone()
            for axes in self.mirrored:
                flipped = [axis + 2 for axis in axes]
                found = self._pass(tiles.flip(flipped)).flip(flipped)
                exchanged = self.swap is not None and self.swap.axis in axes
                average += self.swap.channels(found) if self.swap is not None and exchanged else found
            average /= len(self.mirrored) + 1
        if self.watch is not None:
            self.watch(plain, average)
        return average[:, 1:] - average[:, :1] if self.difference else average

    def _pass(self, tiles: Tensor) -> Tensor:
        with torch.autocast("cuda") if self.device.type == "cuda" else contextlib.nullcontext():
            found = self.network(tiles)
        if not isinstance(found, Tensor) or found.shape[2:] != tiles.shape[2:]:
            raise ConfigError("Network: it gives more than one output or another size. Turn deep supervision off.")
        if self.difference and found.shape[1] != 2:
            raise ConfigError(
                f"Difference of {found.shape[1]} classes: it is defined for two only. Compute all logits."
            )
        return found.float()


class SliceNetwork(nn.Module):
    """A network of slices (B, C, y, x) that takes and gives volumes of one slice (B, C, 1, y, x)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, tiles: Tensor) -> Tensor:
        """The network's output for tiles of one slice."""
        found: Tensor = self.network(tiles[:, :, 0])
        return found[:, :, None]


def quick_forward(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Use faster kernels on a CPU: the same values but for rounding (2e-6 of logits of about 1)."""
    return (
        ReplacedFunctions(_OTHERS)
        if device.type == "cpu" and torch.backends.mkldnn.is_available()
        else contextlib.nullcontext()
    )


def _convolution(
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    axes = weight.dim() - 2
    known = image.dim() == weight.dim() and image.dtype is torch.float32 and not isinstance(padding, str)
    if not known or max(weight.shape[2:]) == 1:  # torch's own is no slower where a voxel's neighbours play no part
        plain = torch.conv3d if axes == 3 else torch.conv2d
        return plain(image, weight, bias, stride, padding, dilation, groups)
    pad, by, apart = ([n] * axes if isinstance(n, int) else list(n) for n in (padding, stride, dilation))
    return torch.ops.aten.mkldnn_convolution(image, weight, bias, pad, by, apart, groups)


_OTHERS: Functions = {
    **dict.fromkeys((torch.conv3d, F.conv3d, torch.conv2d, F.conv2d), _convolution),
    F.instance_norm: instance_norm,
}
