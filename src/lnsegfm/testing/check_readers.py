"""The laws of a reader of image files."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.readers import Reader
from lnsegfm.testing.law import require


def check_reader(reader: Reader, file: Path, expected: tuple[np.ndarray, Grid] | None = None) -> None:
    """Check that a reader of image files keeps the laws of all readers.

    Voxels are a volume (z, y, x) of real numbers that fills its grid; reading twice gives the same; the grid alone is
    that of the voxels; a file that is empty or cut short raises instead of giving voxels.

    Args:
        reader: The reader.
        file: A file of its format.
        expected: What the file holds, to be compared with.

    Raises:
        AssertionError: A law is broken; the text says which.
    """
    require(isinstance(reader, Reader), f"reader {reader!r}: it is no lnsegfm.imaging.readers.Reader")
    file = Path(file)
    voxels, grid = reader.read(file)
    require(isinstance(grid, Grid), f"reader of {file.name}: it gives {type(grid).__name__}, not a Grid")
    require(isinstance(voxels, np.ndarray), f"reader of {file.name}: it gives {type(voxels).__name__}, not an array")
    require(voxels.shape == grid.shape, f"reader of {file.name}: voxels {voxels.shape} do not fill a grid {grid.shape}")
    require(voxels.dtype.kind in "iuf", f"reader of {file.name}: voxels of {voxels.dtype} are no real numbers")
    again = reader.read(file)
    same = np.array_equal(voxels, again[0], equal_nan=voxels.dtype.kind == "f") and grid == again[1]
    require(same, f"reader of {file.name}: reading twice gives two volumes")
    if reader.read_grid is not None:
        alone = reader.read_grid(file)
        require(alone == grid, f"reader of {file.name}: the grid alone is {alone}, with the voxels {grid}")
    if expected is not None:
        require(np.array_equal(voxels, expected[0]), f"reader of {file.name}: it does not give the voxels of the file")
        difference = grid.difference(expected[1])
        require(difference is None, f"reader of {file.name}: its grid is not the file's: {difference}")
    content = file.read_bytes()
    with TemporaryDirectory(prefix="lnsegfm-") as folder:
        for what, part in (("an empty file", b""), ("a file that is cut short", content[: len(content) // 2])):
            damaged = Path(folder) / file.name
            damaged.write_bytes(part)
            _require_refused(reader, damaged, what)


def _require_refused(reader: Reader, file: Path, what: str) -> None:
    try:
        reader.read(file)
    except Exception:
        return
    raise AssertionError(f"reader of {file.name}: {what} is read without a word")
