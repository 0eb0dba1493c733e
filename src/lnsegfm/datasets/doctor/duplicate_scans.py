"""Duplicate scans: one scan under two names, also mirrored, resampled, offset in its values, or with another header."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

import numpy as np

SIDE = 24  # voxels of a signature along each axis
MIN_CORRELATION = 0.97  # correlation: of 60 patients of one site the two most alike have 0.925
_FINE = 96  # a scan is thinned to at most this along each axis before it is averaged
_BATCH = 256


def signature(volume: np.ndarray, tissue_hu: float) -> np.ndarray | None:
    """A scan reduced to 24 x 24 x 24 means of its soft tissue, normalised for correlation.

    Args:
        volume: The scan (z, y, x), at least 24 voxels along each axis.
        tissue_hu: Its commonest soft-tissue value: values are counted from there, so that an offset plays no part.

    Returns:
        float32 of unit length and mean 0; None where the scan is smaller, or uniform.
    """
    if min(volume.shape) < SIDE:
        return None
    thin = volume[tuple(slice(None, None, max(1, n // _FINE)) for n in volume.shape)]
    from_tissue = np.nan_to_num(thin.astype(np.float64), nan=-1000.0) - tissue_hu
    small: np.ndarray = np.clip(from_tissue, -200, 200).astype(np.float32)
    for axis in range(3):
        edges = np.linspace(0, small.shape[axis], SIDE + 1).astype(int)
        sums = np.add.reduceat(small, edges[:-1], axis=axis)
        small = sums / np.diff(edges).reshape([-1 if a == axis else 1 for a in range(3)])
    small -= small.mean()
    length = float(np.linalg.norm(small))
    return small / length if length > 1e-3 else None


def find_duplicate_scans(signatures: Mapping[str, np.ndarray]) -> Iterator[tuple[str, str, float, str]]:
    """Pairs of duplicate scans: the earlier name, the later one, their correlation, and how they differ.

    The last is empty, or says along which axes (z, y, x) one is the mirror image of the other.
    """
    names = list(signatures)
    if len(names) < 2:
        return
    table = np.stack([signatures[name].ravel() for name in names])
    for start in range(0, len(names), _BATCH):
        part = table[start : start + _BATCH]
        best = np.full((len(part), len(names)), -1.0, np.float32)
        best_flip = np.zeros(best.shape, np.int8)
        for k, flips in enumerate(_FLIPS):
            flipped = np.flip(part.reshape(-1, SIDE, SIDE, SIDE), tuple(a + 1 for a in flips)) if flips else part
            correlation = flipped.reshape(len(part), -1) @ table.T
            best_flip = np.where(correlation > best + 1e-6, np.int8(k), best_flip)
            best = np.maximum(best, correlation)
        for row, column in zip(*np.nonzero(best >= MIN_CORRELATION), strict=True):
            if column < start + row:
                axes = ", ".join("zyx"[a] for a in _FLIPS[best_flip[row, column]])
                yield names[column], names[start + row], float(best[row, column]), axes


_FLIPS = [tuple(a for a, on in enumerate(flags) if on) for flags in product((False, True), repeat=3)]
