"""What the benchmarks compute: nnU-Net's default network, a loss like its own, one batch of noise."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import Tensor, nn


def default_unet() -> nn.Module:
    """nnU-Net's default 3D network: six stages, 31.2 million parameters."""
    network = PlainConvUNet(
        input_channels=1,
        n_stages=6,
        features_per_stage=(32, 64, 128, 256, 320, 320),
        conv_op=nn.Conv3d,
        kernel_sizes=3,
        strides=(1, 2, 2, 2, 2, 2),
        n_conv_per_stage=2,
        num_classes=2,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )
    parameters = sum(p.numel() for p in network.parameters())
    if round(parameters / 1e5) != 312:
        raise RuntimeError(f"Network of {parameters} parameters: nnU-Net's default has 31.2 million.")
    return network


def deep_loss(outputs: list[Tensor], labels: Tensor) -> Tensor:
    """Cross-entropy + Dice at every resolution, halved from each to the next, as nnU-Net weighs them."""
    total = outputs[0].new_zeros(())
    for level, output in enumerate(outputs):
        logits = output.float()
        target = labels[:, :: 2**level, :: 2**level, :: 2**level]
        foreground = logits.softmax(1)[:, 1]
        overlap = (foreground * target).sum()
        dice = (2 * overlap + 1e-5) / (foreground.sum() + target.sum() + 1e-5)
        total = total + 0.5**level * (nn.functional.cross_entropy(logits, target) - dice)
    return total


class Workload:
    """Network, data and clock of one measurement.

    Args:
        device: Where to compute.
        patch: Edge of the cubic patch in voxels.
        batch: Patches in a batch.
    """

    def __init__(self, device: str, patch: int, batch: int) -> None:
        torch.manual_seed(0)
        self.device = torch.device(device)
        self.network = default_unet().to(self.device)
        self.images = torch.randn(batch, 1, patch, patch, patch, device=self.device)
        self.labels = (torch.rand(batch, patch, patch, patch, device=self.device) > 0.9).long()
        self.amp = self.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(self.device.type, init_scale=1024.0, enabled=self.amp)

    def forward_backward(self) -> None:
        """Fresh gradients, scaled under AMP as nnU-Net's are."""
        self.network.zero_grad()
        with torch.autocast(self.device.type, enabled=self.amp):
            loss = deep_loss(self.network(self.images), self.labels)
        self.scaler.scale(loss).backward()

    def seconds(self, work: Callable[[], Any]) -> float:
        """How long a piece of work takes, the device's queue included."""
        self._wait()
        start = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.amp:
            torch.cuda.synchronize(self.device)
