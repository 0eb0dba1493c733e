"""Intensity augmentation with given parameters, in place on (C, z, y, x) float32.

Equal to the transforms of batchgeneratorsv2 that nnU-Net 2.8.1 trains with.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from lnsegfm.transforms.augmentation.augmentation_parameters import SampleParameters

KERNEL_SDS = 6
"""Width of the blur's kernel in standard deviations, rounded to an odd number of voxels."""
SMALLEST = 1e-7
"""A range or a standard deviation is divided by no less."""


def augment_intensities(image: Tensor, parameters: SampleParameters, *, in_plane: bool = False) -> Tensor:
    """Apply the intensity transforms of a sample in nnU-Net's order, in place."""
    if parameters.noise is not None:
        add_noise(image, parameters.noise, parameters.noise_seed)
    for c, channel in enumerate(image):
        if parameters.blur is not None and (sds := parameters.blur[c]) is not None:
            blur(channel, sds)
        if parameters.brightness is not None:
            channel.mul_(parameters.brightness[c])
        if parameters.contrast is not None:
            change_contrast(channel, parameters.contrast[c])
        if parameters.low_resolution is not None and (share := parameters.low_resolution[c]) is not None:
            simulate_low_resolution(channel, share, in_plane=in_plane)
        if parameters.inverted_gamma is not None:
            change_gamma(channel.neg_(), parameters.inverted_gamma[c])
            channel.neg_()
        if parameters.gamma is not None:
            change_gamma(channel, parameters.gamma[c])
    return image


def add_noise(image: Tensor, sd: float, seed: int) -> None:
    """Add Gaussian noise, another in each channel; the seed gives the same on one kind of device."""
    random = torch.Generator(image.device).manual_seed(seed)
    image.add_(torch.empty_like(image).normal_(0.0, sd, generator=random))


def blur(channel: Tensor, sds: Sequence[float]) -> None:
    """Convolve (z, y, x) with a Gaussian along each axis; the border is mirrored."""
    for axis, sd in enumerate(sds):
        weights = gaussian_kernel(sd)
        reach = len(weights) // 2
        around = [0] * 6
        around[2 * (2 - axis)] = around[2 * (2 - axis) + 1] = reach
        wide = pad(channel[None, None], around, mode="reflect")[0, 0]
        size = channel.shape[axis]
        channel.mul_(weights[reach])
        for i in range(reach):
            both = wide.narrow(axis, i, size) + wide.narrow(axis, 2 * reach - i, size)
            channel.add_(both, alpha=weights[i])


def gaussian_kernel(sd: float) -> list[float]:
    """Weights of a Gaussian at whole voxels; their number is odd and their sum 1."""
    wanted = KERNEL_SDS * sd + 0.5
    width = round(wanted)
    if width % 2 == 0:
        width += 1 if wanted >= width else -1
    reach = (width - 1) / 2
    density = torch.exp(-0.5 * (torch.linspace(-reach, reach, width) / sd) ** 2)
    weights: list[float] = (density / density.sum()).tolist()
    return weights


def change_contrast(channel: Tensor, factor: float) -> None:
    """Spread intensities about their mean, within the range that they had."""
    mean = channel.mean()
    lowest, highest = torch.aminmax(channel)
    channel.sub_(mean).mul_(factor).add_(mean)
    torch.clamp(channel, lowest, highest, out=channel)


def simulate_low_resolution(channel: Tensor, share: float, *, in_plane: bool = False) -> None:
    """Keep a share of the voxels along each axis (the nearest ones) and interpolate between them linearly."""
    share = torch.tensor(share, dtype=torch.float32).item()  # where n * share is nearly a half, rounding counts
    size = channel.shape
    kept = [n if in_plane and axis == 0 else round(n * share) for axis, n in enumerate(size)]
    few = interpolate(channel[None, None], kept, mode="nearest-exact")
    channel.copy_(interpolate(few, size, mode="trilinear")[0, 0])


def change_gamma(channel: Tensor, gamma: float) -> None:
    """Raise intensities, as shares of their range, to a power; their mean and standard deviation stay."""
    mean = channel.mean()
    sd = _norm(channel.sub_(mean))
    lowest, highest = torch.aminmax(channel)
    span = highest - lowest
    channel.sub_(lowest).div_(span.clamp(min=SMALLEST)).pow_(gamma)
    changed = _norm(channel.sub_(channel.mean())) * span
    channel.mul_(span * sd / changed.clamp(min=SMALLEST)).add_(mean)


def _norm(centred: Tensor) -> Tensor:
    """Standard deviation of intensities whose mean is 0."""
    return torch.linalg.vector_norm(centred) / (centred.numel() - 1) ** 0.5
