"""Prepared scans in files of compressed chunks: for sets larger than memory, and for several processes.

A scan is three b2nd files, which blosc2 reads, and a JSON file that comes last and says that they are complete:
``NAME.image.b2nd`` (C, Z, Y, X), ``NAME.labels.b2nd`` (1, Z, Y, X), ``NAME.places.b2nd`` (N, 4) and ``NAME.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lnsegfm.errors import ConfigError, DataError
from lnsegfm.storage import atomic_write, read_json, write_json
from lnsegfm.transforms.augmentation.compressed_volume import (
    CompressedVolume,
    Places,
    StoredRows,
    write_compressed,
    write_rows,
)
from lnsegfm.transforms.augmentation.prepared_case import PreparedCase, in_memory

FORMAT = "lnsegfm.prepared/1"
HALF, EXACT = "half", "float32"
STORED = (HALF, EXACT)
LOSS = 2.0**-9
"""Largest difference of a stored intensity, in units of the normalised one: a 512th of a standard deviation. Of a CT
that is 0.2 HU where the foreground's standard deviation is 100 HU; HU are rounded to whole numbers, by up to 0.5."""


def require_stored(stored: str) -> str:
    """Refuse a way of storing that there is not.

    Raises:
        ConfigError: Neither ``half`` nor ``float32``.
    """
    if stored not in STORED:
        raise ConfigError(f"--prepared {stored}: not known. Use half, or float32 to lose nothing.")
    return stored


@dataclass(frozen=True)
class PreparedFiles:
    """A folder of prepared scans.

    Args:
        folder: Where they lie.
        stored: ``half`` keeps intensities in half precision where none of a scan changes by more than `LOSS`, and
            other scans in single precision; ``float32`` loses nothing.
    """

    folder: Path
    stored: str = EXACT

    def __post_init__(self) -> None:
        require_stored(self.stored)

    def has(self, name: str) -> bool:
        """Whether a scan is there, whole, and stored as asked."""
        try:
            facts = read_json(self._marker(name))
        except DataError:
            return False
        return isinstance(facts, dict) and (facts.get("format"), facts.get("asked")) == (FORMAT, self.stored)

    def write(self, shot: PreparedCase) -> dict[str, Any]:
        """Write a scan; what its JSON file holds. Equal scans are equal files."""
        image, lost = _as_stored(in_memory(shot.image).numpy(), self.stored)
        counts, places = _one_table(shot.locations)
        for part, array in (("image", image), ("labels", in_memory(shot.labels).numpy()[None])):
            with atomic_write(self._file(shot.name, part)) as partial:
                write_compressed(partial, array)
        with atomic_write(self._file(shot.name, "places")) as partial:
            write_rows(partial, places)
        facts = {
            "format": FORMAT,
            "asked": self.stored,
            "stored": HALF if image.dtype == np.float16 else EXACT,
            "largest_difference": lost,
            "shape": list(shot.shape),
            "places": counts,
        }
        write_json(self._marker(shot.name), facts)
        return facts

    def read(self, name: str) -> PreparedCase:
        """A scan of which nothing is read but its size; patches read what they need.

        Raises:
            DataError: It is not there, or damaged.
        """
        facts = read_json(self._marker(name))
        locations: dict[Any, Places] = {}
        try:
            first = 0
            for key, count in facts["places"]:
                rows = StoredRows(self._file(name, "places"), first, count) if count else np.zeros(0)
                locations[tuple(key) if isinstance(key, list) else key] = rows
                first += count
            shape = tuple(int(n) for n in facts["shape"])
        except (KeyError, TypeError, ValueError):
            raise DataError(
                f"{self._marker(name)}: it is damaged. Remove it; the same command makes it anew."
            ) from None
        image = CompressedVolume.of_file(self._file(name, "image"), torch.float32)
        labels = CompressedVolume(self._file(name, "labels"), shape, torch.int16, channel=0)
        return PreparedCase(name=name, image=image, labels=labels, locations=locations)

    def _file(self, name: str, part: str) -> Path:
        return self.folder / f"{name}.{part}.b2nd"

    def _marker(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def _as_stored(image: np.ndarray, stored: str) -> tuple[np.ndarray, float]:
    """An image as it is stored, and by how much an intensity of it changes at most."""
    if stored == EXACT:
        return image, 0.0
    with np.errstate(over="ignore"):  # what is too large for half precision is infinite there, and too far off
        half = image.astype(np.float16)
    slices = zip(half.reshape(-1, *half.shape[-2:]), image.reshape(-1, *image.shape[-2:]), strict=True)
    lost = max((float(np.abs(low - high).max()) for low, high in slices), default=0.0)
    return (half, lost) if lost <= LOSS else (image, 0.0)


def _one_table(locations: Mapping[Any, Places]) -> tuple[list[list[Any]], np.ndarray]:
    """Places of all labels, one below the other, and how many each label has; keys are numbers or tuples of them."""
    found = [np.asarray(places).reshape(-1, 4) for places in locations.values()]
    counts = [
        [[int(v) for v in key] if isinstance(key, tuple) else int(key), len(places)]
        for key, places in zip(locations, found, strict=True)
    ]
    table = np.concatenate(found) if found else np.zeros((0, 4), np.uint16)
    small = not len(table) or table.max() < 2**16
    return counts, table.astype(np.uint16 if small else np.uint32)
