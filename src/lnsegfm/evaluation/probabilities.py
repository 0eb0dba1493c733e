"""Class probabilities of a mask, as nnU-Net's ``--save_probabilities`` lays them out."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.imaging.grid import Grid
from lnsegfm.storage import atomic_write

KEY = "probabilities"
ENDING = ".npz"
_ROUNDING = 1e-3  # float16 keeps three digits below 1


def write_probabilities(path: Path, probabilities: np.ndarray) -> None:
    """Write probabilities (background and labels, z, y, x) in half precision, compressed, whole or not at all."""
    with atomic_write(path) as partial:
        np.savez_compressed(partial, probabilities=probabilities.astype(np.float16))


def read_probabilities(path: Path, labels: LabelMap, grid: Grid) -> dict[str, np.ndarray]:
    """The probability of each label in each voxel.

    What nnU-Net wrote is read too. Shape and number type are checked before anything of that size is unpacked, and
    nothing in the file is executed.

    Args:
        path: An ``.npz`` with the key ``probabilities``: (background and labels, z, y, x).
        labels: Those of the model that predicted.
        grid: The scan's.

    Returns:
        By label, float16 or as stored, (z, y, x), from 0 to 1.

    Raises:
        DataError: No such file, not probabilities, or not of these labels and this grid.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. Predict with --probabilities.")
    outputs = len(labels.names) + (not labels.regions)  # a region has no background beside it
    wanted = (outputs, *grid.shape)
    try:
        shape, kind = _header(path)
        if shape != wanted:
            stated = "x".join(map(str, shape))
            raise DataError(
                f"{path}: its shape is {stated}, and {len(labels.names)} labels with background on this scan's grid "
                f"need {'x'.join(map(str, wanted))}. Predict this scan again with --probabilities."
            )
        if kind.kind != "f":
            raise DataError(f"{path}: it holds {kind}, not probabilities. Predict again with --probabilities.")
        with np.load(path, allow_pickle=False) as stored:
            probabilities = stored[KEY]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: no probabilities can be read from it ({' '.join(str(error).split())}). "
            "Predict again with --probabilities."
        ) from None
    if not (probabilities.min() >= -_ROUNDING and probabilities.max() <= 1 + _ROUNDING):  # NaN compares false
        raise DataError(f"{path}: its values are not between 0 and 1. Predict again with --probabilities.")
    return dict(zip(labels.names, probabilities[-len(labels.names) :], strict=True))


def _header(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    with zipfile.ZipFile(path) as archive, archive.open(f"{KEY}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(member)
        return shape, kind
