"""What a run was asked for besides its recipe: files, names and places, for its command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lnsegfm.datasets.label_tables import BACKGROUND
from lnsegfm.datasets.labels import LabelMap


@dataclass(frozen=True, kw_only=True)
class AskedOptions:
    """What a run's command line says that neither its recipe nor its settings hold.

    Args:
        model: The base, as it was named; "" where there is none.
        labels: What the masks' numbers mean, where it was said.
        allow_empty: Whether scans whose label is empty are kept.
        plans: File of the plans to adapt into.
        source_data: Folder of the source data.
        configuration: Which model of a folder that holds several.
        recipe_file: The file that the recipe was read from.
        device: What computes, as it was asked for.
        workers: Processes that make batches, where it was said.
        smallest_difference: Below which a difference is too small to matter, where it was said.
    """

    model: str = ""
    labels: Mapping[str, int] = field(default_factory=dict)
    allow_empty: bool = False
    plans: str | None = None
    source_data: str | None = None
    configuration: str | None = None
    recipe_file: str | None = None
    device: str = "auto"
    workers: int | None = None
    smallest_difference: float | None = None

    def to_json(self) -> dict[str, Any]:
        """What was said, as plain values; defaults are left out."""
        idle = AskedOptions()
        return {name: value for name, value in vars(self).items() if value != getattr(idle, name)}


def option_labels(labels: LabelMap | None) -> dict[str, int]:
    """Labels as ``--label`` names them; regions of several values, which only Python can give, are left out."""
    table = labels.to_dataset_json() if labels is not None else {}
    return {name: value for name, value in table.items() if isinstance(value, int) and name != BACKGROUND}


def as_text(place: Path | None) -> str | None:
    """A place as it was named, where there is one."""
    return str(place) if place is not None else None
