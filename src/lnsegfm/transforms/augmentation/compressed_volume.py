"""Voxels in a file of compressed chunks, of which a patch reads those that it meets (the b2nd files of blosc2)."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lnsegfm.errors import DataError

BLOCK = (32, 32, 32)
"""Voxels (z, y, x) that are decompressed at a time: few beside a patch, so that little is decompressed for nothing."""
CHUNK = (64, 128, 128)
"""Voxels of the blocks that lie together in the file."""
LEVEL = 1
"""Of Zstandard; higher ones gain a hundredth and take several times as long."""
OPEN = 32
"""Files that a process keeps open."""


@dataclass(frozen=True)
class CompressedVolume:
    """An array in a file, (C, Z, Y, X) or (Z, Y, X), of which parts are read as tensors on the CPU.

    Args:
        file: A b2nd file.
        shape: Of what is read.
        dtype: Of what is read, whatever the file holds.
        channel: The only channel that is read of a file (C, Z, Y, X); None reads the file as it is.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    channel: int | None = None

    @classmethod
    def of_file(cls, file: Path, dtype: torch.dtype, channel: int | None = None) -> CompressedVolume:
        """An array by its file.

        Raises:
            DataError: It holds no array.
        """
        shape = tuple(int(n) for n in open_array(file).shape)
        return cls(file, shape if channel is None else shape[1:], dtype, channel)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def device(self) -> torch.device:
        """Where parts of it are read to."""
        return torch.device("cpu")

    @property
    def is_cuda(self) -> bool:
        """No."""
        return False

    @property
    def nbytes(self) -> int:
        """Bytes of all of it once it is read."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def part(self, z: slice, y: slice, x: slice) -> Tensor:
        """The voxels within these bounds, of all channels; a new tensor.

        Raises:
            DataError: The file is damaged.
        """
        array = _kept_open(self.file, os.getpid())
        before = (slice(None),) * (self.ndim - 3) if self.channel is None else (self.channel,)
        try:
            voxels = np.ascontiguousarray(array[(*before, z, y, x)])
        except (RuntimeError, ValueError) as error:
            raise _damaged(self.file, f"it is damaged ({error})") from None
        return torch.from_numpy(voxels).to(self.dtype)

    def whole(self) -> Tensor:
        """All voxels."""
        return self.part(slice(None), slice(None), slice(None))


Voxels = Tensor | CompressedVolume
"""A scan's voxels (..., Z, Y, X), in memory or in a file."""


def read_part(volume: Voxels, z: slice, y: slice, x: slice) -> Tensor:
    """The voxels within these bounds; a view where they lie in memory."""
    return volume.part(z, y, x) if isinstance(volume, CompressedVolume) else volume[..., z, y, x]


def write_compressed(file: Path, array: np.ndarray) -> None:
    """Write an array (..., Z, Y, X); equal arrays are equal files.

    Args:
        file: The place, ending with ``.b2nd``; what is there is replaced.
        array: Of any number type.
    """
    import blosc2

    before = (1,) * (array.ndim - 3)
    chunks, blocks = (
        tuple(max(1, min(n, size)) for n, size in zip((*before, *part), array.shape, strict=True))
        for part in (CHUNK, BLOCK)
    )
    blosc2.asarray(
        np.ascontiguousarray(array),
        urlpath=str(file),
        mode="w",
        chunks=chunks,
        blocks=blocks,
        cparams=_parameters(LEVEL),
        dparams={"nthreads": 1},
    )


def write_rows(file: Path, rows: np.ndarray) -> None:
    """Write a table (N, columns) of which single rows are read."""
    import blosc2

    count = max(1, len(rows))
    chunks, blocks = ((min(most, count), rows.shape[1]) for most in (16384, 1024))
    blosc2.asarray(
        np.ascontiguousarray(rows),
        urlpath=str(file),
        mode="w",
        chunks=chunks,
        blocks=blocks,
        cparams=_parameters(LEVEL),
        dparams={"nthreads": 1},
    )


@dataclass(frozen=True)
class StoredRows:
    """Some rows that follow one another in a table that `write_rows` wrote.

    Args:
        file: The table.
        first: The first of them.
        count: How many.
    """

    file: Path
    first: int
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> np.ndarray:
        """One row, read from the file."""
        place = range(self.first, self.first + self.count)[row]
        return np.asarray(_kept_open(self.file, os.getpid())[place])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of them, read from the file."""
        rows = np.asarray(_kept_open(self.file, os.getpid())[self.first : self.first + self.count])
        return rows if dtype is None else rows.astype(dtype)


Places = np.ndarray | StoredRows
"""Rows of places, in memory or in a file."""


def open_array(file: Path) -> Any:
    """A b2nd file as blosc2's array, nothing of it decompressed yet.

    Raises:
        DataError: It is missing, damaged or no array.
    """
    import blosc2

    kind = {} if os.name == "nt" else {"mmap_mode": "r"}  # as nnU-Net: mapped files cannot be removed there
    try:
        array = blosc2.open(str(file), mode="r", dparams={"nthreads": 1}, **kind)
    except FileNotFoundError:
        raise _damaged(file, "no such file") from None
    except (RuntimeError, ValueError, OSError) as error:
        raise _damaged(file, f"no array of blosc2 ({error})") from None
    if not isinstance(array, blosc2.NDArray):
        raise _damaged(file, "it holds no array")
    return array


@lru_cache(maxsize=OPEN)
def _kept_open(file: Path, process: int) -> Any:  # noqa: ARG001 - a fork opens its own
    return open_array(file)


def _damaged(file: Path, why: str) -> DataError:
    return DataError(f"{file}: {why}. Remove what is left of the scan; the same command makes it anew.")


def _parameters(level: int) -> dict[str, Any]:
    import blosc2

    filters: Sequence[Any] = [blosc2.Filter.SHUFFLE]
    return {"codec": blosc2.Codec.ZSTD, "clevel": level, "filters": filters, "nthreads": 1}
