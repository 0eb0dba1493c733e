"""Connected pieces of a mask: what is counted as one node.

Two voxels belong together when a way leads from one to the other through voxels of the mask that are neighbours. With
26 neighbours those that share a face, an edge or a corner are; with 18 a face or an edge; with 6 a face.

Masks of nodes are nearly empty, so the work is done on the runs of voxels along x (He, Chao and Suzuki, "A run-based
two-scan labeling algorithm", IEEE Trans. Image Process. 17(5), 2008), never on the whole array.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lnsegfm.errors import ConfigError, DataError

Box = tuple[slice, slice, slice]

# connectivity: for every row of voxels (dz, dy) that comes later, how far runs may miss each other along x and still
# be neighbours
_ROWS: dict[int, dict[tuple[int, int], int]] = {
    6: {(0, 1): 0, (1, 0): 0},
    18: {(0, 1): 1, (1, 0): 1, (1, -1): 0, (1, 1): 0},
    26: {(0, 1): 1, (1, 0): 1, (1, -1): 1, (1, 1): 1},
}
CONNECTIVITIES = tuple(_ROWS)


@dataclass(frozen=True, eq=False)
class Components:
    """The connected pieces of one mask, numbered 1, 2, ... from the one of most voxels (ties: the first in the file).

    Args:
        shape: Of the mask (z, y, x).
        voxels: Positions of the mask's voxels in the flattened array, ascending.
        ids: The number of the piece that each of them belongs to.
        sizes: Voxels of each piece; ``sizes[id - 1]``.
    """

    shape: tuple[int, int, int]
    voxels: NDArray[np.int64]
    ids: NDArray[np.int32]
    sizes: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.sizes)

    @cached_property
    def _by_id(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if len(self.sizes) < 2:
            return self.voxels, np.array([0, len(self.voxels)])
        return self.voxels[np.argsort(self.ids, kind="stable")], np.concatenate([[0], np.cumsum(self.sizes)])

    def voxels_of(self, number: int) -> NDArray[np.int64]:
        """Positions of the voxels of one piece in the flattened array, ascending."""
        voxels, ends = self._by_id
        return voxels[ends[number - 1] : ends[number]]

    def cut(self, number: int) -> tuple[Box, NDArray[np.bool_]]:
        """The smallest box (z, y, x) around a piece, and the piece in it."""
        place = np.unravel_index(self.voxels_of(number), self.shape)
        low = [int(axis.min()) for axis in place]
        high = [int(axis.max()) + 1 for axis in place]
        piece = np.zeros([b - a for a, b in zip(low, high, strict=True)], dtype=bool)
        piece[tuple(axis - a for axis, a in zip(place, low, strict=True))] = True
        return (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])), piece

    @cached_property
    def boxes(self) -> tuple[Box, ...]:
        """The smallest box (z, y, x) around each piece; ``boxes[id - 1]``."""
        return tuple(self.cut(number)[0] for number in range(1, len(self) + 1))

    def ids_at(self, voxels: NDArray[np.int64]) -> NDArray[np.int32]:
        """The piece at each of these positions of the flattened array; 0 where there is none."""
        if not len(self.voxels):
            return np.zeros(len(voxels), np.int32)
        place = np.minimum(np.searchsorted(self.voxels, voxels), len(self.voxels) - 1)
        return np.where(self.voxels[place] == voxels, self.ids[place], 0).astype(np.int32)

    def labels(self) -> NDArray[np.int32]:
        """An array (z, y, x) that holds each voxel's piece, and 0 elsewhere."""
        labels = np.zeros(self.shape, np.int32)
        labels.ravel()[self.voxels] = self.ids
        return labels


def components(mask: NDArray[np.bool_], connectivity: int = 26) -> Components:
    """The connected pieces of a mask.

    Args:
        mask: Boolean mask (z, y, x). An empty one has no pieces.
        connectivity: 26, 18 or 6 neighbours.

    Raises:
        ConfigError: Another connectivity.
        DataError: Not a boolean array of three axes.
    """
    if mask.dtype != np.bool_ or mask.ndim != 3:
        raise DataError(f"Mask of {mask.dtype} {mask.shape}: not a boolean mask (z, y, x). Pass mask == label.")
    return from_voxels(np.flatnonzero(mask), (mask.shape[0], mask.shape[1], mask.shape[2]), connectivity)


def from_voxels(voxels: NDArray[np.int64], shape: tuple[int, int, int], connectivity: int = 26) -> Components:
    """The connected pieces of the mask whose voxels are these positions, ascending, of the flattened array.

    Raises:
        ConfigError: A connectivity that is not 26, 18 or 6.
    """
    if connectivity not in _ROWS:
        raise ConfigError(f"Connectivity {connectivity}: a voxel has 26, 18 or 6 neighbours. Use one of these.")
    if not len(voxels):
        return Components(shape, voxels, np.zeros(0, np.int32), ())
    breaks = np.flatnonzero((np.diff(voxels) != 1) | (voxels[1:] % shape[2] == 0)) + 1
    first, last = np.concatenate([[0], breaks]), np.concatenate([breaks, [len(voxels)]]) - 1
    row, start = np.divmod(voxels[first], shape[2])
    piece_of_run = _join(row, start, start + last - first, shape, connectivity)
    lengths = last - first + 1
    sizes = np.bincount(piece_of_run, weights=lengths).astype(np.int64)
    _, starts = np.unique(piece_of_run, return_index=True)
    order = np.lexsort((starts, -sizes))
    number = np.empty(len(order), np.int32)
    number[order] = np.arange(1, len(order) + 1)
    return Components(shape, voxels, np.repeat(number[piece_of_run], lengths), tuple(sizes[order].tolist()))


def _join(
    row: NDArray[np.int64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    shape: tuple[int, int, int],
    connectivity: int,
) -> NDArray[np.int32]:
    """The piece of each run: voxels ``start`` to ``end`` of a row ``z * shape[1] + y``, in the file's order."""
    z, y = np.divmod(row, shape[1])
    width = shape[2] + 2  # so that a run, one voxel longer at either end, never reaches into the next row
    starts, ends = row * width + start, row * width + end
    first_runs: list[NDArray[np.int64]] = []
    second_runs: list[NDArray[np.int64]] = []
    for (dz, dy), miss in _ROWS[connectivity].items():
        runs = np.flatnonzero((z + dz < shape[0]) & (y + dy >= 0) & (y + dy < shape[1]))
        offset = (row[runs] + dz * shape[1] + dy) * width
        low = np.searchsorted(ends, offset + start[runs] - miss)
        high = np.searchsorted(starts, offset + end[runs] + miss, side="right")
        count = np.maximum(high - low, 0)
        first_runs.append(np.repeat(runs, count))
        second_runs.append(np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count))
    i, j = np.concatenate(first_runs), np.concatenate(second_runs)
    graph = coo_array((np.ones(len(i), np.int8), (i, j)), shape=(len(row), len(row)))
    return connected_components(graph, directed=False)[1]
