"""Spatial augmentation: crop, rotation and scaling of a scan that lies in memory or in a file of compressed chunks.

Equal to nnU-Net 2.8.1's crop of an oversized box and batchgeneratorsv2's ``SpatialTransform`` on it (trilinear images
with 0 outside, labels by the largest interpolated share with -1 outside), but only the voxels that the sample shows
are read, and labels are interpolated only where a cell of eight voxels holds a label. A rotated grid is not separable
by axes, so the weights of `lnsegfm.transforms.resampling.axis_weights` do not serve here.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from lnsegfm.transforms.augmentation.augmentation_parameters import AugmentationSettings, SampleParameters, Triple
from lnsegfm.transforms.augmentation.compressed_volume import Voxels, read_part

OUTSIDE = -1
"""Label outside of the box or the scan, and in a scan outside of its nonzero region."""
SHARES = 1000.0
"""Shares of labels are compared in float16 at this scale, so that what is nearly a tie is one."""
SLAB = 1 << 17
"""Voxels that a CPU interpolates at a time: their inputs stay in its cache."""
ROUNDING = 1e-3
"""Voxels by which a place may be off in float32, and more."""


def sample_patch(
    image: Voxels, labels: Voxels, parameters: SampleParameters, settings: AugmentationSettings
) -> tuple[Tensor, Tensor]:
    """Read the voxels of a sample: the same, to the last bit, from memory and from a file that holds the same.

    Args:
        image: Scan (C, Z, Y, X), on any device.
        labels: Its labels (Z, Y, X) in int16, -1 where the scan has no data.
        parameters: Crop, angles and scale.
        settings: Patch and box.

    Returns:
        Image (C, z, y, x) in float32 and labels (z, y, x) of the patch's size, new tensors. Turned or scaled labels
        are 0 where they would be -1, unless a channel is masked by it.
    """
    if parameters.is_plain:
        lower = _triple(
            low + b // 2 - p // 2 for low, b, p in zip(parameters.lower, settings.box, settings.patch, strict=True)
        )
        return _read(image, lower, settings.patch, 0).float(), _read(labels, lower, settings.patch, OUTSIDE)
    lower, size = _region(parameters, settings, _triple(labels.shape))
    # one voxel more before the region and two behind: what would leave it further stops there, in the fill
    around, padded = _triple(low - 1 for low in lower), _triple(n + 3 for n in size)
    limits = _limits(parameters, settings, _triple(labels.shape))
    inside = all(low >= f and low + n <= e for low, n, (f, e) in zip(around, padded, limits, strict=True))
    origin = (0, 0, 0) if inside else around  # from which places are counted, in memory and in a file alike
    if inside and isinstance(image, Tensor) and isinstance(labels, Tensor):
        around = origin  # nothing to fill: read where the scan lies
        source_image, source_labels = image.float().contiguous(), labels.contiguous()
    else:
        source_image, source_labels = (
            _read(image, around, padded, 0, limits).float(),
            _read(labels, around, padded, OUTSIDE, limits),
        )
    buffer = _Buffer(around, _triple(source_labels.shape))
    place = _Place.of(parameters, settings, origin, buffer, (lower, size), image.device)
    patch_image = source_image.new_empty((len(image), *settings.patch))
    patch_labels = source_labels.new_zeros(settings.patch)
    slab = settings.patch[0] if image.is_cuda else max(1, SLAB // (settings.patch[1] * settings.patch[2]))
    for first in range(0, settings.patch[0], slab):
        cells = place.cells(slice(first, first + slab))
        for channel, out in zip(source_image, patch_image, strict=True):
            cells.interpolate(channel.view(-1), out[first : first + slab].view(-1))
        cells.label(
            source_labels.view(-1), patch_labels[first : first + slab].view(-1), keep_outside=bool(settings.masked)
        )
    return patch_image, patch_labels


def _triple(values: Iterable[int]) -> Triple:
    z, y, x = (int(v) for v in values)
    return z, y, x


def _limits(parameters: SampleParameters, settings: AugmentationSettings, shape: Triple) -> tuple[tuple[int, int], ...]:
    """First and last but one voxel along each axis that is in the box and in the scan."""
    return tuple(
        (max(low, 0), min(low + n, s)) for low, n, s in zip(parameters.lower, settings.box, shape, strict=True)
    )


def _region(parameters: SampleParameters, settings: AugmentationSettings, shape: Triple) -> tuple[Triple, Triple]:
    """First voxel and size of the part of the box, and of the scan in it, that the patch can reach."""
    middle = np.array(parameters.lower) + (np.array(settings.box) - 1) / 2
    reach = np.abs(parameters.matrix(in_plane=settings.in_plane)) @ ((np.array(settings.patch) - 1) / 2) + ROUNDING
    first, last = np.array(_limits(parameters, settings, shape)).T
    first = np.maximum(first, np.floor(middle - reach)).astype(int)
    last = np.minimum(last, np.ceil(middle + reach) + 1).astype(int)
    return _triple(first), _triple(np.maximum(last - first, 0))


def _read(
    volume: Voxels, lower: Triple, size: Triple, fill: int, limits: Sequence[tuple[int, int]] | None = None
) -> Tensor:
    """A copy of a part of (..., Z, Y, X); voxels outside of the volume, or of the limits, are ``fill``."""
    limits = limits or [(0, n) for n in volume.shape[-3:]]
    inner = [(max(low, f), min(low + n, e)) for low, n, (f, e) in zip(lower, size, limits, strict=True)]
    if any(start >= end for start, end in inner):
        return torch.full((*volume.shape[:-3], *size), fill, dtype=volume.dtype, device=volume.device)
    z, y, x = (slice(start, end) for start, end in inner)
    part = read_part(volume, z, y, x)
    if part.shape[-3:] == size:
        return part.clone(memory_format=torch.contiguous_format) if isinstance(volume, Tensor) else part
    whole = part.new_full((*volume.shape[:-3], *size), fill)
    z, y, x = (slice(start - low, end - low) for (start, end), low in zip(inner, lower, strict=True))
    whole[..., z, y, x] = part
    return whole


@dataclass(frozen=True)
class _Buffer:
    """The part of a scan that was read.

    Args:
        start: Its first voxel.
        size: Its voxels (z, y, x).
    """

    start: Triple
    size: Triple

    @property
    def steps(self) -> Triple:
        """Flat steps along z, y, x."""
        return self.size[1] * self.size[2], self.size[2], 1


@dataclass(frozen=True)
class _Place:
    """Where in a buffer the voxels of a turned and scaled patch lie.

    Args:
        along: For each axis the place as the sum of a term in z, one in y and one in x of the patch.
        bounds: For each axis the least and the largest place; what lies further is fill as well.
        steps: Flat steps of the buffer along z, y, x.
        first: Flat index of the voxel of the buffer that lies where places are counted from.
        in_box: Where the buffer starts in the box.
    """

    along: tuple[tuple[Tensor, Tensor, Tensor], ...]
    bounds: tuple[tuple[int, int], ...]
    steps: Triple
    first: int
    in_box: Triple

    @classmethod
    def of(
        cls,
        parameters: SampleParameters,
        settings: AugmentationSettings,
        origin: Triple,
        buffer: _Buffer,
        region: tuple[Triple, Triple],
        device: torch.device,
    ) -> _Place:
        """In a buffer that holds the region with its fringe; places are counted from voxel ``origin`` of the scan."""
        matrix = parameters.matrix(in_plane=settings.in_plane)
        along = []
        for axis in range(3):
            terms = [matrix[axis, i] * (np.arange(p) - (p - 1) / 2) for i, p in enumerate(settings.patch)]
            terms[0] += parameters.lower[axis] + (settings.box[axis] - 1) / 2 - origin[axis]
            z, y, x = (torch.as_tensor(term, dtype=torch.float32).to(device) for term in terms)
            along.append((z[:, None, None], y[:, None], x))
        bounds = tuple((low - o - 1, low - o + n) for low, n, o in zip(*region, origin, strict=True))
        in_box = _triple(start - low for start, low in zip(buffer.start, parameters.lower, strict=True))
        ahead = (o - start for o, start in zip(origin, buffer.start, strict=True))
        first = sum(n * step for n, step in zip(ahead, buffer.steps, strict=True))
        return cls(tuple(along), bounds, buffer.steps, first, in_box)

    def cells(self, slab: slice) -> _Cells:
        """Those of some slices of the patch."""
        first: Tensor | None = None
        within = []
        for (z, y, x), bounds, step in zip(self.along, self.bounds, self.steps, strict=True):
            place = ((z[slab] + y) + x).clamp_(*bounds)
            whole = place.to(torch.int32)
            within.append(place.sub_(whole).view(-1))
            first = whole.mul_(step) if first is None else first.add_(whole, alpha=step)
        assert first is not None
        first += self.first
        corners = tuple(sum(n * up for n, up in zip(self.steps, ups, strict=True)) for ups in product((0, 1), repeat=3))
        return _Cells(first.view(-1), (within[0], within[1], within[2]), corners, self.in_box)


@dataclass(frozen=True)
class _Cells:
    """For some voxels of the patch the cell of eight voxels of a buffer that each lies in, and where in it.

    Args:
        first: Flat index of the cell's first voxel.
        within: Place in the cell along z, y, x, from 0 to 1.
        corners: Flat steps from a cell's first voxel to each of the eight; x changes fastest.
        in_box: Where the buffer starts in the box.
    """

    first: Tensor
    within: tuple[Tensor, Tensor, Tensor]
    corners: tuple[int, ...]
    in_box: Triple

    def interpolate(self, flat: Tensor, out: Tensor) -> None:
        """Write the trilinear values of a flat buffer."""
        values = [flat[step:].index_select(0, self.first) for step in self.corners]
        for within in reversed(self.within):
            values = [low.lerp_(high, within) for low, high in zip(values[::2], values[1::2], strict=True)]
        out.copy_(values[0])

    def label(self, flat: Tensor, out: Tensor, *, keep_outside: bool) -> None:
        """Write the label with the largest share at every voxel; the nearest one's where shares are equal."""
        corners = [flat[step:].index_select(0, self.first) for step in self.corners]
        candidates = functools.reduce(torch.bitwise_or if keep_outside else torch.maximum, corners)
        places = ((candidates != 0) if keep_outside else (candidates > 0)).nonzero()[:, 0]
        if len(places):
            out[places] = self._largest_share(torch.stack([corner[places] for corner in corners]), places)

    def _largest_share(self, corners: Tensor, places: Tensor) -> Tensor:
        within = z, y, x = [along[places] for along in self.within]
        shares = torch.stack([a * b * c for a, b, c in product((1 - z, z), (1 - y, y), (1 - x, x))])
        nearest = torch.zeros_like(places)
        left = self.first[places]
        for place, step, start, up in zip(
            within, (self.corners[4], self.corners[2], 1), self.in_box, (4, 2, 1), strict=True
        ):
            is_odd = (left // step + start) % 2 == 1  # midway between two voxels of the box the even one is nearest
            nearest += up * ((place > 0.5) | ((place == 0.5) & is_odd))
            left = left % step
        nearest_label = corners.gather(0, nearest[None])[0]
        best = torch.full_like(z, -1, dtype=torch.float16)
        own = best.clone()
        winner = torch.zeros_like(nearest_label)
        for label in (corners.long() - OUTSIDE).flatten().bincount().nonzero()[:, 0] + OUTSIDE:
            share = (shares * (corners == label)).sum(0).mul_(SHARES).half()
            own = torch.where(nearest_label == label, share, own)
            winner = torch.where(share > best, label.to(winner.dtype), winner)
            best = torch.maximum(best, share)
        return torch.where(own == best, nearest_label, winner)
