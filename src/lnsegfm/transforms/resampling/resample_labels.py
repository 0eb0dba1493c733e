"""Labels on another grid: between unlike neighbours the one with the largest interpolated share wins.

A voxel all of whose neighbours bear one label has that label, whatever the weights. So the nearest neighbour is taken
everywhere, and only the voxels between unlike neighbours are interpolated: no indicator of a label is ever built.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from lnsegfm.transforms.resampling.axis_weights import LinearNeighbours, linear_neighbours

CHUNK = 2**13
"""Voxels interpolated at a time at most, so that their eight shares stay in a processor's cache."""
BYTES_A_VOXEL = 8 * (8 + 8 + 8 + 8)
"""Of a voxel that is interpolated: eight labels, weights and shares, and what is between."""


def resample_label_volume(labels: np.ndarray, out: np.ndarray, slices: np.ndarray | None, max_bytes: int) -> None:
    """Resample one volume of labels.

    Args:
        labels: (z, y, x).
        out: (z, y, x), written.
        slices: Where the first axis is resampled separately, the slice that each slice of ``out`` is taken from; None
            where all three axes are interpolated.
        max_bytes: Working memory.
    """
    y, x = linear_neighbours(labels.shape[1], out.shape[1]), linear_neighbours(labels.shape[2], out.shape[2])
    n_in, n_out = len(labels), len(out)
    a_row = int((4 * labels[0].size * max(1.0, n_in / n_out) + 3 * out[0].size) * labels.itemsize + 10 * out[0].size)
    rows = max(1, min(n_out, max_bytes // 2 // a_row))
    chunk = max(2**9, min(CHUNK, max_bytes // 2 // BYTES_A_VOXEL))
    for start in range(0, n_out, rows):
        here = slice(start, min(start + rows, n_out))
        if slices is None:
            z = linear_neighbours(n_in, n_out)
            low, high = int(z.low[here].min()), int(z.high[here].max()) + 1
            part = LinearNeighbours(
                z.low[here] - low, z.high[here] - low, z.of_low[here], z.of_high[here], z.nearest[here] - low
            )
            out[here] = _interpolated(labels[low:high], part, y, x, chunk)
        else:
            used, back = np.unique(slices[here], return_inverse=True)
            each = np.arange(len(used))
            alone = LinearNeighbours(each, each, np.ones(len(used)), np.zeros(len(used)), each)
            out[here] = _interpolated(labels[used], alone, y, x, chunk)[back]


def _interpolated(
    labels: np.ndarray, z: LinearNeighbours, y: LinearNeighbours, x: LinearNeighbours, chunk: int
) -> np.ndarray:
    labels, axes = np.ascontiguousarray(labels), (z, y, x)
    result = _taken(labels, z.nearest, y.nearest, x.nearest)
    mixed = _mixed(labels, axes)
    bounds = [_between(mixed, axis, pairs) for axis, pairs in enumerate(axes)]
    part = _taken(mixed, *(pairs.low[bound] for pairs, bound in zip(axes, bounds, strict=True)))
    places = np.flatnonzero(part)
    for start in range(0, len(places), chunk):
        found = np.unravel_index(places[start : start + chunk], part.shape)
        at = tuple(index + bound.start for index, bound in zip(found, bounds, strict=True))
        corners, shares = _neighbours(labels, axes, at)
        result[at] = _winners(corners, shares, result[at])
    return result


def _taken(labels: np.ndarray, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return labels.take(x, axis=2, mode="clip").take(y, axis=1, mode="clip").take(z, axis=0, mode="clip")


def _mixed(labels: np.ndarray, axes: tuple[LinearNeighbours, LinearNeighbours, LinearNeighbours]) -> np.ndarray:
    """Whether the cell from a voxel to the next one along each interpolated axis holds more than one label."""
    smallest = largest = labels
    for axis, pairs in enumerate(axes):
        if (pairs.low != pairs.high).any():
            smallest, largest = _with_next(np.minimum, smallest, axis), _with_next(np.maximum, largest, axis)
    return smallest != largest


def _with_next(choose: np.ufunc, labels: np.ndarray, axis: int) -> np.ndarray:
    result = labels.copy()
    before, after = ((slice(None),) * axis + (part,) for part in (slice(None, -1), slice(1, None)))
    choose(labels[before], labels[after], out=result[before])
    return result


def _between(mixed: np.ndarray, axis: int, pairs: LinearNeighbours) -> slice:
    """The outputs along an axis that can lie in a mixed cell; they are neighbours, because ``low`` never falls."""
    layers = np.flatnonzero(mixed.any(axis=tuple(other for other in range(3) if other != axis)))
    if not len(layers):
        return slice(0, 0)
    return slice(
        int(np.searchsorted(pairs.low, layers[0], "left")), int(np.searchsorted(pairs.low, layers[-1], "right"))
    )


def _neighbours(
    labels: np.ndarray, axes: tuple[LinearNeighbours, LinearNeighbours, LinearNeighbours], at: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (8, n) around each place and their weights (8, n), in the order in which scipy adds them up."""
    steps = (labels.shape[1] * labels.shape[2], labels.shape[2], 1)
    index = [(pairs.low[o] * step, pairs.high[o] * step) for pairs, o, step in zip(axes, at, steps, strict=True)]
    factor = [(pairs.of_low[o], pairs.of_high[o]) for pairs, o in zip(axes, at, strict=True)]
    corners = np.empty((8, len(at[0])), dtype=labels.dtype)
    shares = np.empty((8, len(at[0])))
    for corner, (z, y, x) in enumerate(product((0, 1), repeat=3)):
        labels.take(index[0][z] + index[1][y] + index[2][x], mode="clip", out=corners[corner])
        # from the first axis to the last, as scipy does: another order rounds otherwise
        np.multiply(factor[0][z] * factor[1][y], factor[2][x], out=shares[corner])
    return corners, shares


def _winners(corners: np.ndarray, shares: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """The label of largest share at each place, ties to ``nearest`` if it is tied, else to the smallest label."""
    smallest, largest = corners.min(axis=0), corners.max(axis=0)
    several = ((corners != smallest) & (corners != largest)).any(axis=0)
    result = _won(corners, shares, np.stack([smallest, largest]), nearest)
    if several.any():
        few = corners[:, several]
        result[several] = _won(few, shares[:, several], np.sort(few, axis=0), nearest[several])
    return result


def _won(corners: np.ndarray, shares: np.ndarray, contenders: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """``contenders`` (k, n) hold every label of ``corners`` and rise; the first of the tied is the smallest label."""
    totals, same, part = np.zeros(contenders.shape), np.empty(len(nearest), dtype=bool), np.empty(len(nearest))
    for contender, total in zip(contenders, totals, strict=True):
        for corner, share in zip(corners, shares, strict=True):
            np.equal(corner, contender, out=same)
            np.multiply(share, same, out=part)
            total += part
    best = totals.max(axis=0)
    first = np.take_along_axis(contenders, totals.argmax(axis=0)[None], axis=0)[0]
    kept = ((totals == best) & (contenders == nearest)).any(axis=0)
    return np.where(kept, nearest, first)
