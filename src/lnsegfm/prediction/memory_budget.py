"""How much of the memory that a prediction may hold is left for what, and whether scans may overlap in time."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lnsegfm.datasets.dataset import Case
from lnsegfm.errors import ConfigError, LnSegFmError
from lnsegfm.imaging.files import read_grid
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.orientation import turn_to
from lnsegfm.models.model_folder import Model
from lnsegfm.models.plans import in_plan_order
from lnsegfm.nnunet.plan_configuration import resolve_configuration
from lnsegfm.prediction.predict_options import GB

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series import Series

_AT_ONCE = 3
"""Scans there are at once where they overlap: one read, one on the network, one written."""
LATE = 150_000_000
"""Bytes of libraries that are loaded, or set themselves up, when the first scan is predicted (measured: 110 MB)."""
_FEATURES = 48
"""Channels at full resolution of a network whose plan does not tell them."""


@dataclass(frozen=True)
class Room:
    """What predicting may hold.

    Args:
        overlap: Whether there is room for three scans at once.
        rest: Bytes for what the predictor may make smaller; None where nobody asked for a bound.
    """

    overlap: bool
    rest: int | None


def room(
    model: Model,
    cases: Iterable[Case],
    series: Mapping[str, Series],
    memory: int | None,
    *,
    probabilities: bool = False,
) -> Room:
    """What there is room for.

    Args:
        model: The model.
        cases: The scans to predict.
        series: Those of them that are DICOM.
        memory: Bytes that the process may hold; None takes what the machine has free, where it tells.
        probabilities: Whether they are kept.

    Raises:
        ConfigError: The program, the model and the largest scan hold more than that.
    """
    network = sum(
        tensor.numel() * tensor.element_size() for one in _networks(model) for tensor in one.first.weights.values()
    )
    alone = (
        resident() + LATE + network + tile_bytes(model)
    )  # a copy on the device; the weights themselves are there already
    largest = max((scan_bytes(model, grid, probabilities) for grid in _grids(cases, series)), default=0)
    if memory is None:
        free = available()
        return Room(overlap=free is None or LATE + network + tile_bytes(model) + _AT_ONCE * largest <= free, rest=None)
    if memory < alone + largest:
        raise ConfigError(
            f"--memory {memory / GB:g}: the program, the model and the largest scan alone hold more. Give at least "
            f"{math.ceil((alone + largest) / GB * 100) / 100:g}."
        )
    overlap = alone + _AT_ONCE * largest <= memory
    return Room(overlap, rest=max(1, memory - alone - (_AT_ONCE if overlap else 1) * largest))


def _networks(model: Model) -> Iterator[Model]:
    """The models that a model's masks are made by: itself, its previous stage, its companions with theirs."""
    yield model
    if model.previous is not None:
        yield from _networks(model.previous)
    for other in model.companions:
        yield from _networks(other)


def tile_bytes(model: Model) -> int:
    """What networks hold while they evaluate one tile, about: the widest layers of one, in and out, and a skip."""
    return max(_tile_bytes(one) for one in _networks(model))


def _tile_bytes(model: Model) -> int:
    stated = resolve_configuration(model.plans, model.configuration)
    features = stated["architecture"]["arch_kwargs"].get("features_per_stage", [_FEATURES])
    widest = features[0] if isinstance(features, list | tuple) else features
    classes = 1 + len(model.label_names)
    return 4 * math.prod(stated["patch_size"]) * (6 * widest + 4 * classes)


def scan_bytes(model: Model, grid: Grid, probabilities: bool = False) -> int:
    """What one scan holds at its largest, about: read, normalised, resampled, its mask, and what is measured on it.

    A mask that fills much of the scan takes more to be measured: about 20 bytes a voxel of it.

    Args:
        model: The model.
        grid: The scan's.
        probabilities: Whether each class's probability is there, too.
    """
    grid = turn_to(grid, model.axes).grid(grid)
    if model.companions:  # the sum of the probabilities, and what the model holds whose turn it is
        alone = (replace(model, companions=()), *model.companions)
        total = 4 * (1 + len(model.label_names)) * math.prod(grid.shape)
        return total + max(scan_bytes(one, grid, probabilities=True) for one in alone)
    before = scan_bytes(model.previous, grid) if model.previous is not None else 0
    channels = model.channels + (len(model.label_names) if model.previous_configuration is not None else 0)
    here = in_plan_order(model.plans, grid.spacing_mm)
    stated = list(resolve_configuration(model.plans, model.configuration)["spacing"])
    spacing = stated if len(stated) == len(here) else [here[0], *stated]  # slices keep their distance
    on_scan = math.prod(grid.shape)
    resampled = on_scan * math.prod(a / b for a, b in zip(here, spacing, strict=True))
    classes = 1 + len(model.label_names)
    bytes_a_voxel = 4 * (1 + 2 * channels) + 8 + (4 * classes if probabilities else 0)
    return max(before, round(on_scan * bytes_a_voxel + resampled * 4 * (2 * channels + classes)))


def resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not tell (it is not Linux)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def available() -> int | None:
    """Bytes of memory that the machine could still give; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _grids(cases: Iterable[Case], series: Mapping[str, Series]) -> Iterable[Grid]:
    for case in cases:
        try:
            yield series[case.name].grid if case.name in series else read_grid(case.images[0])
        except (LnSegFmError, OSError):  # it is reported when its turn comes
            continue
