"""One fine-tuning run as a value. Its content hash, with those of data and base, is the run's identity."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lnsegfm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides the result of a run; device and number of workers do not belong here.

    Args:
        method: Name of the method.
        settings: Its settings.
        shots: Labelled scans trained on, the rest held out; None trains on all.
        draw: Which scans these are.
        iterations: Optimizer steps.
        lr: Learning rate; falls to 0 by nnU-Net's polynomial schedule.
        batch_size: Patches a step; None takes the base's.
        patch_size: Voxels (z, y, x) at the base's spacing; None takes the base's.
        seed: Of patches, augmentation and fresh heads.
        time_limit_s: Stop training after this many seconds of it.
        early_stop: Stop after this many iterations in which the smoothed training loss did not fall.
        mirroring: Mirror patches at prediction, as nnU-Net does (8 times the work).
        label_names: A label of the base to its name in the data, where they differ.
        plans: SHA-256 of nnU-Net plans to adapt into instead of the base's own.
        min_transfer: Share of the parameters that must come from the base; with less the run is refused.
    """

    method: str = "dgst"
    settings: Mapping[str, Any] = field(default_factory=dict)
    shots: int | None = None
    draw: int = 0
    iterations: int = 1000
    lr: float = 1e-2
    batch_size: int | None = None
    patch_size: tuple[int, int, int] | None = None
    seed: int = 0
    time_limit_s: float | None = None
    early_stop: int | None = None
    mirroring: bool = True
    label_names: Mapping[str, str] = field(default_factory=dict)
    plans: str | None = None
    min_transfer: float = 0.8

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size", "early_stop"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} {value}: it must be at least 1.")
        if self.seed < 0:
            raise ConfigError(f"seed {self.seed}: seeds are counted from 0. Use seed >= 0.")
        if not self.lr > 0:
            raise ConfigError(f"lr {self.lr}: a step needs a length above 0. Use for example 0.01.")
        if self.time_limit_s is not None and not self.time_limit_s > 0:
            raise ConfigError(f"time limit {self.time_limit_s} s: training needs some time. Leave it out for no limit.")
        if self.patch_size is not None and (len(self.patch_size) != 3 or min(self.patch_size) < 1):
            raise ConfigError(f"patch size {self.patch_size}: three lengths in voxels are needed, such as 64 96 96.")

        if not 0 <= self.min_transfer <= 1:
            raise ConfigError(f"min transfer {self.min_transfer}: a share is needed. Use a number in [0, 1].")

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain values."""
        return dataclasses.asdict(self) | {"settings": dict(self.settings), "label_names": dict(self.label_names)}
