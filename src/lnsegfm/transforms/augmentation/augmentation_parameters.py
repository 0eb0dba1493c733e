"""The random parameters of nnU-Net's augmentation, drawn before any voxel is read, as a frozen value.

Transforms, probabilities and distributions are those of nnU-Net 2.8.1 (``nnUNetTrainer.get_training_transforms``, its
data loader, and batchgeneratorsv2). A sample's choices follow from (seed, iteration, sample) alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, Self

import numpy as np

from lnsegfm.errors import ConfigError
from lnsegfm.transforms.augmentation.compressed_volume import Places
from lnsegfm.transforms.mirror_swap import MirrorSwap

Triple = tuple[int, int, int]

SCALES = (0.7, 1.4)
"""Above 1 more of the scan is seen, and smaller."""
NOISE_SD = (0.0, 0.1)
"""nnU-Net calls it variance and uses it as standard deviation, of normalised intensities."""
BLUR_SD = (0.5, 1.0)
"""In voxels."""
BLUR_A_CHANNEL = 0.5
"""Of the channels of a blurred sample."""
BRIGHTNESS = CONTRAST = (0.75, 1.25)
LOW_RESOLUTION = (0.5, 1.0)
LOW_RESOLUTION_A_CHANNEL = 0.5
"""Of the channels of a coarsened sample."""
GAMMA = (0.7, 1.5)


@dataclass(frozen=True, kw_only=True)
class TransformRates:
    """How often a sample meets each transform, nnU-Net's by default.

    Args:
        rotation: About all axes at once.
        scaling: Of all axes alike.
        noise: Added, the same standard deviation in every channel.
        blur: Of each channel and axis on its own.
        brightness: Of each channel on its own, multiplied.
        contrast: Of each channel on its own, about its mean.
        low_resolution: Of each channel on its own.
        inverted_gamma: Of each channel on its own, on the negative image.
        gamma: Of each channel on its own.
        mirroring: Of each axis that may be mirrored.
    """

    rotation: float = 0.2
    scaling: float = 0.2
    noise: float = 0.1
    blur: float = 0.2
    brightness: float = 0.15
    contrast: float = 0.15
    low_resolution: float = 0.25
    inverted_gamma: float = 0.1
    gamma: float = 0.3
    mirroring: float = 0.5

    def __post_init__(self) -> None:
        for field in fields(self):
            rate = getattr(self, field.name)
            if not 0 <= rate <= 1:
                raise ConfigError(f"Rate of {field.name} {rate}: no probability. Use a number from 0 to 1.")

    @classmethod
    def none(cls, **rates: float) -> Self:
        """No transform but those named: the plain crop."""
        return cls(**({field.name: 0.0 for field in fields(cls)} | rates))


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """The settings from which the parameters of samples are drawn.

    Args:
        patch: Voxels that the network gets, z first.
        box: Voxels that nnU-Net reads before it rotates and scales; outside of them it sees nothing.
        angle: Largest angle of a rotation, in radians.
        in_plane: Rotate and scale within slices only, nnU-Net's rule for patches that are thin along z.
        mirror_axes: Axes that may be mirrored; 0 is z.
        channels: Of the images.
        masked: Channels that are 0 outside of the scan's nonzero region, as their normalisation left them.
        foreground: Share of the samples of a batch, its last ones, that are centred on a labelled voxel.
        has_ignore: Whether some voxels are not annotated; samples are then centred on those that are.
        every_label: Key of the annotated voxels among the locations; they are no class.
        regions: Of region-based labels the values that each output covers, those of ``ignore`` last; empty for others.
        swap: Outputs of left and right that change places when their axis is mirrored; None where none do.
        rates: How often each transform comes.
    """

    patch: Triple
    box: Triple
    angle: float = math.radians(30)
    in_plane: bool = False
    mirror_axes: tuple[int, ...] = (0, 1, 2)
    channels: int = 1
    masked: tuple[int, ...] = ()
    foreground: float = 0.33
    has_ignore: bool = False
    every_label: tuple[int, ...] = ()
    regions: tuple[tuple[int, ...], ...] = ()
    swap: MirrorSwap | None = None
    rates: TransformRates = TransformRates()

    def __post_init__(self) -> None:
        if len(self.patch) != 3 or len(self.box) != 3:
            raise ConfigError(f"Patch {self.patch} in box {self.box}: not three axes each. Use a 3D configuration.")
        if any(p < 1 or b < p for p, b in zip(self.patch, self.box, strict=True)):
            raise ConfigError(f"Box {self.box}: does not hold a patch of {self.patch}. Use one that does.")
        if self.in_plane and self.box[0] != self.patch[0]:
            raise ConfigError(f"Box {self.box}: other slices than patch {self.patch}. Use {self.patch[0]} of them.")
        if not set(self.mirror_axes) <= {0, 1, 2}:
            raise ConfigError(f"Mirror axes {self.mirror_axes}: axes are 0, 1 and 2. Leave the others out.")


class LocatedScan(Protocol):
    """What has to be known of a scan to place a patch in it."""

    @property
    def shape(self) -> Triple:
        """Voxels along z, y, x."""

    @property
    def locations(self) -> Mapping[Any, Places]:
        """Some voxels of each label, (N, 4): channel, z, y, x."""


@dataclass(frozen=True, kw_only=True)
class SampleParameters:
    """The random parameters of one sample; None for a transform that is not applied, per channel where channels differ.

    Args:
        case: Index of the scan.
        lower: First voxel of the box in the scan; may lie outside of it.
        angles: About z, y, x in radians.
        scale: Above 1 shows more of the scan.
        noise: Standard deviation of the noise.
        noise_seed: Of the noise itself.
        blur: Standard deviations in voxels along z, y, x of each channel.
        brightness: Factor of each channel.
        contrast: Factor of each channel.
        low_resolution: Share of the voxels along an axis that each channel keeps.
        inverted_gamma: Exponent of each channel.
        gamma: Exponent of each channel.
        mirrored: Axes.
    """

    case: int
    lower: Triple
    angles: tuple[float, float, float] | None = None
    scale: float | None = None
    noise: float | None = None
    noise_seed: int = 0
    blur: tuple[tuple[float, float, float] | None, ...] | None = None
    brightness: tuple[float, ...] | None = None
    contrast: tuple[float, ...] | None = None
    low_resolution: tuple[float | None, ...] | None = None
    inverted_gamma: tuple[float, ...] | None = None
    gamma: tuple[float, ...] | None = None
    mirrored: tuple[int, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether the sample is a crop, neither rotated nor scaled."""
        return self.angles is None and self.scale is None

    def matrix(self, *, in_plane: bool) -> np.ndarray:
        """Steps in the scan per step in the patch, (3, 3): scaled, then turned about z, y and x in that order."""
        scale = 1.0 if self.scale is None else self.scale
        about_z, about_y, about_x = (_turn(axis, a) for axis, a in enumerate(self.angles or (0.0, 0.0, 0.0)))
        return about_x @ about_y @ about_z @ np.diag([1.0 if in_plane else scale, scale, scale])


def draw_batch_parameters(
    settings: AugmentationSettings, scans: Sequence[LocatedScan], size: int, seed: int, iteration: int, rank: int = 0
) -> list[SampleParameters]:
    """Draw the samples of a batch.

    Args:
        settings: Patch, probabilities and ranges.
        scans: At least one.
        size: Samples; the last ones are centred on foreground, as many as nnU-Net's rounding gives.
        seed: Of the run.
        iteration: Of training.
        rank: Which of several processes that train together this is.
    """
    if not scans:
        raise ConfigError("Scans 0: nothing to draw from. Give at least one labelled scan.")
    first_foreground = round(size * (1 - settings.foreground))
    sources = [np.random.SeedSequence(seed, spawn_key=(iteration, rank, i)) for i in range(size)]
    return [
        draw_sample_parameters(settings, scans, np.random.default_rng(source), foreground=i >= first_foreground)
        for i, source in enumerate(sources)
    ]


def draw_sample_parameters(
    settings: AugmentationSettings, scans: Sequence[LocatedScan], random: np.random.Generator, *, foreground: bool
) -> SampleParameters:
    """Draw one sample, centred on a labelled voxel or anywhere."""
    case = int(random.integers(len(scans)))
    lower = _lower(settings, scans[case], random, foreground)
    rates, channels = settings.rates, range(settings.channels)

    def comes(rate: float) -> bool:
        return bool(random.random() < rate)

    def factors(limits: tuple[float, float]) -> tuple[float, ...]:
        return tuple(_around_one(random, limits) for _ in channels)

    return SampleParameters(
        case=case,
        lower=lower,
        angles=_angles(settings, random) if comes(rates.rotation) else None,
        scale=random.uniform(*SCALES) if comes(rates.scaling) else None,
        noise=random.uniform(*NOISE_SD) if comes(rates.noise) else None,
        noise_seed=int(random.integers(2**63)),
        blur=tuple(_three(random, BLUR_SD) if comes(BLUR_A_CHANNEL) else None for _ in channels)
        if comes(rates.blur)
        else None,
        brightness=factors(BRIGHTNESS) if comes(rates.brightness) else None,
        contrast=factors(CONTRAST) if comes(rates.contrast) else None,
        low_resolution=tuple(
            random.uniform(*LOW_RESOLUTION) if comes(LOW_RESOLUTION_A_CHANNEL) else None for _ in channels
        )
        if comes(rates.low_resolution)
        else None,
        inverted_gamma=factors(GAMMA) if comes(rates.inverted_gamma) else None,
        gamma=factors(GAMMA) if comes(rates.gamma) else None,
        mirrored=tuple(axis for axis in settings.mirror_axes if comes(rates.mirroring)),
    )


def _lower(settings: AugmentationSettings, scan: LocatedScan, random: np.random.Generator, foreground: bool) -> Triple:
    """First voxel of the box: the box may leave the scan by half of what it has beyond the patch, on either side."""
    ranges = []
    for size, patch, box in zip(scan.shape, settings.patch, settings.box, strict=True):
        beyond = max(box - patch, box - size)
        ranges.append((-beyond // 2, size + beyond // 2 + beyond % 2 - box))
    voxel = _voxel(settings, scan, random, foreground)
    if voxel is None:
        z, y, x = (int(random.integers(low, high + 1)) for low, high in ranges)
    else:  # nnU-Net holds it at the lower end only
        z, y, x = (max(low, int(v) - box // 2) for (low, _), v, box in zip(ranges, voxel, settings.box, strict=True))
    return z, y, x


def _voxel(
    settings: AugmentationSettings, scan: LocatedScan, random: np.random.Generator, foreground: bool
) -> Sequence[int] | None:
    """A labelled voxel of a class drawn first; an annotated one where some are not; None for anywhere."""
    found = {key: places for key, places in scan.locations.items() if len(places)}
    if foreground:
        keys = list(found)
        if len(keys) > 1 and settings.every_label in found:
            keys.remove(settings.every_label)
        if not keys:
            return None
        places = found[keys[int(random.integers(len(keys)))]]
    elif settings.has_ignore and settings.every_label in found:
        places = found[settings.every_label]
    else:
        return None
    return [int(v) for v in places[int(random.integers(len(places)))][1:]]


def _angles(settings: AugmentationSettings, random: np.random.Generator) -> tuple[float, float, float]:
    limits = (-settings.angle, settings.angle)
    return (random.uniform(*limits), 0.0, 0.0) if settings.in_plane else _three(random, limits)


def _three(random: np.random.Generator, limits: tuple[float, float]) -> tuple[float, float, float]:
    return random.uniform(*limits), random.uniform(*limits), random.uniform(*limits)


def _around_one(random: np.random.Generator, limits: tuple[float, float]) -> float:
    """Below 1 as often as above, uniform on either side."""
    low, high = limits
    return random.uniform(low, 1.0) if random.random() < 0.5 else random.uniform(1.0, high)


def _turn(axis: int, angle: float) -> np.ndarray:
    """A turn about an axis, to the right-handed sense."""
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.eye(3)
    low, high = [other for other in range(3) if other != axis]
    turn[low, low] = turn[high, high] = cos
    turn[low, high], turn[high, low] = (sin, -sin) if axis == 1 else (-sin, sin)
    return turn
