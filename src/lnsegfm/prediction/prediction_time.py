"""About how long the predictions of scans take, from their sizes and one measured tile."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from lnsegfm.datasets.dataset import Case
from lnsegfm.errors import LnSegFmError
from lnsegfm.expected_time import Clock
from lnsegfm.imaging.files import read_grid
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.orientation import turn_to
from lnsegfm.inference.sliding_window import sliding_window
from lnsegfm.inference.tile_positions import tile_positions
from lnsegfm.models.plans import in_plan_order
from lnsegfm.nnunet.environment import kept_randomness
from lnsegfm.nnunet.mirroring import swap_of_plans
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.nnunet.plan_axes import axes_of_plans
from lnsegfm.nnunet.plan_configuration import resolve_configuration
from lnsegfm.weights.checkpoint import Checkpoint

_LONG_S = 1.0
"""A tile that takes so long is measured once; a shorter one again, without what only the first one waits for."""


def tile_seconds(start: Checkpoint, device: str, clock: Clock) -> float | None:
    """Seconds in which a network evaluates a tile, without mirroring; None where memory does not hold it beside others.

    The network has fresh weights, which cost as much as others; random numbers of the caller stay what they are.

    Args:
        start: Plans and description of the model.
        device: ``cpu``, ``cuda`` or ``mps``.
        clock: Seconds of a clock that never goes back.
    """
    patch = _patch(start)
    volume = torch.zeros((len(start.dataset_json["channel_names"]), *patch))
    with kept_randomness():
        network = build_network(start, deep_supervision=False)
        seconds = _LONG_S
        try:
            for _ in range(2):
                before = clock()
                sliding_window(network, volume, patch, device=device)
                seconds = clock() - before
                if seconds >= _LONG_S:
                    break
        except torch.OutOfMemoryError:
            return None
    return seconds


def count_tiles(start: Checkpoint, cases: Iterable[Case], step: float = 0.5) -> int:
    """Tiles of scans as they are stored: what is cropped away, or is air and evaluated once, counts as well.

    Args:
        start: Plans of the model.
        cases: The scans; one that cannot be read counts nothing, since it is reported when its turn comes.
        step: Distance of tiles as a share of the patch.
    """
    patch, number = _patch(start), 0
    for case in cases:
        try:
            shape = _network_shape(start, read_grid(case.images[0]))
        except (LnSegFmError, OSError):
            continue
        number += len(tile_positions([max(pair) for pair in zip(shape, patch, strict=True)], patch, step))
    return number


def mirrored_copies(start: Checkpoint) -> int:
    """Copies that a mirrored prediction of a model is the average of; 1 of a model that is not mirrored."""
    axes, swap = {*(start.mirroring_axes or ())}, swap_of_plans(start.plans)
    return int(2 ** len(axes | ({swap.axis} if swap is not None else set())))


def _patch(start: Checkpoint) -> tuple[int, ...]:
    """Voxels of a tile (z, y, x); a model of slices has one slice."""
    patch = resolve_configuration(start.plans, start.configuration)["patch_size"]
    return (*(1,) * (3 - len(patch)), *map(int, patch))


def _network_shape(start: Checkpoint, grid: Grid) -> list[int]:
    """Voxels of a scan on the network's grid (z, y, x of the plans)."""
    axes = axes_of_plans(start.plans)[0]
    turned = turn_to(grid, axes).grid(grid) if axes is not None else grid
    shape, here = in_plan_order(start.plans, turned.shape), in_plan_order(start.plans, turned.spacing_mm)
    stated = list(resolve_configuration(start.plans, start.configuration)["spacing"])
    spacing = stated if len(stated) == len(here) else [here[0], *stated]
    return [max(1, math.ceil(n * a / b)) for n, a, b in zip(shape, here, spacing, strict=True)]
