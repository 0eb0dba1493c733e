"""Labelled scans in memory, kept in the run's folder, from which alone a run is continued, evaluated and drawn."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lnsegfm.datasets.dataset import Case
from lnsegfm.errors import DataError, RunMismatch
from lnsegfm.imaging.files import write_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.image_objects import Volume, as_mask, as_volumes
from lnsegfm.storage import PARTIAL, read_json, write_json
from lnsegfm.workflows.run_folder import MEMORY_CARD, MEMORY_DATA, require_free

FORMAT = "lnsegfm.data-in-memory/1"
ENDING = ".nii.gz"


def keep_data(data: Any, out: Path, channels: Sequence[str]) -> Path:
    """Write labelled scans into a run's folder as a dataset, unless they lie there already; give its folder.

    The voxels are hashed: the same call finds its data again, other data are refused. Numbers are kept as they are,
    spacings and origins in NIfTI's single precision.

    Args:
        data: Pairs (image, label) in a list, or by case name. Images and labels in any form that `as_volumes` takes,
            of several channels a list of images.
        out: The run's folder.
        channels: What the base takes, a name a channel.

    Raises:
        DataError: Something that is no image or mask, or a case without either; all of them are listed.
        RunMismatch: The folder holds a run on other data, or something else.
    """
    pairs = dict(named_pairs(data))
    problems: list[str] = []
    cases: dict[str, tuple[tuple[Volume, ...], Volume]] = {}
    for name, pair in pairs.items():
        try:
            cases[Case(name, ()).name] = _volumes(name, pair)
        except DataError as error:
            problems += [text if text.startswith(f"Case {name}") else f"Case {name}: {text}" for text in error.problems]
    if problems:
        raise DataError(*problems)
    require_free(out)
    folder = out / MEMORY_DATA
    digest = _digest(cases)
    if (folder / MEMORY_CARD).is_file():
        if read_json(folder / MEMORY_CARD).get("sha256") != digest:
            raise RunMismatch(f"{out}: it holds a run on other data. Choose another folder.")
        return folder
    fresh = out / f"{PARTIAL}{MEMORY_DATA}"
    shutil.rmtree(fresh, ignore_errors=True)
    _write(fresh, cases, channels)
    write_json(fresh / MEMORY_CARD, {"format": FORMAT, "sha256": digest})
    fresh.rename(folder)
    return folder


def named_pairs(data: Any) -> Iterator[tuple[str, Any]]:
    """The pairs by case name: ``case_000``, ``case_001``, ... of a list.

    Raises:
        DataError: It is neither a list nor a table, or empty.
    """
    if not isinstance(data, Mapping | Sequence) or isinstance(data, str) or not data:
        raise DataError("Data: no labelled scans. Give a folder, or a list of pairs (image, label).")
    if isinstance(data, Mapping):
        yield from ((str(name), pair) for name, pair in data.items())
    else:
        yield from ((f"case_{number:03d}", pair) for number, pair in enumerate(data))


def _volumes(name: str, pair: Any) -> tuple[tuple[Volume, ...], Volume]:
    if not isinstance(pair, list | tuple) or len(pair) != 2 or isinstance(pair[1], Grid):
        raise DataError(f"Case {name}: not a pair of an image and its label. Give (image, label).")
    image, label = pair
    parts = image if isinstance(image, list) else [image]
    images = tuple(volume for part in parts for volume in as_volumes(part, name="the image"))
    grid = images[0].grid if isinstance(label, np.ndarray) else None  # a plain array lies on its image's
    return images, as_mask(label, grid, name="the label")


def _digest(cases: Mapping[str, tuple[tuple[Volume, ...], Volume]]) -> str:
    """SHA-256 of names, grids, number types and voxels."""
    digest = hashlib.sha256()
    for name in sorted(cases):
        images, label = cases[name]
        for volume in (*images, label):
            digest.update(f"{name}|{volume.array.dtype.str}|{volume.grid}|".encode())
            digest.update(np.ascontiguousarray(volume.array).tobytes())
    return digest.hexdigest()


def _write(folder: Path, cases: Mapping[str, tuple[tuple[Volume, ...], Volume]], channels: Sequence[str]) -> None:
    several = max(len(images) for images, _ in cases.values()) > 1
    for name, (images, label) in cases.items():
        for number, volume in enumerate(images):
            suffix = f"_{number:04d}" if several else ""
            write_volume(folder / "images" / f"{name}{suffix}{ENDING}", _storable(volume.array), volume.grid)
        write_volume(folder / "labels" / f"{name}{ENDING}", _storable(label.array), label.grid)
    if several:
        write_json(folder / "dataset.json", {"channel_names": {str(k): name for k, name in enumerate(channels)}})


def _storable(array: np.ndarray) -> np.ndarray:
    """NIfTI has no truth values and no half precision."""
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    return array.astype(np.float32) if array.dtype == np.float16 else array
