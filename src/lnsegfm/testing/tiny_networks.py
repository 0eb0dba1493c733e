"""Networks of a few thousand parameters, one for each way in which real ones hold their parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import Tensor, nn

from lnsegfm.networks.dyn_unet import DynUNet
from lnsegfm.networks.genesis_unet import GenesisUNet
from lnsegfm.networks.seg_res_net import SegResNet
from lnsegfm.networks.seg_res_net_ds import SegResNetDS
from lnsegfm.networks.stu_net import STUNet
from lnsegfm.networks.swin_unetr import SwinUNETR

UNET: dict[str, Any] = {
    "input_channels": 1,
    "n_stages": 3,
    "features_per_stage": (3, 5, 6),
    "conv_op": nn.Conv3d,
    "kernel_sizes": 3,
    "strides": (1, 2, 2),
    "num_classes": 2,
    "n_conv_per_stage_decoder": 1,
    "conv_bias": True,
    "norm_op": nn.InstanceNorm3d,
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": nn.LeakyReLU,
    "nonlin_kwargs": {"inplace": True},
    "deep_supervision": True,
}
STU: dict[str, Any] = {
    "features_per_stage": (3, 5, 6),
    "n_blocks_per_stage": (1, 2, 1),
    "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2)),
    "kernel_sizes": ((3, 3, 3),) * 3,
    "deep_supervision": True,
}

DYN: dict[str, Any] = {
    "filters": (3, 5, 6),
    "kernel_size": ((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2)),
    "outputs": 2,
    "res_block": True,
    "deep_supervision": True,
}

RES_DS: dict[str, Any] = {
    "init_filters": 4,
    "blocks_down": (1, 1, 1),
    "blocks_up": (1, 1),
    "outputs": 2,
    "resolution": (1.0, 0.5, 0.5),
    "norm": ["INSTANCE", {"affine": True}],
    "deep_supervision": True,
}


class Sequence3d(nn.Module):
    """Convolution, transposed convolution and linear layers, with a linear head."""

    def __init__(self, affine: bool = True) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv3d(1, 4, 3, stride=2, padding=1),
            nn.InstanceNorm3d(4, affine=affine),
            nn.LeakyReLU(),
            nn.ConvTranspose3d(4, 6, 2, stride=2),
            nn.InstanceNorm3d(6, affine=affine),
            nn.LeakyReLU(),
        )
        self.mix = nn.Linear(6, 5)
        self.out = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        """From an input (B, 1, z, y, x) to logits (B, 2, z, y, x)."""
        return self.out(self.mix(self.features(x).movedim(1, -1)).relu()).movedim(-1, 1)


class Grouped(nn.Sequential):
    """Grouped and depthwise convolutions, grouped transposed convolution, GroupNorm."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv3d(1, 4, 3, padding=1),
            nn.GroupNorm(2, 4),
            nn.ReLU(),
            nn.Conv3d(4, 6, 3, stride=2, padding=1, groups=2),
            nn.Conv3d(6, 6, 3, padding=1, groups=6),
            nn.ReLU(),
            nn.ConvTranspose3d(6, 8, 2, stride=2, groups=2, bias=False),
            nn.GroupNorm(4, 8),
            nn.ReLU(),
            nn.Conv3d(8, 2, 1),
        )


class Transformer(nn.Module):
    """Patch embedding, one attention block, a transposed convolution as head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv3d(1, 8, 4, stride=4)
        self.position = nn.Parameter(torch.zeros(1, 8, 8))
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.RMSNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
        self.out = nn.ConvTranspose3d(8, 2, 4, stride=4)

    def forward(self, x: Tensor) -> Tensor:
        """From an input (B, 1, z, y, x) to logits (B, 2, z, y, x)."""
        grid = self.embed(x)
        tokens = grid.flatten(2).transpose(1, 2) + self.position
        normed = self.norm1(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        tokens = tokens + self.mlp(self.norm2(tokens))
        return self.out(tokens.transpose(1, 2).reshape(grid.shape))


class Batch(nn.Sequential):
    """BatchNorm, whose running statistics move in every forward pass unless they are held."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv3d(1, 4, 3, padding=1, bias=False),
            nn.BatchNorm3d(4),
            nn.ReLU(),
            nn.Conv3d(4, 5, 3, stride=2, padding=1),
            nn.BatchNorm3d(5, track_running_stats=False),
            nn.ReLU(),
            nn.ConvTranspose3d(5, 1, 2, stride=2),
            nn.InstanceNorm3d(1, affine=True, track_running_stats=True),
            nn.Conv3d(1, 2, 1),
        )


class Tied(nn.Module):
    """One layer under two names, one tensor in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(1, 4, 3, padding=1)
        self.norm = nn.InstanceNorm3d(4, affine=True)
        self.second = nn.Conv3d(4, 4, 3, padding=1)
        self.again = self.second
        self.third = nn.Conv3d(4, 4, 3, padding=1)
        self.third.weight = self.second.weight
        self.out = nn.Conv3d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """From an input (B, 1, z, y, x) to logits (B, 2, z, y, x)."""
        x = self.norm(self.first(x)).relu()
        return self.out(self.third(self.again(self.second(x)).relu()))


@dataclass(frozen=True)
class Tiny:
    """A network, what has to be said of it, and what it takes.

    Args:
        build: Makes it.
        head: Names its head; None for a network that has a card.
        shape: Its input in voxels, (z, y, x).
    """

    build: Callable[[], nn.Module]
    head: Callable[[Any], Sequence[nn.Module]] | None = None
    shape: tuple[int, int, int] = (8, 8, 8)

    def make(self, seed: int = 0) -> tuple[Any, Sequence[nn.Module] | None]:
        """The network with weights from a seed, some of them -0.0, and its head."""
        torch.manual_seed(seed)
        network = self.build()
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.dim() > 1:
                    parameter.view(-1)[::5] = -0.0
        return network, None if self.head is None else self.head(network)

    def batch(self, seed: int) -> Tensor:
        """An input (2, 1, z, y, x)."""
        return torch.randn(2, 1, *self.shape, generator=torch.Generator().manual_seed(seed))


def loss_of(outputs: Tensor | Sequence[Tensor], seed: int = 0) -> Tensor:
    """A loss over all outputs, the deeply supervised ones included."""
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    losses = []
    for k, output in enumerate(outputs):
        generator = torch.Generator().manual_seed(1000 * seed + k)
        target = torch.randint(0, 2, (output.shape[0], *output.shape[2:]), generator=generator)
        losses.append(nn.functional.cross_entropy(output, target))
    return torch.stack(losses).sum()


TINY: dict[str, Tiny] = {
    "plain-unet": Tiny(lambda: PlainConvUNet(**UNET, n_conv_per_stage=1)),
    "resenc-unet": Tiny(lambda: ResidualEncoderUNet(**UNET, n_blocks_per_stage=1)),
    "sequence": Tiny(Sequence3d, lambda n: [n.out]),
    "grouped": Tiny(Grouped, lambda n: [n[-1]]),
    "transformer": Tiny(Transformer, lambda n: [n.out]),
    "batch-norm": Tiny(Batch, lambda n: [n[-1]]),
    "tied": Tiny(Tied, lambda n: [n.out]),
}

BATCH_UNET = Tiny(
    lambda: PlainConvUNet(
        **{**UNET, "norm_op": nn.BatchNorm3d, "norm_op_kwargs": {"affine": True}, "n_conv_per_stage": 1}
    )
)
"""nnU-Net's network with running statistics on either side, which its plans may name."""

SWIN: dict[str, Any] = {"feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 4), "window_size": 3}
"""The smallest that MONAI builds: 3.7 million parameters, most of them in its decoder."""

SWINS: dict[str, Tiny] = {
    name: Tiny(lambda v2=v2: SwinUNETR(1, 2, use_v2=v2, **SWIN), shape=(32, 32, 64))  # type: ignore[misc]
    for name, v2 in (("swinunetr", False), ("swinunetr-v2", True))
}

PUBLISHED: dict[str, Tiny] = {
    "seg-res-net": Tiny(lambda: SegResNet(1, 2, init_filters=8, blocks_down=(1, 1), blocks_up=(1,))),
    "dyn-unet": Tiny(lambda: DynUNet(1, 2, **DYN)),
    "seg-res-net-ds": Tiny(lambda: SegResNetDS(1, 2, **RES_DS)),
    "stu-net": Tiny(lambda: STUNet(1, 2, **STU)),
    "genesis-unet": Tiny(lambda: GenesisUNet(1, 2, features=4), shape=(8, 8, 16)),
}
"""Networks of published models, by the names of their cards."""
