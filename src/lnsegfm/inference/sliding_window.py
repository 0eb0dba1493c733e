"""A volume's logits from overlapping tiles: nnU-Net's sliding window, with tiles in batches.

Positions, weights and mirrored copies are those of nnU-Net 2.8.1's ``predict_sliding_window_return_logits``. What
differs are three settings: the batch size, the precision of the sums (nnU-Net sums in half precision, which overflows
at 65504), and whether constant tiles (air) are evaluated once and reused.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own documentation calls it so
from torch import Tensor, nn

from lnsegfm.errors import ConfigError, DataError, ModelError
from lnsegfm.inference.mirror_agreement import labels_of
from lnsegfm.inference.tile_forward import PassObserver, TileForward, quick_forward
from lnsegfm.inference.tile_positions import TilePosition, gaussian_importance, mirrorings, step_by_axis, tile_positions
from lnsegfm.networks.cpu_allocator import reused_memory
from lnsegfm.transforms.mirror_swap import MirrorSwap

BATCH = 2
"""Tiles at once on an accelerator. On a CPU one at a time is the fastest, and takes the least memory."""


@dataclass(frozen=True)
class Air:
    """Constant tiles are evaluated once and reused.

    CT normalisation cuts intensities at a lower bound, so that air (and fat and lung below the bound) is one constant.
    A skipped tile equals the evaluated one, so its logits are the same, whatever the network predicts in it.

    Args:
        value: The bound, in the units of the normalised volume.
    """

    value: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ConfigError(f"Air {self.value}: it is the lowest intensity of a normalised scan. Give a number.")


@torch.inference_mode()
def sliding_window(
    network: nn.Module,
    volume: Tensor,
    patch_size: Sequence[int],
    *,
    step: float | Sequence[float] = 0.5,
    mirror_axes: Sequence[int] = (),
    batch: int | None = None,
    device: str | torch.device = "cpu",
    accumulate_on: str | torch.device = "cpu",
    precision: torch.dtype = torch.float32,
    difference: bool = False,
    quick: bool = True,
    air: Air | None = None,
    watch: PassObserver | None = None,
    only: Sequence[TilePosition] | None = None,
    swap: MirrorSwap | None = None,
) -> Tensor:
    """The logits of a volume, averaged over tiles and their mirrored copies.

    Args:
        network: Takes (tiles, channels, *patch) and gives (tiles, classes, *patch): deep supervision is off. It is
            moved to ``device`` and set to evaluation. On CUDA it runs under autocast, as nnU-Net's does.
        volume: (channels, z, y, x), normalised; smaller than a patch it is padded by zeros on both sides.
        patch_size: Voxels of a tile (z, y, x).
        step: Distance of tiles as a share of the patch, at most: one number, or one for each axis. A network of slices
            has a patch of (1, y, x) and a step of 1 along z, which takes each slice once.
        mirror_axes: Of (0, 1, 2): the average is over every combination of them.
        batch: Tiles at once, halved for good when CUDA's memory does not hold so many; None chooses.
        device: Where the network runs.
        accumulate_on: Where the sums lie, 4 bytes a voxel and class and 4 more; when CUDA's memory does not hold them
            they move to the CPU.
        precision: Of the sums. With float16, and one tile at once that is not ``quick``, logits are nnU-Net's bit for
            bit on a CPU.
        difference: Give one channel, the logit of class 1 less that of class 0: enough for a mask of two classes.
        quick: Compute the network's layers in the quickest way on a CPU (`lnsegfm.inference.tile_forward`).
        air: The value of constant tiles to reuse; None evaluates every tile.
        watch: Called with the logits of each batch before and after averaging, to count mirror agreement. Not for
            reused tiles that are background in both.
        only: The tiles to evaluate, in a volume at least a patch large, instead of those that cover it; at least one.
        swap: Outputs of left and right that copies mirrored along its axis have exchanged: they are put back.

    Returns:
        (classes, z, y, x), or (1, z, y, x) for ``difference``, where the sums lie; 0 where no tile lies.

    Raises:
        ConfigError: Settings that cannot be, a network that gives several outputs, a difference of other than two.
        DataError: The volume is none.
        ModelError: Logits that are not finite.
    """
    patch = tuple(int(n) for n in patch_size)
    device = torch.device(device)
    batch = batch if batch is not None else 1 if device.type == "cpu" else BATCH
    _require(volume, patch, step, mirror_axes, batch)
    padded, inner = pad(volume, patch)
    sums = _Sums(tuple(padded.shape[1:]), gaussian_importance(patch), precision, torch.device(accumulate_on))
    forward = TileForward(
        network.to(device).eval(), mirrorings(mirror_axes), device, batch, difference, watch, sums.to_the_cpu, swap
    )
    tiles = tile_positions(padded.shape[1:], patch, step) if only is None else only
    with reused_memory(device), quick_forward(device) if quick else contextlib.nullcontext():
        constant = _evaluate_constant(forward, padded, tiles, patch, air)
        for group, results in _evaluated(forward, padded, tiles, constant):
            for at, logits in zip(group, results, strict=True):
                sums.add(at, logits)
    return sums.logits()[(slice(None), *inner)]


class _Sums:
    """Weighted sums of tiles and their weights; they move to the CPU when CUDA's memory does not hold them."""

    def __init__(self, shape: tuple[int, ...], weight: Tensor, precision: torch.dtype, place: torch.device) -> None:
        self._shape, self._precision, self._place = shape, precision, place
        self._weight = weight
        self._sums: Tensor | None = None
        self._total: Tensor | None = None

    def add(self, at: TilePosition, logits: Tensor) -> None:
        """Add a tile's logits (classes, z, y, x)."""
        try:
            logits = logits.to(self._place)
            if self._sums is None or self._total is None:
                self._weight = self._weight.to(self._place)
                self._sums = torch.zeros((len(logits), *self._shape), dtype=self._precision, device=self._place)
                self._total = torch.zeros(self._shape, dtype=self._precision, device=self._place)
            weighted = logits * self._weight
        except torch.OutOfMemoryError:
            if not self.to_the_cpu():
                raise
            self.add(at, logits)
            return
        self._sums[(slice(None), *at)] += weighted  # in place: from here on nothing can run out of memory
        self._total[at] += self._weight

    def to_the_cpu(self) -> bool:
        """Whether there was something to move."""
        if self._place.type == "cpu":
            return False
        self._place = torch.device("cpu")
        self._weight = self._weight.cpu()
        self._sums, self._total = (
            (None, None) if self._sums is None or self._total is None else (self._sums.cpu(), self._total.cpu())
        )
        torch.cuda.empty_cache()
        return True

    def logits(self) -> Tensor:
        """The averages, in the sums' own memory."""
        assert self._sums is not None  # there is at least one tile
        assert self._total is not None
        self._total.masked_fill_(self._total == 0, 1)  # no tile lies there, and the sum is 0
        for logits in self._sums:
            logits /= self._total
        planes = [plane.isfinite().all() for plane in self._sums.flatten(0, 1)]  # read once: a GPU would wait for each
        if not bool(torch.stack(planes).all()):
            raise ModelError(
                "Logits: the network gives infinities or NaN for this scan. Check its weights and the scan."
            )
        return self._sums


def constant_tiles(volume: Tensor, tiles: Sequence[TilePosition], value: float) -> list[int]:
    """The numbers of the tiles whose voxels all have a value, in every channel."""
    other = (volume != value).any(0)
    return [number for number, at in enumerate(tiles) if not bool(other[at].any())]


@dataclass(frozen=True)
class _Constant:
    """The logits of the constant tiles.

    Args:
        tiles: Their numbers.
        logits: The logits of each of them (1, classes, z, y, x).
        passes: Its logits before and after averaging, for `watch`; none where both are background.
    """

    tiles: frozenset[int] = frozenset()
    logits: Tensor | None = None
    passes: tuple[tuple[Tensor, Tensor], ...] = ()


def _evaluated(
    forward: TileForward, volume: Tensor, tiles: Sequence[TilePosition], constant: _Constant
) -> Iterator[tuple[list[TilePosition], Tensor]]:
    """Batches of tiles in their order with their logits; constant tiles are not evaluated again."""
    buffer: Tensor | None = None
    for is_constant, run in itertools.groupby(enumerate(tiles), key=lambda each: each[0] in constant.tiles):
        places = [at for _, at in run]
        while places:
            group, places = places[: forward.batch], places[forward.batch :]
            if is_constant and constant.logits is not None:
                if forward.watch is not None:
                    for plain, averaged in constant.passes * len(group):
                        forward.watch(plain, averaged)
                yield group, constant.logits.expand(len(group), *constant.logits.shape[1:])
                continue
            parts = [volume[(slice(None), *at)] for at in group]
            if buffer is None:
                buffer = torch.empty((forward.batch, *parts[0].shape), dtype=volume.dtype, device=volume.device)
            yield group, forward(torch.stack(parts, out=buffer[: len(group)]))


def _evaluate_constant(
    forward: TileForward, volume: Tensor, tiles: Sequence[TilePosition], patch: tuple[int, ...], air: Air | None
) -> _Constant:
    """Evaluate one constant tile, if there are several."""
    constant = constant_tiles(volume, tiles, air.value) if air is not None else []
    if air is None or len(constant) < 2:
        return _Constant()
    tile = torch.full((1, len(volume), *patch), air.value, dtype=volume.dtype, device=volume.device)
    passes: list[tuple[Tensor, Tensor]] = []

    def observe(plain: Tensor, averaged: Tensor) -> None:
        if labels_of(plain).any() or labels_of(averaged).any():
            passes.append((plain.clone(), averaged.clone()))

    logits = TileForward(
        forward.network, forward.mirrored, forward.device, 1, forward.difference, observe, forward.relieve, forward.swap
    )(tile)
    return _Constant(frozenset(constant), logits, tuple(passes))


def pad(volume: Tensor, patch: Sequence[int]) -> tuple[Tensor, tuple[slice, ...]]:
    """The volume with zeros on both sides, at least a patch large, and where in it the given one lies."""
    lacking = [max(0, tile - size) for tile, size in zip(patch, volume.shape[1:], strict=True)]
    if not any(lacking):
        return volume, (slice(None),) * 3
    inner = tuple(slice(n // 2, n // 2 + size) for n, size in zip(lacking, volume.shape[1:], strict=True))
    return F.pad(volume, [part for n in reversed(lacking) for part in (n // 2, n - n // 2)]), inner


def _require(
    volume: Tensor, patch: tuple[int, ...], step: float | Sequence[float], mirror_axes: Sequence[int], batch: int
) -> None:
    if volume.ndim != 4 or min(volume.shape) < 1 or not volume.is_floating_point():
        raise DataError(f"Volume {tuple(volume.shape)} {volume.dtype}: it must be (channels, z, y, x) numbers.")
    if len(patch) != 3 or min(patch) < 1:
        raise ConfigError(f"Patch {patch}: tiles are three-dimensional. Give (z, y, x) voxels.")
    if not all(0 < share <= 1 for share in step_by_axis(step)):
        raise ConfigError(f"step {step}: tiles must lie less than a patch apart. Use a step in (0, 1].")
    if batch < 1:
        raise ConfigError(f"batch {batch}: the network sees at least one tile at once. Use 1 or more.")
    if len({*mirror_axes}) != len(mirror_axes) or not {*mirror_axes} <= {0, 1, 2}:
        raise ConfigError(f"Mirroring axes {tuple(mirror_axes)}: each of 0, 1, 2 at most once.")
