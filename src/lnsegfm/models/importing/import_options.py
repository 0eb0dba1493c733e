"""What a user states about a model whose files do not state it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError
from lnsegfm.imaging.axis_code import require_axes

FLAGS = {
    "plans": "--plans",
    "dataset_json": "--dataset-json",
    "labels": "--label",
    "channels": "--channel",
    "configuration": "--configuration",
    "folds": "--fold",
    "spacing_mm": "--spacing",
    "window_hu": "--window",
    "patch_size": "--patch-size",
}
"""Of these a form takes some; what is said of any model, such as its axes, is not among them."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What is stated besides the file. A form takes some of it and refuses the rest.

    Args:
        plans: An nnU-Net plans file, for weights that come without.
        dataset_json: An nnU-Net ``dataset.json``, for weights that come without.
        labels: What the network's outputs mean.
        channels: Names of the input channels, such as ``CT``.
        configuration: Which configuration, where there are several.
        folds: Which folds, ``0`` or ``all``; every numbered one unless given.
        spacing_mm: Voxel spacing that it was trained at, (z, y, x).
        window_hu: Lowest and highest intensity, which it was trained to see as 0 and 1.
        patch_size: Voxels (z, y, x) of the patches that it is applied to.
        axes: The axis code of the arrays that it was trained on, such as ``RAS``.
        licence: Terms of use, in words.
        citation: What to cite.
        replace: Replace a model of the same name.
        network: What the config beside the weights says of their network, for what leaves no mark in them; None
            where there is none.

    Raises:
        ConfigError: A value that cannot be.
    """

    plans: Path | None = None
    dataset_json: Path | None = None
    labels: LabelMap | None = None
    channels: tuple[str, ...] = ()
    configuration: str | None = None
    folds: tuple[str, ...] = ()
    spacing_mm: tuple[float, float, float] | None = None
    window_hu: tuple[float, float] | None = None
    patch_size: tuple[int, int, int] | None = None
    axes: str | None = None
    licence: str | None = None
    citation: str | None = None
    replace: bool = False
    network: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.axes is not None:
            object.__setattr__(self, "axes", require_axes(self.axes, "--axes"))
        for fold in self.folds:
            if not re.fullmatch(r"\d+|all", fold):
                raise ConfigError(f"--fold {fold}: not a fold. Use a number, or all.")
        for name in self.channels:
            if not name.strip() or not name.isprintable():
                raise ConfigError(f"--channel {name!r}: not a name. Use words like CT.")
        if self.spacing_mm is not None and not all(0 < v < float("inf") for v in self.spacing_mm):
            raise ConfigError(f"--spacing {_words(self.spacing_mm)}: millimetres above 0 are needed.")
        if self.window_hu is not None and not -float("inf") < self.window_hu[0] < self.window_hu[1] < float("inf"):
            raise ConfigError(f"--window {_words(self.window_hu)}: the first must lie below the second.")
        if self.patch_size is not None and min(self.patch_size) < 1:
            raise ConfigError(f"--patch-size {_words(self.patch_size)}: numbers of voxels are needed, 1 or more.")

    @property
    def given(self) -> frozenset[str]:
        """Names of the fields that describe the model and were said."""
        return frozenset(name for name in FLAGS if getattr(self, name) not in (None, ()))


def _words(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
