"""Which outlines of a plane touch or cross each other.

Sides are cut at whole rows into pieces of at most one row's height; pieces of one band meet only where their column
ranges overlap, so that few pairs of sides are compared.

Outlines along voxel edges, which turn at each of their points, do not cross where they share a point: of the four edges
there each has two that are neighbours. Such points, of which a mask has many, are no contact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_TOUCH = 1e-4  # voxels: sides that come so close touch
_MOST_PIECES = 4_000_000
_MOST_TESTS = 5_000_000


def touching_outlines(outlines: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Pairs of outlines whose sides touch or cross, the earlier first.

    Sides are compared within limits. Where a hostile plane exceeds them, every pair whose bounding boxes overlap is
    given.

    Args:
        outlines: Points (n, 2) as (column, row), without repeated neighbours.
    """
    if len(outlines) < 2:
        return []
    boxes = np.array([(*o.min(axis=0), *o.max(axis=0)) for o in outlines])
    involved = _overlapping_any(boxes)
    if not involved.any():
        return []
    numbers = np.flatnonzero(involved).tolist()
    owner = np.repeat(numbers, [len(outlines[k]) for k in numbers])
    starts = np.concatenate([outlines[k] for k in numbers])
    ends = np.concatenate([np.roll(outlines[k], -1, axis=0) for k in numbers])
    turning = np.repeat([runs_along_edges(outlines[k]) for k in numbers], [len(outlines[k]) for k in numbers])
    pairs = _meeting_owners(starts, ends, owner, turning)
    return overlapping_boxes(boxes) if pairs is None else pairs


def overlapping_boxes(boxes: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of bounding boxes (n, 4) as (column, row, last column, last row) that overlap or touch."""
    pairs: list[tuple[int, int]] = []
    for k in range(len(boxes) - 1):
        pairs += [(k, k + 1 + int(other)) for other in np.flatnonzero(_overlaps(boxes[k], boxes[k + 1 :]))]
    return pairs


def _overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    apart: np.ndarray = (
        (others[:, 0] > box[2] + _TOUCH)
        | (others[:, 2] < box[0] - _TOUCH)
        | (others[:, 1] > box[3] + _TOUCH)
        | (others[:, 3] < box[1] - _TOUCH)
    )
    return ~apart


def _overlapping_any(boxes: np.ndarray) -> np.ndarray:
    """For each bounding box whether another one overlaps it."""
    if len(boxes) > 2000:  # the sides themselves are compared faster
        return np.ones(len(boxes), dtype=bool)
    low, high = boxes[:, :2] - _TOUCH, boxes[:, 2:] + _TOUCH
    x, y = ((low[:, None, axis] <= high[None, :, axis]) for axis in range(2))
    overlapping: np.ndarray = (x & x.T & y & y.T).sum(axis=1) > 1
    return overlapping


def runs_along_edges(outline: np.ndarray) -> bool:
    """Whether an outline runs along voxel edges, by turns along a row and along a column."""
    moves = np.abs(outline[1:] - outline[:-1]) > _TOUCH
    along_row = moves[:, 0]
    if not (along_row != moves[:, 1]).all() or len(outline) % 2:
        return False
    return bool((along_row[1:] != along_row[:-1]).all())


def _meeting_owners(
    starts: np.ndarray, ends: np.ndarray, owner: np.ndarray, turning: np.ndarray
) -> list[tuple[int, int]] | None:
    """Pairs of owners whose sides touch or cross; None beyond the limits."""
    pieces = _pieces(starts, ends)
    if pieces is None:
        return None
    side, band, low, high = pieces
    lengths = np.hypot(*(ends - starts).T)
    met: set[tuple[int, int]] = set()
    alive, ahead, tested = np.arange(len(side)), 0, 0
    while len(alive):
        ahead += 1
        alive = alive[: np.searchsorted(alive, len(side) - ahead)]
        near = (band[alive + ahead] == band[alive]) & (low[alive + ahead] <= high[alive] + _TOUCH)
        alive = alive[near]
        first, second = side[alive], side[alive + ahead]
        foreign = owner[first] != owner[second]
        first, second = first[foreign], second[foreign]
        tested += len(alive)
        if tested > _MOST_TESTS:
            return None
        touching = _sides_touch(starts, ends, lengths, first, second)
        touching[touching] = ~_share_a_turn(starts, ends, turning, first[touching], second[touching])
        owners = np.sort(np.stack((owner[first[touching]], owner[second[touching]]), axis=1), axis=1)
        met.update(map(tuple, np.unique(owners, axis=0).tolist()))
    return sorted(met)


def _pieces(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Sides cut at whole rows: number of the side, band, first and last column; by band, then by first column."""
    upward = (starts[:, 1] > ends[:, 1])[:, None]
    (x0, y0), (x1, y1) = np.where(upward, ends, starts).T, np.where(upward, starts, ends).T
    # a side that only touches a band belongs to it too
    first, last = np.floor(y0 - _TOUCH), np.floor(y1 + _TOUCH)
    if not (last - first + 1).sum() <= _MOST_PIECES:
        return None
    counts = (last - first).astype(np.int64) + 1
    side = np.repeat(np.arange(len(counts)), counts)
    band = np.arange(len(side)) - np.repeat(np.cumsum(counts) - counts, counts) + first[side].astype(np.int64)
    height = y1 - y0
    slope = np.divide(x1 - x0, height, out=np.zeros_like(height), where=height > _TOUCH)
    flat = (height <= _TOUCH)[side]
    bottom, top = np.clip(band, y0[side], y1[side]), np.clip(band + 1, y0[side], y1[side])
    at = np.where(flat, x0[side], x0[side] + (bottom - y0[side]) * slope[side])
    to = np.where(flat, x1[side], x0[side] + (top - y0[side]) * slope[side])
    low, high = np.minimum(at, to), np.maximum(at, to)
    order = np.lexsort((low, band))
    return side[order], band[order], low[order], high[order]


def _share_a_turn(
    starts: np.ndarray, ends: np.ndarray, turning: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """For each pair of sides whether they meet at an end of both, where both outlines turn."""
    shared: np.ndarray = np.zeros(len(first), dtype=bool)
    for one in (starts, ends):
        for other in (starts, ends):
            shared |= (np.abs(one[first] - other[second]) <= _TOUCH).all(axis=1)
    middle = np.abs(starts[first] + ends[first] - starts[second] - ends[second]).max(axis=1, initial=0)
    # sides in one line meet in a point only where their middles are as far from each other as half their lengths
    lengths = (np.abs(ends - starts).sum(axis=1)[side] for side in (first, second))
    crosswise = (np.abs(ends - starts)[first] > _TOUCH)[:, 0] != (np.abs(ends - starts)[second] > _TOUCH)[:, 0]
    apart = crosswise | (middle >= sum(lengths) - _TOUCH)
    return shared & apart & turning[first] & turning[second]


def _sides_touch(
    starts: np.ndarray, ends: np.ndarray, lengths: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """For each pair of sides whether they touch or cross."""
    touching = np.ones(len(first), dtype=bool)
    for one, other in ((first, second), (second, first)):
        along = (ends[one] - starts[one]) / lengths[one][:, None]
        side = [
            (points[other] - starts[one])[:, 0] * along[:, 1] - (points[other] - starts[one])[:, 1] * along[:, 0]
            for points in (starts, ends)
        ]
        touching &= ~(((side[0] > _TOUCH) & (side[1] > _TOUCH)) | ((side[0] < -_TOUCH) & (side[1] < -_TOUCH)))
    # sides in one line touch only where their ranges overlap
    for axis in range(2):
        low = np.minimum(starts[:, axis], ends[:, axis])
        high = np.maximum(starts[:, axis], ends[:, axis])
        touching &= (low[first] <= high[second] + _TOUCH) & (low[second] <= high[first] + _TOUCH)
    return touching
